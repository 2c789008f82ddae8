"""PostgreSQL, Redis and the proxy between them, each a child process that is ended by its id."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time

import psycopg2
import psycopg2.extensions
import redis

START_TIMEOUT = 60
DATABASE = "soak"
OWNERS = ("soak_owner", "soak_heir")		# who may own the store's table


class Failure(Exception):
	"""What keeps the run from going on, for a person."""


def account():
	"""Popen arguments that run a server as postgres when we are root, which initdb refuses."""
	return {} if os.geteuid() else {"user": "postgres", "group": "postgres", "extra_groups": []}


def poll(condition, what, timeout=START_TIMEOUT, pause=0.02):
	"""Wait until the condition gives something true, and return it."""
	deadline = time.monotonic() + timeout
	while True:
		got = condition()
		if got:
			return got
		if time.monotonic() > deadline:
			raise Failure(f"{what}: not within {timeout} s")
		time.sleep(pause)


def free_port():
	with socket.create_server(("127.0.0.1", 0)) as listener:
		return listener.getsockname()[1]


class Child:
	"""A process of ours. Its id is in pids/ of the work directory for who cleans up after us."""

	def __init__(self, work, name):
		self.work, self.name = work, name
		self.process = None
		self.log = os.path.join(work, f"{name}.log")

	def spawn(self, command, directory):
		with open(self.log, "ab") as log:
			self.process = subprocess.Popen(
				command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory,
				start_new_session=True, **account())
		with open(os.path.join(self.work, "pids", self.name), "w", encoding="utf-8") as file:
			file.write(f"{self.process.pid}\n")

	@property
	def running(self):
		return self.process is not None and self.process.poll() is None

	def end(self, number=signal.SIGKILL, timeout=60):
		"""Send the signal and wait for the end."""
		if not self.running:
			return
		self.process.send_signal(number)
		if number != signal.SIGKILL:
			try:
				self.process.wait(timeout)
				return
			except subprocess.TimeoutExpired:
				self.process.kill()
		self.process.wait()

	def tail(self, lines=20):
		with open(self.log, encoding="utf-8", errors="replace") as log:
			return "".join(log.readlines()[-lines:])


class Redis(Child):
	"""A Redis on a unix socket with a directory of its own."""

	def __init__(self, work, name):
		super().__init__(work, name)
		self.directory = os.path.join(work, name)
		self.socket = os.path.join(self.directory, "s")
		os.makedirs(self.directory)
		self.port = free_port()			# for its replicas
		if os.geteuid() == 0:
			user = pwd.getpwnam("postgres")
			os.chown(self.directory, user.pw_uid, user.pw_gid)
		self.client = redis.Redis(unix_socket_path=self.socket, socket_timeout=30)

	def start(self, *options):
		command = [shutil.which("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket,
				   "--unixsocketperm", "777", "--dir", self.directory, "--save", "",
				   "--repl-diskless-sync-delay", "0", "--appendonly", "no", *options]
		self.spawn(command, self.directory)
		poll(self.answers, f"{self.name} starts")

	def answers(self):
		"""Whether it is there with its data."""
		if not self.running:
			raise Failure(f"{self.name} ended:\n{self.tail()}")
		try:
			return self.client.info("persistence")["loading"] == 0
		except redis.RedisError:
			return False

	def remove_data(self):
		for entry in os.listdir(self.directory):
			path = os.path.join(self.directory, entry)
			if os.path.isdir(path):
				shutil.rmtree(path)
			elif entry != os.path.basename(self.socket):
				os.unlink(path)


class Postgres(Child):
	"""A cluster on a unix socket. fsync is off: its processes crash here, the machine does not."""

	def __init__(self, work, bin_dir, settings):
		super().__init__(work, "postgres")
		self.bin_dir = bin_dir
		self.data = os.path.join(work, "postgres")
		self.settings = {
			"listen_addresses": "", "unix_socket_directories": work, "max_connections": "50",
			"fsync": "off", "deadlock_timeout": "200ms", "restart_after_crash": "on",
			"shared_preload_libraries": "session_store", "session_store.databases": DATABASE,
			"timezone": "UTC", "log_timezone": "UTC", "log_line_prefix": "%m [%p] %b ", **settings,
		}

	def create(self):
		subprocess.run(
			[os.path.join(self.bin_dir, "initdb"), "-D", self.data, "-U", "postgres", "-A", "trust",
			 "-E", "UTF8", "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd=self.work, **account())
		with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as conf:
			conf.writelines(f"{name} = '{value}'\n" for name, value in self.settings.items())

	def start(self):
		self.spawn([os.path.join(self.bin_dir, "postgres"), "-D", self.data], self.work)
		poll(self.answers, "PostgreSQL starts")

	def answers(self):
		if not self.running:
			raise Failure(f"PostgreSQL ended:\n{self.tail()}")
		try:
			self.connect("postgres").close()
		except psycopg2.OperationalError:
			return False
		return True

	def connect(self, database=DATABASE, user="postgres", **arguments):
		# Warnings would only say that the server is crashing, which is what we do to it.
		connection = psycopg2.connect(host=self.work, dbname=database, user=user,
									  options="-c client_min_messages=error", **arguments)
		connection.autocommit = True
		return connection

	def rows(self, statement, arguments=None, database=DATABASE):
		"""The rows of one statement, on a connection of its own: faults end the ones that are kept."""
		connection = self.connect(database)
		try:
			with connection.cursor() as cursor:
				cursor.execute(statement, arguments)
				return cursor.fetchall() if cursor.description else []
		finally:
			connection.close()

	def value(self, statement, arguments=None):
		rows = self.rows(statement, arguments)
		return rows[0][0] if rows else None


class Proxy:
	"""The proxy process; see proxy.py."""

	def __init__(self, work):
		self.process = subprocess.Popen(
			[sys.executable, os.path.join(os.path.dirname(__file__), "proxy.py")], text=True,
			stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=work, start_new_session=True)
		self.port = int(self.process.stdout.readline())

	def tell(self, command):
		self.process.stdin.write(command + "\n")
		self.process.stdin.flush()
		if self.process.stdout.readline() != "ok\n":
			raise Failure("the proxy has ended")

	def end(self):
		self.process.stdin.close()
		self.process.wait()
