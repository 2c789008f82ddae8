"""From PostgreSQL to Redis: lag, the backlog after an outage, and what the outbox costs a writer."""

import json
import statistics
import subprocess
import threading
import time

import psycopg2
import redis

from .cluster import DATABASE, OWNER
from .measure import Script, pgbench_command, read_pgbench
from .mirrored import STORE, sid

ROWS = 20			# of a statement
WRITERS = 8			# each waits for its own commits, for which the disk is busy most of the time
PHASE = "dual_pg_primary"	# where PostgreSQL's changes are what there is to copy
PROBES = 20
LOOK_SECONDS = 0.001	# between two looks at Redis: who looks all the time takes a processor from those that are measured


def connect(bench):
	connection = psycopg2.connect(host=bench.postgres.socket_dir, dbname=DATABASE, user=OWNER)
	connection.autocommit = True
	return connection


class Load:
	"""Changes so many sessions a second, by batches of 20 each, in threads of its own."""

	def __init__(self, bench, rate):
		self.bench, self.pause = bench, WRITERS * ROWS / rate
		self.counts = [0] * WRITERS
		self.ended = threading.Event()
		self.threads = [threading.Thread(target=self._run, args=(writer,)) for writer in range(WRITERS)]

	@property
	def changed(self):
		return sum(self.counts)

	def __enter__(self):
		for thread in self.threads:
			thread.start()
		return self

	def __exit__(self, *_):
		self.ended.set()
		for thread in self.threads:
			thread.join()

	def _run(self, writer):
		change = self.connect()
		due, n = time.monotonic(), writer * ROWS
		while not self.ended.is_set():
			self.counts[writer] += change([sid((n + i) % self.bench.rows) for i in range(ROWS)])
			n += WRITERS * ROWS
			due += self.pause
			time.sleep(max(0, due - time.monotonic()))


class PostgresLoad(Load):
	"""In PostgreSQL, by one statement a batch."""

	def connect(self):
		cursor = connect(self.bench).cursor()
		cursor.execute(f"PREPARE change (text[]) AS UPDATE {STORE} SET sess = jsonb_set(sess, '{{views}}',"
					   " to_jsonb((sess->>'views')::bigint + 1)) WHERE sid = ANY ($1)")

		def change(sids):
			cursor.execute("EXECUTE change (%s)", (sids,))
			return cursor.rowcount
		return change


def probe_lags(bench, seconds):
	"""Milliseconds from before an upsert to its value in Redis, again and again."""
	connection, client = connect(bench), redis.Redis(unix_socket_path=bench.redis.socket)
	cursor, times, start = connection.cursor(), [], time.monotonic()
	while time.monotonic() - start < seconds:
		name, value = f"probe-{len(times) % PROBES}", f'{{"probe": "{time.time_ns()}"}}'.encode()
		began = time.perf_counter()
		cursor.execute("SELECT session_store.upsert(%s, %s)", (name, value.decode()))
		while client.get("sess:" + name) != value and time.perf_counter() - began < 30:
			time.sleep(LOOK_SECONDS)
		times.append((time.perf_counter() - began) * 1000)
		time.sleep(0.03)
	connection.close()
	return sorted(times)


