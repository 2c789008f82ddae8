"""Applications on PostgreSQL that are in the mirror's way: their deadlocks and other errors are counted."""

import time

import psycopg2

from .writers import Paused

ROWS = 6
EXPECTED = ("42P01", "3F000")			# the table has just got another name or schema
MOVED = "40001"			# a statement waited for a row that then went to another partition: to be tried again


class Connected(Paused):
	"""Keeps a connection to PostgreSQL, and makes another one when it is lost."""

	def __init__(self, name, world, rng):
		super().__init__(name)
		self.world, self.rng = world, rng
		self.connection = None
		self.transactions = 0
		self.deadlocks = 0
		self.moved = 0
		self.failures = {}			# SQLSTATE -> how often, but for lost connections
		self.longest = 0.0

	def turn(self):
		try:
			if self.connection is None:
				self.connection = self.world.postgres.connect()
				self.connection.autocommit = False
			self.work()
			self.connection.commit()
			self.transactions += 1
			return True
		except psycopg2.Error as error:
			return self.note(error)

	def note(self, error):
		"""Count it, and be ready for the next transaction. False when PostgreSQL is not there."""
		code = error.pgcode
		if code == "40P01":
			self.deadlocks += 1
		elif code == MOVED and self.world.options.partitioned:
			self.moved += 1
		elif code and not code.startswith("57") and code not in EXPECTED:			# 57: PostgreSQL is going down
			self.failures[code] = self.failures.get(code, 0) + 1
		try:
			self.connection.rollback()
			return True
		except (psycopg2.Error, AttributeError):
			self.connection = None
			return False

	def execute(self, statement, arguments=()):
		started = time.monotonic()
		with self.connection.cursor() as cursor:
			cursor.execute(statement, arguments)
			rows = cursor.fetchall() if cursor.description else []
		self.longest = max(self.longest, time.monotonic() - started)
		return rows

	def shared_sids(self):
		return [f"s-{self.rng.randrange(self.world.options.sessions // 3)}" for _ in range(ROWS)]

	def sids(self, count):
		table = self.world.table_name
		return [row[0] for row in self.execute(
			f"SELECT sid FROM {table} WHERE sid >= %s ORDER BY sid LIMIT %s",
			(f"r-{self.rng.randrange(self.world.options.sessions)}", count))]


class SixRows(Connected):
	"""Takes six random rows a transaction, in no order, as an application that knows nothing of the mirror does."""

	def work(self):
		table = self.world.table_name
		sids = self.shared_sids() if self.world.options.both else [sid for _ in range(ROWS) for sid in self.sids(1)]
		for sid in sids:
			if self.world.options.both:
				self.execute(f"UPDATE {table} SET sess = sess || '{{\"six\": 6}}', expire = expire + interval '1 s'"
							 " WHERE sid = %s", (sid,))
			else:			# PostgreSQL's side is read only
				self.execute(f"SELECT FROM {table} WHERE sid = %s FOR UPDATE", (sid,))
			time.sleep(self.rng.random() * 0.004)


class IdleInTransaction(Connected):
	"""Sits on a few row locks for as long as the fault lasts; see faults.idle_in_transaction."""

	def hold(self, seconds):
		try:
			self.connection = self.world.postgres.connect()
			self.connection.autocommit = False
			for sid in self.sids(5):
				self.execute(f"SELECT FROM {self.world.table_name} WHERE sid = %s FOR UPDATE", (sid,))
			time.sleep(seconds)
			self.connection.rollback()
		finally:
			if self.connection is not None:
				self.connection.close()
