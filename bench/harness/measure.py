"""One timed pgbench run, with what it cost in WAL and how its updates went."""

import os
import re
import subprocess
import time
from dataclasses import dataclass

from .cluster import Failure, find_program

# Longer than autovacuum_naptime: by then a vacuum that the run made due has begun.
SETTLE_SECONDS = 1.2
PATIENCE = 120
VACUUM = "backend_type = 'autovacuum worker'"

WAL_SUMMARY = """
SELECT pg_logical_emit_message(true, 'bench', '');
SELECT sum(record_size), sum(fpi_size) FROM pg_get_wal_stats('{start}', pg_current_wal_flush_lsn());
"""
# The table, or that and its partitions.
LEAVES = """
WITH leaves AS (SELECT oid, reloptions, reltuples FROM pg_class
	WHERE oid = '{side.schema}.{side.table}'::regclass
	OR oid IN (SELECT relid FROM pg_partition_tree('{side.schema}.{side.table}')))
"""
UPDATES = LEAVES + """
SELECT sum(n_tup_upd), sum(n_tup_hot_upd) FROM leaves JOIN pg_stat_user_tables ON relid = oid
"""
# By the thresholds of the table or, where it has none, of the server; those of inserts included.
VACUUM_DUE = LEAVES + """,
settings AS (
	SELECT oid, name, coalesce(option_value, setting)::numeric AS value
	FROM leaves CROSS JOIN pg_settings LEFT JOIN LATERAL pg_options_to_table(reloptions)
		ON option_name = name
	WHERE name LIKE 'autovacuum%' AND vartype IN ('real', 'integer')),
threshold AS (
	SELECT max(value) FILTER (WHERE name = 'autovacuum_' || kind || '_threshold') AS base,
		max(value) FILTER (WHERE name = 'autovacuum_' || kind || '_scale_factor') AS scale, kind, oid
	FROM settings, unnest(ARRAY['vacuum', 'vacuum_insert', 'analyze']) kind GROUP BY oid, kind)
SELECT bool_or(CASE kind WHEN 'vacuum' THEN n_dead_tup WHEN 'analyze' THEN n_mod_since_analyze
	ELSE n_ins_since_vacuum END >= base + scale * greatest(reltuples, 0))
FROM threshold JOIN leaves USING (oid) JOIN pg_stat_user_tables ON relid = oid;
"""


@dataclass(frozen=True)
class Latency:
	"""Of the requests of an open loop, from when each was due, in milliseconds."""

	p50: float
	p95: float
	p99: float
	longest: float
	longest_wait: float = 0.0	# for a lock of maintenance


@dataclass
class Sample:
	"""One run of one side."""

	rate: float
	operations: int
	wal_records: int = 0		# bytes of WAL, page images left out
	wal_images: int = 0			# bytes of full page images
	updates: int = 0
	hot_updates: int = 0
	latency: Latency = None


class Script:
	"""A pgbench script on disk, with its weight among those of one run."""

	def __init__(self, directory, name, text, weight=1):
		self.weight = weight
		self.path = directory.file(f"{name}.sql")
		with open(self.path, "w", encoding="utf-8") as script:
			script.write(text)

	def argument(self):
		return f"--file={self.path}@{self.weight}"


def pgbench_command(scripts, clients, seconds, variables):
	threads = min(clients, os.cpu_count() or 1)
	return [find_program("pgbench"), "--no-vacuum", "--protocol=prepared", f"--client={clients}",
			f"--jobs={threads}", f"--time={seconds}", *(script.argument() for script in scripts),
			*(f"--define={name}={value}" for name, value in variables.items())]


def read_pgbench(process):
	"""Rate and number of transactions of a finished pgbench; any failed statement is a Failure."""
	output, errors = process.communicate()
	rate = re.search(r"^tps = ([0-9.]+) \(without initial", output, re.M)
	done = re.search(r"^number of transactions actually processed: (\d+)", output, re.M)
	if process.returncode != 0 or not rate or not done:
		raise Failure(f"pgbench failed:\n{errors.strip()[-2000:]}")
	return float(rate[1]), int(done[1])


class TableRunner:
	"""Runs scripts of the sides that are tables and attributes to each what it caused."""

	def __init__(self, postgres):
		self.postgres = postgres

	def run(self, side, scripts, clients, seconds, variables, synchronous_commit, meanwhile=None):
		"""One run. meanwhile is called while it goes on, for the side's own housekeeping."""
		self._wait_while(VACUUM)
		updates, hot_updates = self._updates(side)
		start = self.postgres.value("SELECT pg_current_wal_insert_lsn()")
		process = subprocess.Popen(
			pgbench_command(scripts, clients, seconds, variables),
			stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
			env=self.postgres.environment(search_path=side.schema,
										  synchronous_commit=synchronous_commit))
		try:
			if meanwhile:
				meanwhile()
			rate, done = read_pgbench(process)
		finally:
			if process.poll() is None:
				process.kill()
				process.wait()
		# A backend reports its last counts when it ends, which is after its client.
		self._wait_while("application_name = 'pgbench'")
		records, images = self.postgres.sql(WAL_SUMMARY.format(start=start))[-1]
		after, hot_after = self._updates(side)
		return Sample(rate, done, int(records), int(images),
					  after - updates, hot_after - hot_updates)

	def settle(self, side):
		"""If the last run made a vacuum due, give it the time to begin, and wait for its end."""
		if self.postgres.value(VACUUM_DUE.format(side=side)) == "t":
			time.sleep(SETTLE_SECONDS)
		self._wait_while(VACUUM)

	def _updates(self, side):
		updates, hot_updates = self.postgres.sql(UPDATES.format(side=side))[0]
		return int(updates), int(hot_updates)

	def _wait_while(self, activity):
		deadline = time.monotonic() + PATIENCE
		busy = f"SELECT count(*) FROM pg_stat_activity WHERE {activity}"
		while self.postgres.value(busy) != "0" and time.monotonic() < deadline:
			time.sleep(0.1)