def push_lag(bench, mirror):
	mirror.set_phase(PHASE)
	mirror.wait_in_sync()
	for words, holds in (("", False), (", beside an open transaction", True)):
		bench.say(f"push of {bench.push_rate:,} changes a second for {bench.lag_seconds} s{words}")
		holder = connect(bench)
		holder.autocommit = not holds
		if holds:
			holder.cursor().execute(f"SELECT pg_current_xact_id(), count(*) FROM {STORE} WHERE sid = 'x'")
		with PostgresLoad(bench, bench.push_rate) as load:
			time.sleep(2)
			changed, started = load.changed, time.monotonic()
			times = probe_lags(bench, bench.lag_seconds)
			rate = (load.changed - changed) / (time.monotonic() - started)
		left = mirror.wait_in_sync()
		holder.close()
		yield f"lag of a push, p50, at {rate:,.0f}/s{words}", "ms", times[len(times) // 2], None
		yield f"lag of a push, p99, at {rate:,.0f}/s{words}", "ms", times[int(len(times) * 0.99)], ("<=", 500)
		yield "  until nothing is left", "s", left, None


def backlog(bench, mirror):
	"""All sessions are changed while the mirror is stopped."""
	mirror.set_phase(PHASE)
	mirror.wait_in_sync()
	mirror.start_workers(False)
	bench.say(f"changing {bench.rows:,} sessions while the mirror is stopped")
	cursor = connect(bench).cursor()
	cursor.execute("SET synchronous_commit = off")
	changed = 0
	for n in range(0, bench.rows, ROWS):
		cursor.execute(f"UPDATE {STORE} SET sess = jsonb_set(sess, '{{views}}', '7') WHERE sid = ANY (%s)",
					   ([sid(i) for i in range(n, min(n + ROWS, bench.rows))],))
		changed += cursor.rowcount
	mirror.start_workers(True)
	started = time.monotonic()
	# Whoever looks at the outbox meets all its dead rows, and takes the time of those that are measured.
	mirror.wait(f"SELECT pushed >= {changed} FROM session_store.stat_mirror WHERE store = '{STORE}'", 0.5)
	mirror.wait("SELECT NOT EXISTS (SELECT FROM session_store.outbox)")
	took = time.monotonic() - started
	yield "backlog drained", "sessions/s", changed / took, (">=", 30_000)


OVERHEADS = {
	"upsert": "SELECT session_store.upsert('k' || :key, :payload::jsonb, ttl => '1 day', store => '{store}');\n",
	"touch that writes": "SELECT session_store.touch('k' || :key, expire => now() + :ttl * interval '1 second', store => '{store}');\n",
}


def outbox_overhead(bench, mirror):
	"""The same store in pg_only and in a dual phase whose mirror does not run, in turn."""
	mirror.start_workers(False)
	rows = min(bench.rows, 100_000)
	for name, phase in (("plain", None), ("dual", "dual_pg_primary")):
		mirror.create(phase, name=name, prefix=f"{name}:")
		bench.postgres.sql(f"INSERT INTO {name} (sid, sess, expire) SELECT 'k' || n, '{{}}', now() + interval '1 day'"
						   f" FROM generate_series(1, {rows}) n", user=OWNER)
		bench.postgres.sql(f"VACUUM ANALYZE {name}")
	for what, statement in OVERHEADS.items():
		for commit, limit in (("on", 0.85), ("off", 0.75)):
			rates = {"plain": [], "dual": []}
			for number in range(bench.rounds * 2 + 1):
				for name in ("plain", "dual") if number % 2 else ("dual", "plain"):
					rates[name].append(run_pgbench(bench, name, what, statement.format(store=name), rows, commit, number))
			ratio = statistics.median(dual / plain for dual, plain in zip(rates["dual"], rates["plain"]))
			yield f"{what} with the outbox, synchronous_commit {commit}", "of the rate without", ratio, (">=", limit)
	for name in ("plain", "dual"):
		mirror.drop(name)
	bench.postgres.sql("DELETE FROM session_store.outbox")
	mirror.start_workers(True)


def run_pgbench(bench, name, what, statement, rows, commit, number):
	script = Script(bench.directory, f"outbox_{name}_{what.split()[0]}",
					f"\\set key random(1, :rows)\n\\set ttl random(100000, 900000)\n{statement}")
	payload = json.dumps({"views": number, "text": "x" * (bench.size - 30)})
	process = subprocess.Popen(
		pgbench_command([script], 1, bench.seconds, {"rows": rows, "payload": payload}), text=True,
		stdout=subprocess.PIPE, stderr=subprocess.PIPE,
		env=bench.postgres.environment(synchronous_commit=commit))
	return read_pgbench(process)[0]
