"""A partitioned store beside a plain one, and beside a table that somebody partitioned by hand.

All sessions of a day expire within one hour of it, where a touch stays in its partition.
"""

import time

from .cluster import Failure
from .operations import DAY, EXISTING, HOUR, NEW, ONE_KEY, TTL, VARIANTS, Operation
from .payload import sid_of
from .sides import SID, Side, select, session_store_statements, statement_table
from .single import SingleOperations

NAME = "partitions"
PARTITIONS = 8				# that hold sessions
AHEAD = 4					# partitions_ahead, the default
FIRST_EXPIRE = 6 * HOUR		# from now, longer than the operations take

ASK = f"\\set exp :n % {PARTITIONS} * {DAY} + random(:from, :to)\n" + TTL
OPERATIONS = [
	Operation("get", "get", EXISTING + ONE_KEY),
	Operation("touch_writes", "touch that writes", EXISTING + ONE_KEY + ASK, writes=True),
	Operation("upsert_changed", "upsert, changed payload", EXISTING + ONE_KEY + ASK, writes=True,
			  variants=VARIANTS),
	Operation("insert", "insert, new sid", NEW + ONE_KEY + ASK, writes=True, variants=1),
]


class PartitionClock:
	"""The hours in which sessions expire, a day apart, in epoch seconds."""

	def __init__(self):
		self.today = int(time.time()) // DAY * DAY
		self.hour = (int(time.time()) + FIRST_EXPIRE) // HOUR * HOUR

	def expire_sql(self):
		return f"to_timestamp({self.hour + HOUR // 2} + n % {PARTITIONS} * {DAY})"

	def variables(self, _run_seconds):
		return {"now": int(time.time()), "from": self.hour + 120, "to": self.hour + HOUR - 300}

	def days(self):
		"""Bounds of the days that hold sessions."""
		first = self.hour // DAY * DAY
		return [(first + i * DAY, first + (i + 1) * DAY) for i in range(PARTITIONS)]


def store(store_name, create):
	return Side(store_name, store_name, store_name, "jsonb", create,
				session_store_statements(store_name), extension=True)


def plain_store(name="plain"):
	return store(name, f"SELECT session_store.create_store('{name}');")


def partitioned_store(clock, name="partitioned"):
	"""Partitions of a day, as many as the clock's last session needs."""
	days = (clock.days()[-1][0] - clock.today) // DAY - AHEAD
	return store(name, f"""
SELECT session_store.create_store('{name}', partition_interval => '1 day');
UPDATE session_store.stores SET default_ttl = '{days} days' WHERE store = '{name}';
CALL session_store.maintain_partitions('{name}');
""")


def table_by_hand(clock):
	"""What PostgreSQL's manual leads to: no sid is unique, so that an upsert is UPDATE, else INSERT."""
	partitions = "".join(
		f"CREATE TABLE session_{start} PARTITION OF \"session\" (PRIMARY KEY (sid))"
		f" FOR VALUES FROM ('{_utc(start)}') TO ('{_utc(end)}');\n" for start, end in clock.days())
	upsert = (f'WITH changed AS (UPDATE "session" SET sess = :payload, expire = to_timestamp(:exp)'
			  f' WHERE sid = {SID} RETURNING sid) INSERT INTO "session" (sess, expire, sid)'
			  f' SELECT $1, to_timestamp($2), {sid_of("$3")} WHERE NOT EXISTS (SELECT FROM changed);\n')
	touch = f'UPDATE "session" SET expire = to_timestamp(:exp) WHERE sid = {SID} RETURNING sid;\n'
	return Side("by_hand", "partitioned by hand", "session", "jsonb", f"""
CREATE TABLE "session" (sid varchar NOT NULL, sess jsonb NOT NULL, expire timestamptz NOT NULL)
	PARTITION BY RANGE (expire);
{partitions}""", statement_table(select(SID), touch, upsert, get_many=None, missing=None))


def _utc(seconds):
	return time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(seconds))


class PartitionOperations(SingleOperations):
	"""The single operations that a partition may make slower."""

	operations = OPERATIONS
	prefix = "partitions_"
	title = f"{{}}, {PARTITIONS} partitions"

	def __init__(self, bench, size):
		super().__init__(bench, size)
		self.clock = PartitionClock()
		self.sides = {"ours": partitioned_store(self.clock), "plain": plain_store(),
					  "by_hand": table_by_hand(self.clock)}
		self.side_names = list(self.sides)

	def run_all(self):
		yield from self.run([operation.name for operation in self.operations])

	def _load(self):
		super()._load()
		for name in ("ours", "by_hand"):
			side = self.sides[name]
			filled = self.bench.postgres.value(
				f"SELECT count(DISTINCT tableoid) FROM {side.schema}.{side.table}")
			if filled != str(PARTITIONS):
				raise Failure(f"{side.label} has {filled} filled partitions, not {PARTITIONS}")
