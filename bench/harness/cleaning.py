"""What it takes to remove many expired sessions, and what the application notices of it, in either layout."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from . import tables
from .cluster import OWNER, Failure
from .measure import WAL_SUMMARY, Sample
from .operations import DAY, HOUR
from .paced import PacedMix, in_pairs
from .partitioned import PartitionClock, partitioned_store, plain_store
from .payload import build, key_of, sid_of
from .report import Comparison

NAME = "cleanup"
FIRST_EXPIRED = 2_000_000_000	# number of a session; none of the mix has it
MOST_CLEANED = 10_000			# sessions a second, by batches of 1000 with 100 ms between them
WORKERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'session_store supervisor'"
PATIENCE = 60
# When a partition is none any more, as another session sees it.
WATCH = """
CREATE FUNCTION pg_temp.gone_at(partition regclass) RETURNS numeric LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 30000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = partition);
		PERFORM pg_sleep(0.001);
	END LOOP;
	RETURN extract(epoch FROM clock_timestamp());
END $$;
SELECT pg_temp.gone_at('{partition}')
"""
WATCHERS = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%gone_at%' AND wait_event = 'PgSleep'"
NOW = "SELECT extract(epoch FROM clock_timestamp())"


def wait_for(postgres, query, value, failure):
	deadline = time.monotonic() + PATIENCE
	while postgres.value(query) != value:
		if time.monotonic() > deadline:
			raise Failure(failure)
		time.sleep(0.1)


@contextlib.contextmanager
def workers_stopped(postgres):
	"""For who cleans by hand."""
	postgres.sql("ALTER SYSTEM SET session_store.databases = ''")
	postgres.sql("SELECT pg_reload_conf()")
	wait_for(postgres, WORKERS, "0", "the workers do not stop")
	yield
	postgres.sql("ALTER SYSTEM RESET session_store.databases")
	postgres.sql("SELECT pg_reload_conf()")


class Expired:
	"""Sessions of the day before yesterday, as a partition of a store or among its rows."""

	def __init__(self, bench, side, rows):
		self.postgres = bench.postgres
		self.table = f"{side.schema}.{side.table}"
		self.partition = f"{side.schema}.expired"
		start = int(time.time()) // DAY * DAY - 2 * DAY
		self.bounds = f"to_timestamp({start}) AND expire < to_timestamp({start + DAY})"
		self.range = tuple(time.strftime("%Y-%m-%d 00:00+00", time.gmtime(at)) for at in (start, start + DAY))
		self.values = (
			f"SELECT {sid_of('(' + key_of('n') + ')')}, $payload${build(bench.sizes[0])}$payload$::jsonb,"
			f" to_timestamp({start} + n % {DAY}), to_timestamp({start} + n % {DAY} / {HOUR} * {HOUR})"
			f" FROM generate_series({FIRST_EXPIRED}::bigint, {FIRST_EXPIRED + rows - 1}) n")

	def insert(self):
		"""Among the rows of a plain store, without those that are left of an earlier time."""
		self.postgres.sql(f"""
			SET session_replication_role = replica;
			DELETE FROM {self.table} WHERE expire < now();
			INSERT INTO {self.table} (sid, sess, expire, expire_bucket) {self.values};
			VACUUM (ANALYZE) {self.table};
			CHECKPOINT""")

	def make_partition(self):
		options = self.postgres.value(
			"SELECT array_to_string(reloptions, ', ') FROM pg_class JOIN pg_inherits ON inhrelid = oid"
			f" WHERE inhparent = '{self.table}'::regclass")
		self.postgres.sql(f"""
			CREATE TABLE {self.partition} (LIKE {self.table} INCLUDING ALL EXCLUDING INDEXES,
				CHECK (expire >= {self.bounds})) WITH ({options});
			INSERT INTO {self.partition} (sid, sess, expire, expire_bucket) {self.values};
			ALTER TABLE {self.partition} ADD PRIMARY KEY (sid);
			VACUUM (ANALYZE) {self.partition}""", user=OWNER)

	def attach(self):
		self.postgres.sql(f"""
			ALTER TABLE {self.table} ATTACH PARTITION {self.partition}
				FOR VALUES FROM ('{self.range[0]}') TO ('{self.range[1]}')""", user=OWNER)
		self.postgres.sql("CHECKPOINT")

	def require_gone(self):
		if self.postgres.value(f"SELECT to_regclass('{self.partition}') IS NULL") != "t":
			raise Failure("the expired partition was not dropped")


class Dropping:
	"""maintain_partitions, until the sessions are gone, against cleanup without its delays.

	With no worker the call goes on until the disk has its space back: that is said, and its WAL counts.
	"""

	def __init__(self, bench):
		self.bench, self.postgres = bench, bench.postgres
		self.sides = {"ours": partitioned_store(PartitionClock()), "plain": plain_store()}
		self.expired = {name: Expired(bench, side, bench.expired) for name, side in self.sides.items()}

	def run(self):
		samples = {name: [] for name in self.sides}
		for side in self.sides.values():
			tables.create(self.postgres, side)
		runs = [("ours", self._drop), ("plain", self._delete)]
		for number in range(self.bench.rounds):
			self.bench.say(f"dropping {self.bench.expired:,} expired sessions, round {number + 1}"
						   f" of {self.bench.rounds}")
			for name, run in runs if number % 2 == 0 else reversed(runs):
				samples[name].append(run())
		for side in self.sides.values():
			tables.drop(self.postgres, side)
		yield Comparison("drop_expired", f"{self.bench.expired:,} expired go", self.bench.sizes[0], 1, "on",
						 samples)

	def _drop(self):
		self.expired["ours"].make_partition()
		self.expired["ours"].attach()
		with ThreadPoolExecutor(1) as pool:
			watch = pool.submit(self.postgres.value, WATCH.format(partition=self.expired["ours"].partition))
			wait_for(self.postgres, WATCHERS, "1", "nobody watches the partition")
			sample, began, ended = self._timed("CALL session_store.maintain_partitions('partitioned')")
			gone = float(watch.result()) - began
		self.expired["ours"].require_gone()
		self.bench.say(f"  gone after {1000 * gone:.1f} ms, their space is back after {1000 * (ended - began):.0f} ms")
		sample.rate = self.bench.expired / gone
		return sample

	def _delete(self):
		self.expired["plain"].insert()
		sample, _, _ = self._timed("CALL session_store.cleanup('plain', delay => '0', max_duration => '1 day')")
		left = tables.expired_rows(self.postgres, self.sides["plain"])
		if left:
			raise Failure(f"{left} expired sessions were not deleted")
		return sample

	def _timed(self, statement):
		start = self.postgres.value("SELECT pg_current_wal_insert_lsn()")
		times = self.postgres.sql(f"{NOW};\n{statement};\n{NOW}", user=OWNER)
		began, ended = float(times[0][0]), float(times[-1][0])
		records, images = self.postgres.sql(WAL_SUMMARY.format(start=start))[-1]
		rows = self.bench.expired
		return Sample(rows / (ended - began), rows, int(records), int(images)), began, ended


def run(bench):
	"""Yield all comparisons."""
	with workers_stopped(bench.postgres):
		yield from Dropping(bench).run()
		yield from beside_deletes(bench)
		yield from beside_drop(bench)


def _compared(mix, name, title, samples):
	return Comparison(name, title, mix.traffic.size, mix.clients, "on", samples)


def beside_deletes(bench):
	"""The mix while cleanup runs as the worker runs it, a part of the expired in each run."""
	with PacedMix(bench, plain_store(), bench.rows, bench.pairs, bench.pair_seconds) as mix:
		expired = Expired(bench, mix.side, bench.expired)

		def prepare():
			if tables.expired_rows(bench.postgres, mix.side) < MOST_CLEANED * bench.pair_seconds:
				expired.insert()

		def clean():
			bench.postgres.sql("CALL session_store.cleanup('plain',"
							   f" max_duration => '{bench.pair_seconds} s')", user=OWNER)

		title = "mix during cleanup, plain"
		samples = in_pairs(mix, title, bench.pairs, mix.run, lambda: mix.run(clean), prepare)
		yield _compared(mix, "mix_and_cleanup", title, samples)


def beside_drop(bench):
	"""The mix while a partition of expired sessions is dropped, a quarter into each run."""
	side = partitioned_store(PartitionClock())
	with PacedMix(bench, side, bench.rows, bench.pairs, bench.pair_seconds) as mix:
		tables.finish_loading(bench.postgres, [side])
		expired = Expired(bench, side, bench.expired)

		def drop():
			time.sleep(bench.pair_seconds / 4)
			bench.postgres.sql("CALL session_store.maintain_partitions('partitioned')", user=OWNER)
			expired.require_gone()

		def during():
			expired.attach()
			return mix.run(drop)

		title = "mix during drop, partitioned"
		samples = in_pairs(mix, title, bench.pairs, mix.run, during, expired.make_partition)
		yield _compared(mix, "mix_and_drop", title, samples)
