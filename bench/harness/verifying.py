"""verify of all sessions: at rest, beside writers on both sides, and of sides that differ."""

import random
import time

import redis

from .cluster import OWNER, Failure
from .mirrored import STORE, sid
from .pushing import Load, PostgresLoad, connect

PLANTED = 100			# differences of each kind


class RedisLoad(Load):
	"""In Redis, by one pipeline a batch; the TTL stays."""

	def connect(self):
		client = redis.Redis(unix_socket_path=self.bench.redis.socket)

		def change(sids):
			commands = client.pipeline(transaction=False)
			for name in sids:
				commands.set("sess:" + name, f'{{"views": {self.changed}}}', keepttl=True, xx=True)
			return len(commands.execute())
		return change


def differences(bench):
	"""What verify finds, and the seconds it takes."""
	started = time.monotonic()
	rows = bench.postgres.sql(f"SELECT sid, difference FROM session_store.verify('{STORE}')", user=OWNER)
	return {tuple(row) for row in rows}, time.monotonic() - started


def plant(bench):
	"""Differences of each kind at random places; the set that verify is to find."""
	numbers = iter(random.sample(range(bench.rows), 4 * PLANTED))
	planted = {kind: [sid(next(numbers)) for _ in range(PLANTED)]
			   for kind in ("missing_in_postgres", "missing_in_redis", "payload", "expire")}
	connection, client = connect(bench), redis.Redis(unix_socket_path=bench.redis.socket)
	cursor = connection.cursor()
	cursor.execute(f"DELETE FROM {STORE} WHERE sid = ANY (%s)", (planted["missing_in_postgres"],))
	cursor.execute(f"UPDATE {STORE} SET sess = sess || '{{\"planted\": true}}' WHERE sid = ANY (%s)",
				   (planted["payload"],))
	connection.close()
	for name in planted["missing_in_redis"]:
		client.delete("sess:" + name)
	for name in planted["expire"]:
		client.pexpire("sess:" + name, 3_600_000)
	return {(name, kind) for kind, names in planted.items() for name in names}


def verify(bench, mirror):
	mirror.wait_in_sync()
	bench.say("verify of all sessions")
	found, took = differences(bench)
	yield "verify", "sessions/s", bench.rows / took, None
	yield "verify", "s", took, ("<=", 60)
	yield "differences it found", "sessions", len(found), ("<=", 0)

	bench.say(f"verify beside {bench.push_rate:,} changes a second in PostgreSQL and {bench.push_rate // 5:,} in Redis")
	with PostgresLoad(bench, bench.push_rate), RedisLoad(bench, bench.push_rate // 5):
		found, took = differences(bench)
	yield "verify beside the changes", "s", took, None
	yield "differences it found", "sessions", len(found), ("<=", 0)
	mirror.wait_in_sync()

	bench.say(f"verify with {PLANTED} differences of each kind")
	mirror.set_phase("redis_only")
	mirror.wait_until_gone()
	planted = plant(bench)
	found, took = differences(bench)
	for what in sorted(planted - found):
		bench.say(f"not found: {what}")
	for what in sorted(found - planted):
		bench.say(f"found wrongly: {what}")
	yield "verify of sides that differ", "s", took, None
	yield f"of {len(planted)} planted differences, not found or found wrongly", "sessions", len(planted ^ found), ("<=", 0)
	mirror.set_phase("dual_redis_primary")
	mirror.wait_in_sync()
	found, _ = differences(bench)
	if found:
		raise Failure(f"{len(found)} differences are left")
