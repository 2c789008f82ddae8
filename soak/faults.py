"""What goes wrong: each fault lasts a few seconds and mends itself, all but what it has destroyed."""

import os
import signal
import time

import psycopg2
import redis

from .applications import IdleInTransaction
from .servers import OWNERS, poll

FAULTS = {}


def fault(function):
	FAULTS[function.__name__] = function
	return function


def _lasts(world, shortest=0.3, longest=3.0):
	time.sleep(world.rng.uniform(shortest, longest))


def _signal(pid, number):
	try:
		os.kill(pid, number)
	except ProcessLookupError:
		pass


def _on_redis(world, *command):
	return world.primary.client.execute_command(*command)


# --- Processes ------------------------------------------------------------------------------------

@fault
def mirror_ended(world):
	_signal(world.mirror_pid(), signal.SIGTERM)


@fault
def mirror_killed(world):
	"""PostgreSQL starts all of its processes again."""
	_signal(world.mirror_pid(), signal.SIGKILL)
	time.sleep(0.2)
	poll(world.postgres.answers, "PostgreSQL recovers")


@fault
def mirror_frozen(world):
	pid = world.mirror_pid()
	_signal(pid, signal.SIGSTOP)
	_lasts(world)
	_signal(pid, signal.SIGCONT)


@fault
def redis_frozen(world):
	"""Now shorter, now longer than the mirror's patience."""
	world.primary.process.send_signal(signal.SIGSTOP)
	_lasts(world, 0.3, 6)
	world.primary.process.send_signal(signal.SIGCONT)


@fault
def postgres_restarted(world):
	world.postgres.end(signal.SIGINT)
	_lasts(world, 0, 1)
	world.postgres.start()


@fault
def postgres_crashed(world):
	world.postgres.end(signal.SIGQUIT)
	_lasts(world, 0, 1)
	world.postgres.start()


@fault
def backend_killed(world):
	connection = world.postgres.connect()
	_signal(connection.get_backend_pid(), signal.SIGKILL)
	time.sleep(0.2)
	poll(world.postgres.answers, "PostgreSQL recovers")


# --- Redis and its data ---------------------------------------------------------------------------

@fault
def redis_empty(world):
	"""Killed, and comes back with nothing."""
	world.lost_data = True
	world.primary.end()
	_lasts(world, 0, 1)
	world.primary.remove_data()
	world.primary.start()


@fault
def redis_old_dump(world):
	"""Killed, and comes back as it was some seconds ago."""
	world.lost_data = True
	_on_redis(world, "SAVE")
	_lasts(world)
	world.primary.end()
	world.primary.start()


@fault
def redis_aof(world):
	"""Killed, and comes back with all that it had acknowledged."""
	world.broke_continuity = True
	client = world.primary.client
	client.config_set("appendfsync", "always")
	client.config_set("appendonly", "yes")
	poll(lambda: _aof_is_written(client.info("persistence")), "the append-only file is written")
	_lasts(world, 0.1, 1)
	world.primary.end()
	world.primary.start("--appendonly", "yes")
	client.config_set("appendonly", "no")
	world.primary.remove_data()


def _aof_is_written(info):
	return info["aof_enabled"] == 1 and info["aof_rewrite_in_progress"] == 0 and info["aof_rewrite_scheduled"] == 0


@fault
def redis_shutdown(world):
	"""Ended in order, with its data saved."""
	world.broke_continuity = True
	client = world.primary.client
	client.config_set("save", "3600 1")
	world.primary.end(signal.SIGTERM)
	_lasts(world, 0, 1)
	world.primary.start()
	world.primary.remove_data()


@fault
def flushdb(world):
	world.lost_data = True
	_on_redis(world, "FLUSHDB")


@fault
def flushall(world):
	world.lost_data = True
	_on_redis(world, "FLUSHALL", "ASYNC")


@fault
def flush_of_another_db(world):
	_on_redis(world, "EVAL", "redis.call('SELECT', 3) redis.call('SET', 'sess:r-1', '{}') redis.call('FLUSHDB')", 0)
	world.broke_continuity = True


@fault
def swapdb(world):
	world.lost_data = True
	world.blind_seconds = 10
	_on_redis(world, "SWAPDB", 0, 1)


@fault
def swapdb_and_back(world):
	world.broke_continuity = True
	world.blind_seconds = 10
	_on_redis(world, "SWAPDB", 0, 2)
	_on_redis(world, "SWAPDB", 0, 2)


@fault
def client_kill_pubsub(world):
	_on_redis(world, "CLIENT", "KILL", "TYPE", "pubsub")


