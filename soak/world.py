"""The servers of a run, the store that is mirrored between them, and what the operator does to it."""

import os
import subprocess

import psycopg2

from .servers import DATABASE, OWNERS, Failure, Postgres, Proxy, Redis, poll

STORE = "sessions"
COMMAND_TIMEOUT = "2s"
LOGOUT_GUARD = "5 seconds"


class World:
	postgres_errors = psycopg2.Error

	def __init__(self, options):
		self.options = options
		self.store = STORE
		self.proxy = Proxy(options.work)
		self.redises = [Redis(options.work, "redis0")]
		self.postgres = Postgres(options.work, options.bin_dir, {"session_store.naptime": "1s"})
		# Of the round under way: whom its faults may have cost sessions or the common past.
		self.lost_data = False
		self.broke_continuity = False
		self.blind_seconds = 0
		self.phase = "dual_redis_primary 0 %"

	@property
	def primary(self):
		"""The Redis that the application and the proxy use."""
		return self.redises[0]

	def start(self):
		self.primary.start()
		self.proxy.tell(f"target {self.primary.socket}")
		self.postgres.create()
		self.postgres.start()
		self.postgres.rows(f"CREATE DATABASE {DATABASE}", database="postgres")
		for statement in self._setup():
			self.postgres.rows(statement)
		# The way back from PostgreSQL is there where its outbox is.
		self.options.both &= self.postgres.value("SELECT to_regclass('session_store.outbox') IS NOT NULL")
		if self.options.both:
			# Short, so that a sid that was ended is used again within the run.
			self.set_logout_guard(LOGOUT_GUARD)

	def set_logout_guard(self, interval):
		self.postgres.rows("UPDATE session_store.stores SET logout_guard = %s WHERE store = %s", (interval, self.store))

	def _setup(self):
		yield "CREATE EXTENSION session_store"
		yield ("CREATE SERVER soak_redis FOREIGN DATA WRAPPER session_store_redis OPTIONS"
			   f" (host '127.0.0.1', port '{self.proxy.port}', connect_timeout '{COMMAND_TIMEOUT}',"
			   f" command_timeout '{COMMAND_TIMEOUT}')")
		yield "; ".join(f"CREATE ROLE {owner} LOGIN" for owner in OWNERS)
		for owner in OWNERS:
			yield f"SELECT session_store.grant_admin('{owner}')"
			yield f"GRANT USAGE ON FOREIGN SERVER soak_redis TO {owner}"
			yield f"CREATE SCHEMA {owner} AUTHORIZATION {owner}"
			yield f"GRANT CREATE, USAGE ON SCHEMA {owner} TO {OWNERS[0]}, {OWNERS[1]}"
		interval = "'1 hour'" if self.options.partitioned else "NULL"
		yield (f"SET ROLE {OWNERS[0]}; SELECT session_store.create_store('{STORE}', table_schema => '{OWNERS[0]}',"
			   f" partition_interval => {interval});"
			   f" UPDATE session_store.stores SET redis_server = 'soak_redis' WHERE store = '{STORE}'; RESET ROLE")
		yield f"SELECT session_store.set_phase('{STORE}', 'dual_redis_primary')"

	def end(self):
		for child in [*self.redises, self.postgres]:
			child.end()
		self.proxy.end()

	def new_replica(self):
		"""A Redis that follows the primary and has all of its data."""
		name = f"redis{int(self.primary.name[5:]) + 1}"
		replica = Redis(self.options.work, name)
		self.redises.append(replica)
		replica.start("--replicaof", "127.0.0.1", str(self.primary.port))
		poll(lambda: replica.client.info("replication").get("master_link_status") == "up", "the replica follows")
		return replica

	# --- The store -------------------------------------------------------------------------------

	def table(self):
		return self.postgres.value("SELECT relation::text FROM session_store.stores WHERE store = %s", (STORE,))

	def mirror_pid(self):
		return poll(lambda: self.postgres.value(
			"SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_store mirror'"), "a mirror runs")

	def status(self):
		"""(mirror in words, keys not yet copied) or None while PostgreSQL does not answer."""
		try:
			rows = self.postgres.rows(
				"SELECT coalesce(mirror, ''), coalesce(lag_keys, 0) FROM session_store.status WHERE store = %s", (STORE,))
		except psycopg2.Error:
			return None
		return rows[0] if rows else None

	def is_held(self):
		status = self.status()
		return status is not None and ("max_delete_percent" in status[0] or "allow_mass_delete" in status[0])

	def answer_held_deletes(self):
		"""What an operator does: the sessions go, or Redis gets them back."""
		refill = self.options.both and self.rng.random() < 0.5
		self.postgres.rows("SELECT session_store.resync(%s, allow_mass_delete => %s, refill_redis => %s)",
						   (STORE, not refill, refill))

	def mirror_memory(self):
		"""Resident bytes of the mirror that are its own, or 0."""
		pid = self.postgres.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_store mirror'")
		try:
			with open(f"/proc/{pid}/status", encoding="ascii") as status:
				return 1024 * sum(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
		except OSError:
			return 0


def bin_dir(pg_config):
	try:
		return subprocess.check_output([pg_config, "--bindir"], text=True).strip()
	except OSError as error:
		raise Failure(f"{pg_config}: {os.strerror(error.errno)}") from error
