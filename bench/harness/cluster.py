"""Temporary PostgreSQL and Redis servers: started as children, ended by their process id."""

import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

OWNER = "bench"			# an ordinary role owns every table and runs every statement
DATABASE = "bench"
START_TIMEOUT = 60
STOP_TIMEOUT = 120
WAL_KEPT_GB = 4				# to be looked at afterwards
WAL_SEGMENT_BYTES = 16 << 20

PACKAGES = {
	"initdb": "postgresql-15",
	"pgbench": "postgresql-15",
	"psql": "postgresql-client-15",
	"redis-server": "redis-server",
	"redis-benchmark": "redis-tools",
}


class Failure(Exception):
	"""What a person reads when a step of the benchmark cannot be done."""


def _bin_dirs():
	config = os.environ.get("PG_CONFIG") or shutil.which("pg_config")
	if config:
		yield subprocess.check_output([config, "--bindir"], text=True).strip()
	yield from sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)


def find_program(name):
	"""The path of a PostgreSQL or Redis program, or None."""
	for directory in _bin_dirs():
		path = os.path.join(directory, name)
		if os.access(path, os.X_OK):
			return path
	return shutil.which(name)


def install_missing(programs):
	"""Install what is missing with apt, as root or by sudo."""
	missing = sorted({PACKAGES[name] for name in programs if not find_program(name)})
	if not missing:
		return
	become_root = [] if os.geteuid() == 0 else ["sudo"]
	environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
	for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", *missing]):
		if subprocess.run(become_root + command, env=environment).returncode != 0:
			raise Failure(f"cannot install {' '.join(missing)}; install it and run again")


def server_account():
	"""Popen arguments that run a server as postgres when we are root, which initdb refuses."""
	if os.geteuid() != 0:
		return {}
	return {"user": "postgres", "group": "postgres", "extra_groups": []}


class Directory:
	"""A temporary directory that the servers own and that vanishes with the run."""

	def __enter__(self):
		self.path = tempfile.mkdtemp(prefix="session_bench.")
		os.chmod(self.path, 0o755)
		if os.geteuid() == 0:
			account = pwd.getpwnam("postgres")
			os.chown(self.path, account.pw_uid, account.pw_gid)
		return self

	def __exit__(self, *_):
		shutil.rmtree(self.path, ignore_errors=True)

	def file(self, name):
		return os.path.join(self.path, name)


class Server:
	"""A child process; leaving the block stops it by its id and waits for its end."""

	stop_signals = (signal.SIGTERM, signal.SIGKILL)

	def _spawn(self, command, log):
		# Its own session: Ctrl-C reaches us, and we stop the server in order.
		with open(log, "wb") as output:
			self.process = subprocess.Popen(
				command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
				start_new_session=True, cwd="/", **server_account())
		self.log = log

	def _wait_until(self, ready):
		deadline = time.monotonic() + START_TIMEOUT
		while not ready():
			if self.process.poll() is not None or time.monotonic() > deadline:
				raise Failure(f"{self.process.args[0]} does not start:\n{self.log_tail()}")
			time.sleep(0.05)

	def log_tail(self, lines=20):
		with open(self.log, encoding="utf-8", errors="replace") as log:
			return "".join(log.readlines()[-lines:])

	def stop(self):
		for number in self.stop_signals:
			if self.process.poll() is not None:
				return
			self.process.send_signal(number)
			try:
				self.process.wait(STOP_TIMEOUT)
			except subprocess.TimeoutExpired:
				continue

	def __exit__(self, *_):
		self.stop()


