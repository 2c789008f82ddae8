"""The application on Redis: every kind of write, at a rate, through whatever happens to the server."""

import json
import threading
import time

import redis

from .ledger import UNSURE, Ledger, Written

PREFIX = "sess:"
TICK = 0.05
NEVER = float("inf")
GUARDED = 20			# seconds after a logout: logout_guard, and how late the mirror may see the logout
MOMENT = 0.1			# a session that has so little time left may be gone
LUA = "redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) redis.call('DEL', KEYS[2]) return 1"
SHORT = 10				# a session that ends within so many seconds may be gone before it was seen
WORDS = ("alpha", "b\u00e9ta", "\u4f1a\u8bdd", "d\"q\\", "\U0001f511", "line\nbreak", "")


def payload(rng, number):
	"""A session's JSON; its number says which write it is."""
	session = {"n": number, "user": rng.randrange(1000), "cart": [rng.random() for _ in range(rng.randrange(4))],
			   "text": rng.choice(WORDS) * rng.randrange(1, 20), "nested": {"a": None, "b": [True, -0.5, {}]}}
	if rng.random() < 0.01:
		session["big"] = "x" * rng.randrange(5_000, 60_000)
	return json.dumps(session, ensure_ascii=rng.random() < 0.5)


class Paused:
	"""A thread that can be told to stop writing, and is known to have stopped."""

	def __init__(self, name):
		self.thread = threading.Thread(target=self._run, name=name, daemon=True)
		self.go = threading.Event()
		self.quiet = threading.Event()
		self.ended = False
		self.failure = None

	def start(self):
		self.go.set()
		self.thread.start()

	def pause(self):
		self.go.clear()

	def wait_paused(self, timeout=60):
		if not self.quiet.wait(timeout):
			raise RuntimeError(f"{self.thread.name} does not stop writing")
		if self.failure:
			raise self.failure

	def resume(self):
		self.quiet.clear()
		self.go.set()

	def end(self):
		self.ended = True
		self.go.set()

	def _run(self):
		try:
			while not self.ended:
				if not self.go.is_set():
					self.quiet.set()
					self.go.wait()
				elif not self.turn():
					self.go.wait(0.05)
					time.sleep(0.02)
		except Exception as failure:			# told by wait_paused()
			self.failure = failure
			self.quiet.set()


class RedisWriter(Paused):
	"""Writes to its own sids, whose last state its ledger knows, and to those that others write too."""

	def __init__(self, world, rng, own, shared=0):
		super().__init__("the writer on Redis")
		self.world, self.rng = world, rng
		self.own, self.shared = own, shared
		self.ledger = Ledger()
		self.number = 0
		self.acknowledged = 0
		self.failed = 0
		self.due = time.monotonic()
		self.guarded = {}			# sid -> until when PostgreSQL, where it owns it, may refuse a write
		self.clients = {}

	def client(self):
		primary = self.world.primary
		if primary.socket not in self.clients:
			client = redis.Redis(unix_socket_path=primary.socket, socket_timeout=2)
			client.response_callbacks.clear()			# they cannot take QUEUED
			self.clients[primary.socket] = client
		return self.clients[primary.socket]

	def sid(self):
		if self.shared and self.rng.random() < 0.3:
			return f"s-{self.rng.randrange(self.shared)}"
		return f"r-{self.rng.randrange(self.own)}"

	def turn(self):
		"""A tick's worth of commands in one pipeline. False when the server does not take them."""
		now = time.monotonic()
		if now < self.due:
			time.sleep(self.due - now)
		self.due = max(self.due + TICK, now - 1)
		steps = [self.step() for _ in range(max(1, round(self.world.options.rate * TICK)))]
		before = {sid: self.ledger.get(sid) for step in steps for sid in step.sids}
		self.ledger.doubt(before)
		sent = time.time()
		try:
			pipeline = self.client().pipeline(transaction=False)
			for step in steps:
				for command in step.commands:
					pipeline.execute_command(*command)
			replies = iter(pipeline.execute(raise_on_error=False))
		except (redis.RedisError, OSError):
			self.failed += len(steps)
			# A logout among them may still come to pass.
			self.guarded.update((sid, time.time() + GUARDED) for sid in before)
			return False
		answered = time.time()
		for sid, state in before.items():
			self.ledger.set(sid, state)
		for step in steps:
			self.take(step, [next(replies) for _ in step.commands][-1], sent, answered)
		return True

	def take(self, step, reply, sent, answered):
		"""Bring the ledger up to date with one reply; a write that Redis refused leaves its sids in doubt."""
		if not isinstance(reply, Exception):
			self.acknowledged += 1
			step.note(self.ledger, reply, sent, answered)
			self.heed_logout_guard(step.sids, answered)
		elif "no such key" not in str(reply):
			self.failed += 1
			self.ledger.doubt(step.sids)
		else:
			state = self.ledger.get(step.sids[0])
			if state and state is not UNSURE and state.earliest <= answered + MOMENT:
				self.ledger.set(step.sids[0], None)

	def heed_logout_guard(self, sids, now):
		"""What is written soon after a logout may be deleted again, where PostgreSQL owns the sid. A session that expires
		before the mirror has seen how short it was is taken for one that was ended."""
		if not self.world.options.both:
			return
		for sid in sids:
			state = self.ledger.get(sid)
			guarded = self.guarded.get(sid, 0) > now
			if state is None:
				self.guarded[sid] = now + GUARDED
			elif state is not UNSURE and state.earliest < now + SHORT:
				self.guarded[sid] = state.earliest + GUARDED
			if state is not None and guarded:
				self.ledger.set(sid, UNSURE)

	def step(self):
		kind = self.rng.choices(
			("set", "set_forever", "short", "expire", "persist", "del", "rename", "lua", "multi", "getex"),
			(40, 3, 8, 18, 2, 8, 5, 5, 3, 8))[0]
		return STEPS[kind](self, self.sid())

	def next_payload(self):
		self.number += 1
		return self.number, payload(self.rng, self.number)

	def ttl(self):
		return self.rng.randrange(100, 2000)


