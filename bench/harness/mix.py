"""The session mix: minutes of a site's traffic, alternating with the peer, vacuum and cleanup on.

Of the loaded sessions 80 % are visited, 10 % run out during the mix and wait for cleanup, 10 % are
there to be logged out. In each slot nine requests of ten come from that slot's visitors, a tenth of
the visited sessions, and the rest from all of them: people come, read for a while, and go.
"""

import subprocess
import time

from . import tables
from .measure import Sample, Script
from .operations import DAY
from .payload import build, key_of
from .report import Comparison
from .sides import TABLE_SIDES
from .cluster import OWNER, Failure, find_program

NAME = "mix"
TITLE = "session mix"
SHARES = {"read": 90, "change": 8, "login": 1, "logout": 1}
SIDE_NAMES = ("ours", "cps_json")
VISITED_PERCENT, EXPIRING_PERCENT = 80, 10		# the rest is logged out
VISITORS_PERCENT = 10							# of the visited, in one slot
VISITORS_REQUESTS_PERCENT = 90
SUPERVISOR = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'session_store supervisor'"

KEY = f"\\set key {key_of(':n')}\n"
VISIT = (f"\\set visitor random(1, 100) <= {VISITORS_REQUESTS_PERCENT}\n"
		 "\\set n case when :visitor then :first_visitor + random(0, :visitors - 1)"
		 " else random(1, :visited) end\n" + KEY)
# A client computes its expire from the second it lives in; pgbench has no clock.
ASK = f"\\set ttl {DAY}\n\\set exp :now + {DAY} + random(0, :slot_seconds - 1)\n"
LOGIN = "\\set n :rows + random(1, 1500000000)\n" + KEY + ASK
LOGOUT = ("\\set n :first_logout + :logouts * :clients + :client_id\n"
		  "\\set logouts :logouts + 1\n" + KEY)


