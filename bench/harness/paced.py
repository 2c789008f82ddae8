"""The session mix as an open loop: requests are due at random times, half as many as the store could answer.

A request's time counts from when it was due, so that one which waits for a client, because those
before it were slow, is as late as its user would find it.
"""

import glob
import os
import subprocess
import time

from . import tables
from .cluster import Failure
from .measure import Latency, Sample, pgbench_command, read_pgbench
from .mix import Traffic
from .payload import build

# Columns of pgbench's log: how many microseconds a request took, and the second of its end.
LOG_TIME, LOG_SECOND = 2, 4
# Seconds of a run that do not count: just after the checkpoint each page that is changed is logged whole.
WARM_UP = 5


class PacedMix:
	"""The mix on a store of its own; leaving the block drops it."""

	def __init__(self, bench, side, rows, pairs, seconds):
		self.bench, self.side, self.seconds = bench, side, seconds
		self.clients = max(bench.clients)
		self.traffic = Traffic(rows, bench.sizes[0], 3 * pairs, seconds, self.clients)
		self.scripts = self.traffic.scripts(bench.directory, side)
		self.slot = 0

	def __enter__(self):
		self.bench.say(f"loading {self.traffic.rows:,} sessions: {self.side.label}")
		tables.create(self.bench.postgres, self.side)
		tables.load(self.bench.postgres, self.side, build(self.traffic.size),
					self.traffic.expire_sql("now() + '1 day'"), 1, self.traffic.rows)
		return self

	def __exit__(self, *_):
		tables.drop(self.bench.postgres, self.side)

	def find_rate(self):
		"""Half of what the clients get when each asks again at once.

		Half as long as a run and with visitors of its own, so that as many requests are first visits.
		"""
		with self._pgbench(max(1, self.seconds // 2), []) as process:
			self.rate = max(1, round(read_pgbench(process)[0] / 2))
		self.bench.tables.settle(self.side)

	def run(self, meanwhile=None):
		"""One run; meanwhile is called when it counts, and may outlast it."""
		prefix = self.bench.directory.file("paced")
		self.bench.postgres.sql("CHECKPOINT")
		with self._pgbench(WARM_UP + self.seconds,
						   [f"--rate={self.rate}", "--log", f"--log-prefix={prefix}"]) as process:
			time.sleep(WARM_UP)
			began = time.time()
			if meanwhile:
				meanwhile()
			rate, done = read_pgbench(process)
		self.bench.tables.settle(self.side)
		return Sample(rate, done, latency=self._read_log(prefix, began))

	def _pgbench(self, seconds, options):
		self.slot += 1
		return subprocess.Popen(
			[*pgbench_command(self.scripts, self.clients, seconds, self.traffic.variables(self.slot)),
			 *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
			env=self.bench.postgres.environment(search_path=self.side.schema))

	@staticmethod
	def _read_log(prefix, since):
		times = []
		for path in glob.glob(prefix + ".*"):
			with open(path, encoding="ascii") as log:
				requests = [line.split() for line in log]
			times += [int(request[LOG_TIME]) / 1000 for request in requests if int(request[LOG_SECOND]) >= since]
			os.remove(path)
		if not times:
			raise Failure("no request was answered")
		times.sort()
		p50, p95, p99 = (times[int(q * (len(times) - 1))] for q in (0.5, 0.95, 0.99))
		return Latency(p50, p95, p99, times[-1])


def in_pairs(mix, title, count, alone, during, prepare=None):
	"""Runs of both kinds in turn, each beginning every other pair; prepare is called before each pair.

	What half of the capacity is depends on what else the machine does: it is found for each pair.
	"""
	samples = {"ours": [], "without": []}
	for number in range(count):
		if prepare:
			prepare()
		mix.find_rate()
		mix.bench.say(f"{title}, {mix.rate:,} requests a second, pair {number + 1} of {count}")
		runs = [("without", alone), ("ours", during)]
		for name, run in runs if number % 2 == 0 else reversed(runs):
			samples[name].append(run())
	return samples
