"""Mirrored stores for bench/mirror: making them, filling Redis, and waiting for the mirror."""

import json
import os
import socket
import statistics
import subprocess
import threading
import time

from .cluster import OWNER, Failure
from .payload import SID_TAIL, build

STORE = "sessions"
LARGE_BYTES = 5_000_000
PATIENCE = 1800			# seconds


def sid(n):
	return f"{1_000_000_000 + (n * 2654435761) % 4294967296}{SID_TAIL}"


class Sessions:
	"""The sessions of one size that both sides are filled with; n is all that differs between two of them."""

	def __init__(self, count, size, expire):
		self.count, self.expire = count, expire
		self.before, self.after = build(size, 0).split("100000000")

	def payload(self, n):
		return f"{self.before}{100_000_000 + n}{self.after}"

	def fill_redis(self, path):
		"""SET all of them."""
		self._send(path, ((sid(n), self.payload(n)) for n in range(self.count)), self.count)

	def add_large(self, path, count):
		"""SET so many of 5 MB."""
		self._send(path, ((f"large-{n}", json.dumps({"n": n, "large": "x" * LARGE_BYTES})) for n in range(count)), count)

	def _send(self, path, sessions, count):
		link = socket.socket(socket.AF_UNIX)
		link.connect(path)
		reader = threading.Thread(target=self._drain, args=(link, count))
		reader.start()
		batch, size = [], 0
		for name, value in sessions:
			words = ("SET", "sess:" + name, value, "PXAT", str(self.expire * 1000))
			batch.append(f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words))
			size += len(value)
			if size > 1 << 20:
				link.sendall("".join(batch).encode())
				batch, size = [], 0
		link.sendall("".join(batch).encode())
		reader.join()
		link.close()

	@staticmethod
	def _drain(link, count):
		got = 0
		while got < count * len(b"+OK\r\n"):
			more = len(link.recv(1 << 16))
			if not more:
				return
			got += more

	def write_copy_file(self, path):
		expire = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(self.expire))
		with open(path, "w", encoding="utf-8") as file:
			for n in range(self.count):
				file.write(f"{sid(n)}\t{self.payload(n)}\t{expire}\n")
		os.chmod(path, 0o644)


class Mirror:
	"""The store that is mirrored, seen from the benchmark."""

	def __init__(self, bench):
		self.bench, self.postgres, self.redis = bench, bench.postgres, bench.redis

	def prepare(self):
		self.postgres.sql(f"""CREATE EXTENSION session_store; SELECT session_store.grant_admin('{OWNER}');
			CREATE SERVER bench_redis FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '{self.redis.socket}');
			GRANT USAGE ON FOREIGN SERVER bench_redis TO {OWNER};""")

	def create(self, phase=None, name=STORE, prefix="sess:"):
		self.postgres.sql(f"""SELECT session_store.create_store('{name}');
			UPDATE session_store.stores SET redis_server = 'bench_redis', redis_prefix = '{prefix}' WHERE store = '{name}'""",
						  user=OWNER)
		if phase:
			self.set_phase(phase, name)

	def set_phase(self, phase, name=STORE):
		self.postgres.sql(f"SELECT session_store.set_phase('{name}', '{phase}', force => true)", user=OWNER)

	def drop(self, name=STORE):
		self.postgres.sql(f"SELECT session_store.drop_store('{name}', keep_table => false)", user=OWNER)

	def stat(self, *columns):
		row = self.postgres.sql(f"SELECT {', '.join(columns)} FROM session_store.stat_mirror WHERE store = '{STORE}'")
		return row[0] if row else [None] * len(columns)

	def wait_in_sync(self, comparisons=1):
		"""Wait until so many comparisons have ended and nothing lags; the seconds that took."""
		return self.wait(f"SELECT s.mirror = 'in sync' AND s.lag_keys = 0 AND m.comparisons >= {comparisons}"
						 " FROM session_store.status s JOIN session_store.stat_mirror m USING (store)"
						 f" WHERE store = '{STORE}'")

	def wait(self, query, pause=0.05):
		started = time.monotonic()
		while True:
			rows = self.postgres.sql(query)
			if rows and rows[0][0] == "t":
				return time.monotonic() - started
			if time.monotonic() - started > PATIENCE:
				raise Failure(f"not within {PATIENCE} s: {query}\n{self.postgres.sql('TABLE session_store.status')}")
			time.sleep(pause)

	def start_workers(self, running):
		self.postgres.sql(f"ALTER SYSTEM SET session_store.databases = '{'bench' if running else ''}'")
		self.postgres.sql("SELECT pg_reload_conf()")
		self.wait("SELECT count(*) %s 0 FROM pg_stat_activity WHERE backend_type = 'session_store mirror'"
				  % (">" if running else "="))

	def wait_until_gone(self):
		"""After a dual phase the mirror still copies what was accepted in it."""
		self.wait("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'session_store mirror')")

	def pid(self):
		rows = self.postgres.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_store mirror'")
		return rows[0][0] if rows else None


class MemoryWatch:
	"""The most resident memory of the mirror that is not the shared buffers, in bytes."""

	def __init__(self, mirror):
		self.mirror, self.most = mirror, 0

	def __enter__(self):
		self.ended = threading.Event()
		self.thread = threading.Thread(target=self._watch)
		self.thread.start()
		return self

	def _watch(self):
		pid = None
		while not self.ended.wait(0.1):
			try:
				pid = pid or self.mirror.pid()
				with open(f"/proc/{pid}/status", encoding="ascii") as status:
					lines = dict(line.split(":", 1) for line in status)
				self.most = max(self.most, sum(1024 * int(lines[name].split()[0]) for name in ("RssAnon", "RssFile")))
			except (OSError, KeyError, Failure):
				pid = None

	def __exit__(self, *_):
		self.ended.set()
		self.thread.join()


class OpenLoop:
	"""The application of Redis whose requests are due whatever happens; see open_loop.cpp."""

	CONNECTIONS = 16

	def __init__(self, bench, keys):
		self.bench, self.keys = bench, keys
		self.program = bench.directory.file("open_loop")
		source = os.path.join(os.path.dirname(__file__), "open_loop.cpp")
		subprocess.run(["g++", "-std=c++20", "-O2", "-o", self.program, source], check=True)

	def run(self, rate, seconds):
		result = subprocess.run([self.program, self.bench.redis.socket, str(rate), str(seconds),
								 str(self.CONNECTIONS), str(self.keys)], capture_output=True, text=True)
		if result.returncode:
			raise Failure(f"the open loop failed: {result.stderr}")
		return [float(word) for word in result.stdout.split()]

	def capacity(self, seconds=2):
		return statistics.median(self.run(0, seconds)[0] for _ in range(3))