class Step:
	"""Commands, and what the last one's reply says about the sids."""

	def __init__(self, sids, note, *commands):
		self.sids, self.note, self.commands = sids, note, commands


def key(sid):
	return PREFIX + sid


def _set(writer, sid, ttl=None, *options):
	number, value = writer.next_payload()
	ttl = writer.ttl() if ttl is None else ttl

	def note(ledger, _, sent, answered):
		ledger.set(sid, Written(number, sent + ttl, answered + ttl))
	return Step([sid], note, ("SET", key(sid), value, *(options or ("EX", ttl))))


def _set_forever(writer, sid):
	number, value = writer.next_payload()
	return Step([sid], lambda ledger, *_: ledger.set(sid, Written(number, NEVER, NEVER)), ("SET", key(sid), value))


def _short(writer, sid):
	milliseconds = writer.rng.randrange(100, 1500)
	return _set(writer, sid, milliseconds / 1000, "PX", milliseconds)


def _retimed(sid, ttl):
	"""The note of a command that gives a session that is there another time."""
	def note(ledger, reply, sent, answered):
		state = ledger.get(sid)
		if state is UNSURE or state is None:
			return
		if reply:
			ledger.set(sid, Written(state.number, sent + ttl, answered + ttl))
		elif state.earliest <= answered + MOMENT:
			ledger.set(sid, None)
	return note


def _expire(writer, sid):
	ttl = writer.ttl()
	return Step([sid], _retimed(sid, ttl), ("EXPIRE", key(sid), ttl))


def _getex(writer, sid):
	ttl = writer.ttl()
	return Step([sid], _retimed(sid, ttl), ("GETEX", key(sid), "EX", ttl))


def _persisted(sid):
	"""PERSIST answers 0 also where there was no expiry to take away."""
	def note(ledger, reply, *_):
		state = ledger.get(sid)
		if reply and state and state is not UNSURE:
			ledger.set(sid, Written(state.number, NEVER, NEVER))
	return note


def _persist(_, sid):
	return Step([sid], _persisted(sid), ("PERSIST", key(sid)))


def _del(_, sid):
	return Step([sid], lambda ledger, *_: ledger.set(sid, None), ("DEL", key(sid)))


def _rename(writer, sid):
	to = f"r-{writer.rng.randrange(writer.own)}"
	if sid == to:
		return _del(writer, sid)

	def note(ledger, _, __, answered):
		state = ledger.get(sid)
		if sid.startswith("s-") or state in (None, UNSURE):			# nobody knows how short it is: see heed_logout_guard
			writer.guarded[to] = answered + GUARDED
			state = UNSURE
		ledger.set(to, state)
		ledger.set(sid, None)
	return Step([sid, to], note, ("RENAME", key(sid), key(to)))


def _lua(writer, sid):
	other = f"r-{writer.rng.randrange(writer.own)}"
	if sid == other:
		return _set(writer, sid)
	number, value = writer.next_payload()
	ttl = writer.ttl()

	def note(ledger, _, sent, answered):
		ledger.set(sid, Written(number, sent + ttl, answered + ttl))
		ledger.set(other, None)
	return Step([sid, other], note, ("EVAL", LUA, 2, key(sid), key(other), value, ttl))


def _multi(writer, sid):
	parts = [_set(writer, sid), _del(writer, f"r-{writer.rng.randrange(writer.own)}"),
			 _set(writer, f"r-{writer.rng.randrange(writer.own)}")]

	def note(ledger, *rest):
		for part in parts:
			part.note(ledger, *rest)
	return Step([part.sids[0] for part in parts], note, ("MULTI",), *(part.commands[0] for part in parts), ("EXEC",))


STEPS = {"set": _set, "set_forever": _set_forever, "short": _short, "expire": _expire, "persist": _persist,
		 "del": _del, "rename": _rename, "lua": _lua, "multi": _multi, "getex": _getex}