@fault
def client_kill_all(world):
	_on_redis(world, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@fault
def output_buffer_overrun(world):
	"""The hints pile up while the mirror does not read, until Redis closes the connection."""
	client = world.primary.client
	client.config_set("client-output-buffer-limit", "pubsub 20kb 10kb 1")
	world.proxy.tell("stall")
	_burst(client, world)
	_lasts(world, 0.2, 1)
	world.proxy.tell("pass")
	client.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")


def _burst(client, world):
	start = world.rng.randrange(10**6)
	for base in range(0, 20_000, 1000):
		pipeline = client.pipeline(transaction=False)
		for i in range(base, base + 1000):
			pipeline.set(f"sess:burst-{start + i}", '{"n": 0}', px=30_000)
		pipeline.execute()
	for base in range(0, 20_000, 1000):
		client.unlink(*[f"sess:burst-{start + i}" for i in range(base, base + 1000) if i % 10])


@fault
def fill_rejects(world):
	"""Keys that the store cannot hold: bad JSON, other types, sids that are no text."""
	pipeline = world.primary.client.pipeline(transaction=False)
	tag = world.rng.randrange(10**6)
	for i in range(150):
		pipeline.set(f"sess:bad-{tag}-{i}", ("{broken", '"\\u0000"', b"\xff\xfe", "")[i % 4], ex=world.rng.randrange(5, 60))
		pipeline.hset(f"sess:hash-{tag}-{i}", "f", "v")
		pipeline.expire(f"sess:hash-{tag}-{i}", world.rng.randrange(5, 60))
	pipeline.set(b"sess:\xff\xfe", "{}", ex=30)
	pipeline.set("sess:", "{}", ex=30)
	pipeline.set("sess:" + "l" * 300, "{}", ex=30)
	pipeline.execute()
	_lasts(world)
	_on_redis(world, "SET", f"sess:bad-{tag}-0", '{"n": 1}', "EX", 100)


# --- The network ----------------------------------------------------------------------------------

@fault
def connection_cut(world):
	for _ in range(world.rng.randrange(1, 4)):
		world.proxy.tell("cut")
		_lasts(world, 0, 0.5)


@fault
def connection_stalled(world):
	world.proxy.tell("stall")
	_lasts(world, 0.3, 6)
	world.proxy.tell("pass")


@fault
def connection_refused(world):
	world.proxy.tell("refuse")
	world.proxy.tell("cut")
	_lasts(world)
	world.proxy.tell("pass")


@fault
def connection_half_open(world):
	world.blind_seconds = max(world.blind_seconds, 3)			# a PING and its timeout
	world.proxy.tell("half-open")


@fault
def connection_slow(world):
	world.proxy.tell(f"slow {world.rng.randrange(20_000, 300_000)}")
	_lasts(world, 1, 4)
	world.proxy.tell("pass")


# --- Failover -------------------------------------------------------------------------------------

def _promote(world, replica):
	replica.client.execute_command("REPLICAOF", "NO", "ONE")
	old = world.primary
	world.redises.remove(replica)
	world.redises.insert(0, replica)			# the application goes there from now on
	world.proxy.tell(f"target {replica.socket}")
	world.proxy.tell("cut")
	old.end()
	world.redises.remove(old)


@fault
def failover(world):
	"""A replica takes over with all that the primary had, but for the writes of an instant."""
	world.lost_data = True
	_promote(world, world.new_replica())


@fault
def failover_losing_writes(world):
	"""A replica takes over that has not heard of the last writes."""
	world.lost_data = True
	replica = world.new_replica()
	replica.process.send_signal(signal.SIGSTOP)
	_lasts(world, 0.2, 1)
	world.primary.end()
	replica.process.send_signal(signal.SIGCONT)
	_promote(world, replica)


# --- The table ------------------------------------------------------------------------------------

def _alter(world, statement):
	"""DDL that may meet the locks of others: it waits a little and tries again."""
	for _ in range(20):
		try:
			world.postgres.rows("SET lock_timeout = '500ms'; " + statement.format(world.table()))
			break
		except psycopg2.errors.LockNotAvailable:
			continue
	world.table_name = world.table()


@fault
def table_truncated(world):
	world.broke_continuity = True
	_alter(world, "TRUNCATE {}")


@fault
def table_renamed(world):
	_alter(world, f"ALTER TABLE {{}} RENAME TO sessions_{world.rng.randrange(1000)}")


@fault
def table_moved(world):
	schema = "".join(name for name in OWNERS if not world.table().startswith(name))
	_alter(world, f"ALTER TABLE {{}} SET SCHEMA {schema if schema in OWNERS else OWNERS[0]}")


@fault
def table_given_away(world):
	owner = world.postgres.value(
		"SELECT relowner::regrole::text FROM pg_class WHERE oid = %s::regclass", (world.table(),))
	_alter(world, f"ALTER TABLE {{}} OWNER TO {OWNERS[owner == OWNERS[0]]}")


@fault
def idle_in_transaction(world):
	IdleInTransaction("idle in a transaction", world, world.rng).hold(world.rng.uniform(1, 4))


def mend(world):
	"""Whatever a fault that failed half-way left behind."""
	world.proxy.tell("pass")
	for child in [*world.redises, world.postgres]:
		if child.running:
			child.process.send_signal(signal.SIGCONT)
	if not world.postgres.running:
		world.postgres.start()
	poll(world.postgres.answers, "PostgreSQL answers")
	if not world.primary.running:
		world.primary.start()
	poll(world.primary.answers, "Redis answers")


ERRORS = (redis.RedisError, psycopg2.Error, OSError)