class Postgres(Server):
	"""A cluster on a unix socket with fsync on and memory for all the data."""

	stop_signals = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)	# fast, immediate, gone

	def __init__(self, directory, shared_buffers_mb, with_extension, locale="C.UTF-8", wrapper=(), naptime="1s",
				 wal_kept_gb=WAL_KEPT_GB):
		self.data = directory.file("pg")
		self.socket_dir = directory.path
		self.directory = directory
		self.locale = locale
		self.with_extension = with_extension
		self.wrapper = list(wrapper)
		self.wal_kept_gb = wal_kept_gb
		self.settings = {
			"listen_addresses": "",
			"unix_socket_directories": self.socket_dir,
			"shared_buffers": f"{shared_buffers_mb}MB",
			"huge_pages": "off",
			"fsync": "on",
			"full_page_writes": "on",
			"max_wal_size": "16GB",
			"min_wal_size": "2GB",
			"wal_keep_size": f"{wal_kept_gb}GB",
			"checkpoint_timeout": "15min",
			"autovacuum": "on",
			# A table that needs vacuum gets it in the run that made the need, not in a peer's.
			"autovacuum_naptime": naptime,
			"maintenance_work_mem": "256MB",
			"timezone": "UTC",
			"log_timezone": "UTC",
		}
		if with_extension:
			self.settings["shared_preload_libraries"] = "session_store"
			self.settings["session_store.databases"] = DATABASE

	def __enter__(self):
		subprocess.run(
			[find_program("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust",
			 "-E", "UTF8", f"--locale={self.locale}", "--no-sync"],
			check=True, stdout=subprocess.DEVNULL, cwd="/", **server_account())
		with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as conf:
			conf.writelines(f"{name} = '{value}'\n" for name, value in self.settings.items())
		self._make_wal_segments()
		self._spawn([*self.wrapper, find_program("postgres"), "-D", self.data],
					self.directory.file("postgres.log"))
		try:
			probe = [find_program("pg_isready"), "-q", "-h", self.socket_dir]
			self._wait_until(lambda: subprocess.run(probe).returncode == 0)
			self.sql(f"CREATE ROLE {OWNER} LOGIN", database="postgres")
			self.sql(f"CREATE DATABASE {DATABASE} OWNER {OWNER}", database="postgres")
			self.sql("CREATE EXTENSION pg_walinspect")
		except BaseException:
			self.stop()
			raise
		return self

	def _make_wal_segments(self):
		"""As a server has them that has run for long: making one holds up every commit for some 50 ms.

		What is kept of the WAL is not used again before so much has been written.
		"""
		account = server_account()
		zeros = bytes(WAL_SEGMENT_BYTES)
		for n in range(2, 2 + (self.wal_kept_gb << 30) // WAL_SEGMENT_BYTES):
			path = os.path.join(self.data, "pg_wal", f"00000001{n // 256:08X}{n % 256:08X}")
			with open(path, "wb") as segment:
				segment.write(zeros)
				segment.flush()
				os.fsync(segment.fileno())
			os.chmod(path, 0o600)
			if account:
				shutil.chown(path, account["user"], account["group"])

	def environment(self, user=OWNER, database=DATABASE, **settings):
		"""The libpq environment of a connection; settings become its run-time parameters."""
		options = " ".join(f"-c {name}={value}" for name, value in settings.items())
		return dict(os.environ, PGHOST=self.socket_dir, PGPORT="5432", PGUSER=user,
					PGDATABASE=database, PGOPTIONS=options)

	def sql(self, text, user="postgres", database=DATABASE, **settings):
		"""Run statements, each in its own transaction; the last one's rows as lists of text."""
		result = subprocess.run(
			[find_program("psql"), "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-f", "-"],
			input=text, text=True, capture_output=True,
			env=self.environment(user, database, **settings))
		if result.returncode != 0:
			raise Failure(f"{result.stderr.strip()}\nin: {text.strip()[:600]}")
		return [line.split("\t") for line in result.stdout.splitlines()]

	def value(self, text, **options):
		return self.sql(text, **options)[-1][0]


class Redis(Server):
	"""A Redis on a unix socket, nothing written to disk."""

	def __init__(self, directory):
		self.directory = directory
		self.socket = directory.file("redis.sock")

	def __enter__(self):
		self._spawn(
			[find_program("redis-server"), "--port", "0", "--unixsocket", self.socket,
			 "--unixsocketperm", "777", "--save", "", "--appendonly", "no",
			 "--dir", self.directory.path],
			self.directory.file("redis.log"))
		try:
			self._wait_until(lambda: self.command("PING") == "PONG")
		except BaseException:
			self.stop()
			raise
		return self

	def command(self, *words, **options):
		return subprocess.run([find_program("redis-cli"), "-s", self.socket, *words],
							  capture_output=True, text=True, **options).stdout.strip()
