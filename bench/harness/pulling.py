"""From Redis to PostgreSQL: the initial copy, a resync that finds nothing, the lag, verify."""

import contextlib
import json
import os
import statistics
import subprocess
import time

from .cluster import OWNER, Failure
from .mirrored import STORE, MemoryWatch, OpenLoop, Sessions

LARGE = 20			# sessions of 5 MB among the others


def copied(bench, mirror, sessions):
	"""Seconds from set_phase until all sessions are there and the mirror is in sync; the mirror's memory."""
	mirror.create()
	with MemoryWatch(mirror) as memory:
		started = time.monotonic()
		mirror.set_phase("dual_redis_primary")
		mirror.wait_in_sync()
		took = time.monotonic() - started
	found = int(bench.postgres.value(f"SELECT count(*) FROM {STORE}", user=OWNER))
	if found < sessions.count:
		raise Failure(f"{found} of {sessions.count} sessions were copied")
	return took, memory.most


def initial_copy(bench, mirror):
	sessions = Sessions(bench.rows, bench.size, int(time.time()) + 86400)
	bench.say(f"filling Redis with {sessions.count:,} sessions")
	sessions.fill_redis(bench.redis.socket)
	file = bench.directory.file("sessions.copy")
	sessions.write_copy_file(file)
	copies, mirrors, memory = [], [], 0
	for number in range(bench.rounds):
		bench.say(f"initial copy and COPY, round {number + 1} of {bench.rounds}")
		bench.postgres.sql(f"SELECT session_store.create_store('{STORE}')", user=OWNER)
		bench.postgres.sql("CHECKPOINT")
		started = time.monotonic()
		bench.postgres.sql(f"\\copy {STORE} (sid, sess, expire) FROM '{file}'", user=OWNER)
		copies.append(time.monotonic() - started)
		mirror.drop()
		bench.postgres.sql("CHECKPOINT")
		took, most = copied(bench, mirror, sessions)
		mirrors.append(took)
		memory = max(memory, most)
		if number + 1 < bench.rounds:
			mirror.drop()
	comparisons = int(mirror.stat("comparisons")[0])
	with MemoryWatch(mirror) as watch:
		sessions.add_large(bench.redis.socket, LARGE)
		bench.postgres.sql(f"SELECT session_store.resync('{STORE}')", user=OWNER)
		mirror.wait_in_sync(comparisons + 1)
	memory = max(memory, watch.most)
	bench.redis.command("DEL", *[f"sess:large-{n}" for n in range(LARGE)])
	ratios = [copy / took for copy, took in zip(copies, mirrors)]
	yield "initial copy", "sessions/s", sessions.count / statistics.median(mirrors), None
	yield "COPY of the same rows", "sessions/s", sessions.count / statistics.median(copies), None
	yield "initial copy against COPY", "ratio, median of the rounds", statistics.median(ratios), (">=", 0.7)
	yield f"mirror's memory, with {LARGE} sessions of 5 MB", "MB", memory / 2**20, ("<=", 256)


@contextlib.contextmanager
def busy_process():
	"""A process that computes and asks Redis nothing: what is left of the processors is as little as beside the mirror."""
	with subprocess.Popen(["sh", "-c", "while :; do :; done"], start_new_session=True) as process:
		try:
			yield
		finally:
			process.kill()


def other_clients(bench, mirror):
	"""The p99 of GETs at half of capacity, alone and while all is copied, in pairs.

	Where Redis, its clients and the mirror have fewer processors than they want, all wait for one: what a process costs
	them that does not use Redis tells how much of it that is.
	"""
	loop = OpenLoop(bench, bench.rows)
	capacity = loop.capacity()
	rate = capacity / 2
	alone, beside, during = [], [], []
	for number in range(bench.pairs):
		bench.say(f"other clients at {rate:,.0f} GETs a second, pair {number + 1} of {bench.pairs}")
		mirror.drop()
		time.sleep(0.5)
		alone.append(loop.run(rate, bench.seconds)[2] / 1000)
		with busy_process():
			beside.append(loop.run(rate, bench.seconds)[2] / 1000)
		mirror.create("dual_redis_primary")
		mirror.wait("SELECT applied > 0 FROM session_store.stat_mirror")
		during.append(loop.run(rate, bench.seconds)[2] / 1000)
		mirror.wait_in_sync()
	before, after = statistics.median(alone), statistics.median(during)
	yield "other clients' p99 alone", f"ms at {rate:,.0f} GETs/s", before, None
	yield "other clients' p99 beside a process that only computes", "ms", statistics.median(beside), None
	yield "other clients' p99 during the copy", "ms", after, ("<=", max(2 * before, before + 2))


def resync(bench, mirror):
	rates, wal, rows = [], [], []
	for number in range(bench.rounds):
		bench.say(f"resync with no difference, round {number + 1} of {bench.rounds}")
		bench.postgres.sql("CHECKPOINT")
		comparisons, applied = (int(value) for value in mirror.stat("comparisons", "applied"))
		before = bench.postgres.value("SELECT pg_current_wal_insert_lsn()")
		started = time.monotonic()
		bench.postgres.sql(f"SELECT session_store.resync('{STORE}')", user=OWNER)
		mirror.wait_in_sync(comparisons + 1)
		rates.append(bench.rows / (time.monotonic() - started))
		wal.append(int(bench.postgres.value(f"SELECT pg_current_wal_insert_lsn() - '{before}'::pg_lsn")))
		rows.append(int(mirror.stat("applied")[0]) - applied)
	yield "resync with no difference", "sessions/s", statistics.median(rates), (">=", 50_000)
	yield "its WAL", "bytes", statistics.median(wal), None
	yield "rows it wrote", "rows", max(rows), ("<=", 0)


def lag(bench, mirror):
	"""From a SET to session_store.get, beside so many other changes a second; measured by scripts/latency."""
	script = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "latency")
	for rate, limit in ((2_000, 100), (10_000, 500)):
		bench.say(f"lag beside {rate:,} changes a second for {bench.lag_seconds} s")
		result = subprocess.run(
			[script, "--pg", f"postgresql:///bench?host={bench.postgres.socket_dir}&user=postgres", "--redis",
			 bench.redis.socket, "--rate", str(rate), "--seconds", str(bench.lag_seconds), "--json"],
			capture_output=True, text=True)
		try:
			figures = json.loads(result.stdout.splitlines()[-1])
		except (ValueError, IndexError) as error:
			raise Failure(f"scripts/latency failed: {result.stderr}") from error
		yield f"lag of a change in Redis, p50, at {figures['changes_per_second']:,.0f}/s", "ms", figures["median_ms"], None
		yield f"lag of a change in Redis, p99, at {figures['changes_per_second']:,.0f}/s", "ms", figures["p99_ms"], ("<=", limit)
		yield "  until nothing is left", "s", mirror.wait_in_sync(), None
