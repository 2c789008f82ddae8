"""The exact comparison of both sides, by the harness itself: existence, payload by value, expiry within a second."""

import json
import time

import redis

from .writers import NEVER, PREFIX

CHUNK = 500
TOLERANCE = 1.0			# seconds between the expiries of both sides
MOMENT = 1.5			# a session with less time left may be gone on either side


class Invalid(Exception):
	"""A value that a jsonb store cannot hold."""


def _refuse(word):
	raise Invalid(word)


def parse(value):
	"""The value of a session's JSON as jsonb takes it, or Invalid."""
	try:
		text = value.decode("utf-8")
		parsed = json.loads(text, parse_constant=_refuse)
	except ValueError as error:
		raise Invalid(str(error)) from error
	if "\\u0000" in text:
		raise Invalid("\\u0000")
	return parsed


def read_redis(client):
	"""sid -> (value, expire) of every key under the prefix; value is Invalid where it cannot be mirrored."""
	found = {}
	keys = list({key for key in client.scan_iter(match=PREFIX + "*", count=1000)})
	for start in range(0, len(keys), CHUNK):
		some = keys[start:start + CHUNK]
		pipeline = client.pipeline(transaction=True)
		for key in some:
			pipeline.execute_command("GET", key)
			pipeline.execute_command("PEXPIRETIME", key)
		replies = pipeline.execute(raise_on_error=False)
		for key, value, expire in zip(some, replies[::2], replies[1::2]):
			if expire == -2:
				continue
			try:
				sid = key[len(PREFIX):].decode()
				if not isinstance(value, bytes) or not 0 < len(sid) <= 255:
					raise Invalid("key")
				value = parse(value)
			except (Invalid, UnicodeDecodeError):
				sid, value = key[len(PREFIX):], Invalid
			found[sid] = (value, NEVER if expire == -1 else expire / 1000)
	return found


def read_postgres(postgres, store):
	"""sid -> (value, expire) of every live row."""
	table = postgres.value("SELECT relation::text FROM session_store.stores WHERE store = %s", (store,))
	rows = postgres.rows(
		"SELECT sid, sess::text, CASE WHEN isfinite(expire) THEN extract(epoch FROM expire)::float8 END"
		f" FROM {table} WHERE expire > clock_timestamp()")
	return {sid: (json.loads(sess), NEVER if expire is None else expire) for sid, sess, expire in rows}


class Comparison:
	"""What both sides held, and where they differ: sid -> lost, ghost, payload or expire."""

	def __init__(self, redis_side, postgres_side, now):
		self.read_at = time.monotonic()			# by when the sides were as they are here
		self.redis, self.postgres = redis_side, postgres_side
		self.invalid = {sid for sid, (value, _) in redis_side.items() if value is Invalid}
		self.differences = {}
		for sid in redis_side.keys() | postgres_side.keys():
			kind = self._judge(redis_side.get(sid), postgres_side.get(sid), now)
			if kind:
				self.differences[sid] = kind

	@staticmethod
	def _judge(in_redis, in_postgres, now):
		if in_redis and in_redis[0] is Invalid:
			return "ghost" if in_postgres else None
		if not in_postgres:
			return "lost" if in_redis[1] > now + MOMENT else None
		if not in_redis:
			return "ghost" if in_postgres[1] > now + MOMENT else None
		if in_redis[0] != in_postgres[0]:
			return "payload"
		if in_redis[1] != in_postgres[1] and not abs(in_redis[1] - in_postgres[1]) <= TOLERANCE:
			return "expire"
		return None

	@property
	def sessions(self):
		return len(self.redis.keys() | self.postgres.keys()) - len(self.invalid)

	def describe(self, limit=10):
		"""A line for each of the first differences, with what either side holds."""
		def show(state):
			if state is None:
				return "nothing"
			value, expire = state
			number = value.get("n") if isinstance(value, dict) else type(value).__name__
			return f"write {number}, expires {expire:.3f}"
		for sid, kind in sorted(self.differences.items(), key=str)[:limit]:
			yield f"{sid}: {kind}: Redis {show(self.redis.get(sid))}; PostgreSQL {show(self.postgres.get(sid))}"


def compare(world):
	"""Both sides now, or None when one of them does not answer."""
	try:
		redis_side = read_redis(world.primary.client)
		postgres_side = read_postgres(world.postgres, world.store)
	except (redis.RedisError, OSError, world.postgres_errors):
		return None
	return Comparison(redis_side, postgres_side, time.time())


def numbers(side):
	"""sid -> (number of the write, expire), as a ledger wants it."""
	return {sid: (value["n"], expire) for sid, (value, expire) in side.items()
			if isinstance(value, dict) and "n" in value}