class Traffic:
	"""Who is loaded, who visits in which slot, and what they ask for."""

	def __init__(self, rows, size, slots, slot_seconds, clients):
		self.rows, self.size = rows, size
		self.slots, self.slot_seconds, self.clients = slots, slot_seconds, clients
		self.visited = rows * VISITED_PERCENT // 100
		self.expiring = rows * EXPIRING_PERCENT // 100
		self.visitors = max(1, self.visited * VISITORS_PERCENT // 100)

	def expire_sql(self, expiring):
		"""The expire of session n as it is loaded; `expiring` is that of those which run out."""
		lasting = f"now() + '1 hour' + random() * interval '{DAY - 3600} s'"
		return (f"CASE WHEN n > {self.visited} AND n <= {self.visited + self.expiring}"
				f" THEN {expiring} ELSE {lasting} END")

	def variables(self, slot):
		first_logout = self.visited + self.expiring + 1
		logouts = self.rows - first_logout
		return {
			"rows": self.rows, "visited": self.visited, "visitors": self.visitors,
			"first_visitor": 1 + slot * self.visitors % (self.visited - self.visitors + 1),
			"first_logout": first_logout + logouts * slot // self.slots, "logouts": 0,
			"clients": self.clients, "now": int(time.time()), "slot_seconds": self.slot_seconds,
			"payload": build(self.size), "changed": build(self.size, 1 + slot),
		}

	@staticmethod
	def scripts(directory, side):
		upsert = side.statements["upsert_changed"]
		change = upsert.replace(":payload", ":changed")
		texts = {
			"read": VISIT + ASK + side.statements["get_and_touch"],
			"change": VISIT + ASK + side.statements["get"] + change,
			"login": LOGIN + upsert,
			"logout": LOGOUT + side.statements["destroy"],
		}
		return [Script(directory, f"{side.name}_mix_{kind}", texts[kind], share)
				for kind, share in SHARES.items()]


class SessionMix:
	"""Runs the mix on tables of its own, for each synchronous_commit."""

	def __init__(self, bench, size):
		self.bench = bench
		self.size = size
		self.clients = max(bench.clients)
		self.slots = max(1, round(bench.mix_seconds / bench.mix_slot / len(SIDE_NAMES)))
		self.sides = [TABLE_SIDES[name] for name in SIDE_NAMES if name in bench.side_names]
		self.traffic = Traffic(bench.rows, size, self.slots, bench.mix_slot, self.clients)

	def run(self):
		for synchronous_commit in ("on", "off"):
			yield self._compare(synchronous_commit)

	def _load(self):
		rows, payload = self.bench.rows, build(self.size)
		waiting = f"now() + random() * interval '{self.bench.mix_seconds} s'"
		for side in self.sides:
			self.bench.say(f"loading {rows:,} sessions of {len(payload)} bytes: {side.label}")
			tables.create(self.bench.postgres, side)
			tables.load(self.bench.postgres, side, payload, self.traffic.expire_sql(waiting), 1, rows)
			if side.extension:
				self.bench.postgres.sql(
					# As often as the peer prunes, which is once in a slot of its own.
					f"UPDATE session_store.stores SET cleanup_interval ="
					f" '{self.bench.mix_slot * len(SIDE_NAMES)} s'"
					f" WHERE store = '{side.table}'", user=OWNER)
		tables.finish_loading(self.bench.postgres, self.sides)

	def _compare(self, synchronous_commit):
		self._load()
		samples = {side.name: [] for side in self.sides}
		before = {side.name: tables.bytes_of(self.bench.postgres, side) for side in self.sides}
		for slot in range(self.slots):
			for side in self.sides:
				self.bench.say(f"{self.size} bytes, {TITLE}, {self.clients} clients,"
							   f" synchronous_commit {synchronous_commit}, {side.label},"
							   f" slot {slot + 1} of {self.slots}")
				samples[side.name].append(self._run_slot(side, slot, synchronous_commit))
		growth = {side.name: {"before": before[side.name],
							  "after": tables.bytes_of(self.bench.postgres, side),
							  "expired_left": tables.expired_rows(self.bench.postgres, side)}
				  for side in self.sides}
		self._check_cleanup(growth)
		for side in self.sides:
			tables.drop(self.bench.postgres, side)
		return Comparison(NAME, TITLE, self.size, self.clients, synchronous_commit, samples, growth)

	def _check_cleanup(self, growth):
		"""A mix in which a side's expired rows stayed would flatter that side."""
		for side in self.sides:
			left = growth[side.name]["expired_left"]
			self.bench.say(f"{side.label}: {left:,} expired rows left of {self.traffic.expiring:,}")
			if left > self.traffic.expiring // 2:
				raise Failure(f"{side.label} was not cleaned up during the mix;"
							  " give it more --mix-seconds")

	def _run_slot(self, side, slot, synchronous_commit) -> Sample:
		sample = self.bench.tables.run(
			side, self.traffic.scripts(self.bench.directory, side), self.clients, self.bench.mix_slot,
			self.traffic.variables(slot), synchronous_commit,
			meanwhile=lambda: self._housekeeping(side, synchronous_commit))
		self.bench.tables.settle(side)
		return sample

	def _housekeeping(self, side, synchronous_commit):
		"""The peer's prune, in the middle of its slot; ours only where no worker does it."""
		if side.extension and self.bench.postgres.value(SUPERVISOR) != "0":
			return
		time.sleep(self.bench.mix_slot / 2)
		statement = (f"CALL session_store.cleanup('{side.table}')" if side.extension else
					 f'DELETE FROM "session" WHERE expire < to_timestamp({int(time.time())})')
		subprocess.run([find_program("psql"), "-XAtqc", statement], check=True,
					   stdout=subprocess.DEVNULL,
					   env=self.bench.postgres.environment(
						   search_path=side.schema, synchronous_commit=synchronous_commit))
