"""How long the application waits for maintenance of partitions, while a client holds a long SELECT.

The server logs each wait for a lock with who holds it and who waits before; a wait is maintenance's
where that session is among them.
"""

import contextlib
import dataclasses
import os
import re
import subprocess
import time

from . import tables
from .cleaning import Expired, workers_stopped
from .cluster import OWNER, Failure, find_program
from .paced import WARM_UP, PacedMix, in_pairs
from .partitioned import PartitionClock, partitioned_store
from .report import Comparison

NAME = "maintenance"
PAIRS = 3					# of bench.pairs: one of so many
LENGTH = 3					# a run takes so many times pair_seconds
HELD = 2 / 3				# of a run the SELECT goes on
MOST_CALLS = 20				# until a repartition is through
SHARE_OF_ROWS = 5			# one of so many: a repartition ends within a run
SHORTEST_WAIT = "5ms"
LINE = re.compile(r"^(\d+)\|([^|]*)\|(LOG|DETAIL):  (.*)$")
WAITED = re.compile(r"process \d+ acquired .* after ([0-9.]+) ms")


class Client:
	"""A psql of the store's owner that takes one statement after the other."""

	def __init__(self, postgres, name):
		self.process = subprocess.Popen(
			[find_program("psql"), "-XAtq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
			stderr=subprocess.DEVNULL, text=True, env=dict(postgres.environment(), PGAPPNAME=name))
		self.pid = self.ask("SELECT pg_backend_pid()")

	def send(self, statement):
		self.process.stdin.write(f"{statement};\n\\echo end\n")
		self.process.stdin.flush()

	def wait(self):
		"""The last line of the answer."""
		last = None
		while (line := self.process.stdout.readline().rstrip("\n")) != "end":
			if self.process.poll() is not None:
				raise Failure("a client of maintenance ended")
			last = line
		return last

	def ask(self, statement):
		self.send(statement)
		return self.wait()

	def close(self):
		self.process.stdin.close()
		self.process.wait()


@contextlib.contextmanager
def waits_logged(postgres):
	settings = {"log_lock_waits": "on", "deadlock_timeout": SHORTEST_WAIT, "log_line_prefix": "%p|%a|"}
	for name, value in settings.items():
		postgres.sql(f"ALTER SYSTEM SET {name} = '{value}'")
	postgres.sql("SELECT pg_reload_conf()")
	yield
	for name in settings:
		postgres.sql(f"ALTER SYSTEM RESET {name}")
	postgres.sql("SELECT pg_reload_conf()")


def longest_wait(path, offset, maintainer):
	"""Milliseconds, among the waits of pgbench that the log has from offset on."""
	longest, blamed = 0.0, set()
	with open(path, encoding="utf-8", errors="replace") as log:
		log.seek(offset)
		for line in log:
			found = LINE.match(line)
			if not found or found[2] != "pgbench":
				continue
			if found[3] == "DETAIL" and maintainer in re.findall(r"\d+", found[4]):
				blamed.add(found[1])
			waited = WAITED.search(found[4])
			if waited and found[1] in blamed:
				longest = max(longest, float(waited[1]))
				blamed.discard(found[1])
	return longest


def run(bench):
	"""Yield all comparisons."""
	with workers_stopped(bench.postgres), waits_logged(bench.postgres):
		yield from Maintenance(bench).run()


class Maintenance:
	"""The mix beside a long SELECT, without and with maintenance."""

	def __init__(self, bench):
		self.bench, self.postgres = bench, bench.postgres
		self.pairs = max(1, bench.pairs // PAIRS)
		self.seconds = LENGTH * bench.pair_seconds
		self.interval = "1 day"

	def run(self):
		side = partitioned_store(PartitionClock())
		rows = self.bench.rows // SHARE_OF_ROWS
		with PacedMix(self.bench, side, rows, 2 * self.pairs, self.seconds) as mix:
			tables.finish_loading(self.postgres, [side])
			self.mix = mix
			self.table = f"{side.schema}.{side.table}"
			self.expired = Expired(self.bench, side, rows=0)
			self.holder, self.maintainer = Client(self.postgres, "holder"), Client(self.postgres, "maintainer")
			yield self._compare("mix_and_maintenance", "mix, maintain_partitions", self._maintain, self._make_due)
			yield self._compare("mix_and_repartition", "mix, repartition", self._repartition, None)
			self.holder.close()
			self.maintainer.close()

	def _compare(self, name, title, work, prepare):
		samples = in_pairs(self.mix, title, self.pairs, self._held, lambda: self._held(work), prepare)
		return Comparison(name, title, self.mix.traffic.size, self.mix.clients, "on", samples)

	def _held(self, work=None):
		"""A run with the SELECT, and with work if there is any."""
		offset = os.path.getsize(self.postgres.log)
		self.holder.send(f"SELECT pg_sleep({WARM_UP + self.seconds * HELD}) FROM {self.table} LIMIT 1")
		sample = self.mix.run(work)
		self.holder.wait()
		wait = longest_wait(self.postgres.log, offset, self.maintainer.pid)
		return dataclasses.replace(sample, latency=dataclasses.replace(sample.latency, longest_wait=wait))

	def _make_due(self):
		"""A partition to drop, and one to make."""
		self.expired.make_partition()
		self.expired.attach()
		self.postgres.sql("UPDATE session_store.stores SET partitions_ahead = partitions_ahead + 1"
						  f" WHERE store = '{self.mix.side.table}'", user=OWNER)

	def _maintain(self):
		"""In vain, and again when the table is free."""
		call = f"CALL session_store.maintain_partitions('{self.mix.side.table}')"
		self.maintainer.ask(call)
		self._wait_for_holder()
		self.maintainer.ask(call)
		self.expired.require_gone()

	def _repartition(self):
		self.interval = "12 hours" if self.interval == "1 day" else "1 day"
		for _ in range(MOST_CALLS):
			self.maintainer.ask(
				f"CALL session_store.repartition('{self.mix.side.table}', '{self.interval}')")
			if self.postgres.value("SELECT NOT EXISTS (SELECT FROM session_store.repartitions)") == "t":
				return
		raise Failure("the store is not repartitioned")

	def _wait_for_holder(self):
		while self.postgres.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holder'"
								  " AND state = 'active'") != "0":
			time.sleep(0.1)
