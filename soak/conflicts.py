"""Both sides change the same session while the mirror sees neither: the outcome is held against the rules.

The owner wins, payload and expiry judged apart; a logout beats every write that was made before it; what only one
side has changed is copied. Each case is a change of PostgreSQL's, a change of Redis', and what is to be there then.
"""

import json
import time

from . import compare
from .world import LOGOUT_GUARD
from .writers import PREFIX

COPIES = 8				# of each case, so that a percentage gives some of them to either owner
LIFE = 5000				# seconds that a session of these has at first
BASE, BY_POSTGRES, BY_REDIS = 1, 2, 3			# the payload's number, and so the extra hundreds of seconds of life
ABSENT = None


def _owner(owner):
	return BY_POSTGRES if owner == "postgres" else BY_REDIS


# name: (there before, PostgreSQL's change, Redis' change, outcome by owner: (payload's number, expiry's number))
CASES = {
	"both write": (True, "write", "write", lambda owner: (_owner(owner), _owner(owner))),
	"touch here, write there": (True, "touch", "write_keepttl", lambda _: (BY_REDIS, BY_POSTGRES)),
	"write here, touch there": (True, "change", "touch", lambda _: (BY_POSTGRES, BY_REDIS)),
	"both touch": (True, "touch", "touch", lambda owner: (BASE, _owner(owner))),
	"logout here, write there": (True, "log_out", "write", lambda _: ABSENT),
	"write here, then logout there": (True, "write", "log_out", lambda _: ABSENT),
	"both log out": (True, "log_out", "log_out", lambda _: ABSENT),
	"new on both": (False, "write", "write", lambda owner: (_owner(owner), _owner(owner))),
	"new here": (False, "write", None, lambda _: (BY_POSTGRES, BY_POSTGRES)),
	"new there": (False, None, "write", lambda _: (BY_REDIS, BY_REDIS)),
	"write here": (True, "write", None, lambda _: (BY_POSTGRES, BY_POSTGRES)),
	"write there": (True, None, "write", lambda _: (BY_REDIS, BY_REDIS)),
}


class Conflicts:
	def __init__(self, world, say):
		self.world, self.say = world, say
		self.checked = 0
		self.wrong = 0
		self.runs = 0

	def run(self):
		"""All cases at once, while nobody else writes and both sides are equal."""
		self.runs += 1
		now = int(time.time()) + LIFE
		self.expires = {number: now + 100 * number for number in (BASE, BY_POSTGRES, BY_REDIS)}
		sids = [(f"c{self.runs}-{i}-{copy}", case) for i, case in enumerate(CASES) for copy in range(COPIES)]
		for sid, case in sids:
			if CASES[case][0]:
				self.redis_write(sid, BASE)
		self.wait_equal()
		self.world.proxy.tell("stall")
		self.postgres_changes(sids)
		for sid, case in sids:
			change = CASES[case][2]
			if change:
				getattr(self, "redis_" + change)(sid, BY_REDIS)
		self.world.proxy.tell("pass")
		self.check(sids, self.wait_equal())
		self.late_writes()

	def wait_equal(self):
		deadline = time.monotonic() + self.world.options.patience
		while True:
			found = compare.compare(self.world)
			if found is not None and not found.differences:
				return found
			if time.monotonic() > deadline:
				return found
			time.sleep(0.05)

	# --- The changes -----------------------------------------------------------------------------

	def redis_write(self, sid, number):
		self.world.primary.client.execute_command(
			"SET", PREFIX + sid, json.dumps({"n": number}), "PXAT", self.expires[number] * 1000)

	def redis_write_keepttl(self, sid, number):
		self.world.primary.client.execute_command("SET", PREFIX + sid, json.dumps({"n": number}), "KEEPTTL")

	def redis_touch(self, sid, number):
		self.world.primary.client.execute_command("PEXPIREAT", PREFIX + sid, self.expires[number] * 1000)

	def redis_log_out(self, sid, _):
		self.world.primary.client.execute_command("DEL", PREFIX + sid)

	def postgres_changes(self, sids):
		table = self.world.table()
		by_statement = (f"INSERT INTO {table} (sid, sess, expire) VALUES (%s, %s, to_timestamp(%s)) ON CONFLICT (sid)"
						" DO UPDATE SET sess = EXCLUDED.sess, expire = EXCLUDED.expire")
		by_function = "SELECT session_store.upsert(%s, %s, expire => to_timestamp(%s))"
		statements = {
			"write": (by_function if self.world.options.partitioned else by_statement, ("sid", "sess", "expire")),
			"touch": ("SELECT session_store.touch(%s, expire => to_timestamp(%s))", ("sid", "expire")),
			"change": (f"UPDATE {table} SET sess = %s WHERE sid = %s", ("sess", "sid")),
			"log_out": ("SELECT session_store.expire(%s)", ("sid",)),
		}
		connection = self.world.postgres.connect()
		try:
			with connection.cursor() as cursor:
				for sid, case in sids:
					if CASES[case][1]:
						statement, names = statements[CASES[case][1]]
						values = {"sid": sid, "sess": json.dumps({"n": BY_POSTGRES}), "expire": self.expires[BY_POSTGRES]}
						cursor.execute(statement, [values[name] for name in names])
		finally:
			connection.close()

	# --- The outcome -----------------------------------------------------------------------------

	def owners(self, sids):
		return dict(self.world.postgres.rows(
			"SELECT sid, session_store.owner(sid, %s) FROM unnest(%s) AS sid", (self.world.store, sids)))

	def check(self, sids, found):
		if found is None:
			self.wrong += 1
			self.say("  no answer after a conflict")
			return
		owners = self.owners([sid for sid, _ in sids])
		there = compare.numbers(found.postgres)
		for sid, case in sids:
			expected = CASES[case][3](owners[sid])
			if expected is not None:
				expected = (expected[0], self.expires[expected[1]])
			self.expect(sid, f"{case}, {owners[sid]} owns it", there.get(sid), expected)
			if sid in found.differences:
				self.say(f"  {sid}: {case}: the sides differ: {found.differences[sid]}")

	def expect(self, sid, what, state, expected):
		self.checked += 1
		same = state is None if expected is None else (
			state is not None and state[0] == expected[0] and abs(state[1] - expected[1]) <= 1)
		if not same:
			self.wrong += 1
			self.say(f"  {sid}: {what}: {state} instead of {expected}")

	def late_writes(self):
		"""A write in Redis within logout_guard of a logout that both sides know of."""
		sids = [f"l{self.runs}-{side}-{copy}" for side in ("postgres", "redis") for copy in range(COPIES)]
		for sid in sids:
			self.redis_write(sid, BASE)
		self.wait_equal()
		self.world.set_logout_guard("1 hour")		# longer than what follows, however slow it is
		for sid in sids:
			if "postgres" in sid:
				self.world.postgres.rows("SELECT session_store.expire(%s)", (sid,))
			else:
				self.redis_log_out(sid, BASE)
		self.wait_equal()
		owners = self.owners(sids)
		for sid in sids:
			self.redis_write(sid, BY_REDIS)
		found = self.wait_equal()
		self.world.set_logout_guard(LOGOUT_GUARD)
		there = compare.numbers(found.postgres) if found else {}
		for sid in sids:
			new = "redis-" in sid and owners[sid] == "redis"
			self.expect(sid, f"written after its logout, {owners[sid]} owns it", there.get(sid),
						(BY_REDIS, self.expires[BY_REDIS]) if new else None)
