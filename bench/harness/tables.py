"""Making, filling, checking and dropping the table of each side."""

from .cluster import OWNER, Failure
from .payload import key_of, sid_of

CHECKED_ROWS = 200


def prepare_database(postgres):
	"""What the extension needs once, when it takes part."""
	if postgres.with_extension:
		postgres.sql(f"CREATE EXTENSION session_store; SELECT session_store.grant_admin('{OWNER}')")


def create(postgres, side):
	postgres.sql(f"CREATE SCHEMA {side.schema} AUTHORIZATION {OWNER}")
	postgres.sql(side.create, user=OWNER, search_path=side.schema)


def load(postgres, side, payload, expire, first, last):
	"""Fill sessions first to last with one payload; expire is an SQL expression that may use n."""
	postgres.sql(side.load_sql(payload, expire, first, last), user=OWNER, search_path=side.schema)


def finish_loading(postgres, sides):
	for side in sides:
		postgres.sql(f"VACUUM (ANALYZE) {side.schema}.{side.table}")
	postgres.sql("CHECKPOINT")


def check(postgres, side, payload, rows):
	"""Refuse to measure a side whose read does not give back what was loaded."""
	get = (f"session_store.get({sid_of('k')}, store => '{side.table}')" if side.extension else
		   f"(SELECT sess FROM \"session\" WHERE sid = {sid_of('k')} AND expire >= now())")
	found = postgres.value(
		f"SELECT count(*) FROM (SELECT {get}::jsonb AS sess FROM (SELECT {key_of('n::bigint')} AS k"
		f" FROM generate_series(1, {min(CHECKED_ROWS, rows)}) n) keys) reads"
		f" WHERE sess = $payload${payload}$payload$::jsonb",
		user=OWNER, search_path=side.schema)
	if int(found) != min(CHECKED_ROWS, rows):
		raise Failure(f"{side.label} gives back {found} of {min(CHECKED_ROWS, rows)} sessions")


def drop(postgres, side):
	if side.extension:
		postgres.sql(f"SELECT session_store.drop_store('{side.table}', keep_table => false)",
					 user=OWNER, search_path=side.schema)
	postgres.sql(f"DROP SCHEMA {side.schema} CASCADE")


def expired_rows(postgres, side):
	return int(postgres.value(
		f"SELECT count(*) FROM {side.schema}.{side.table} WHERE expire < now()"))


def bytes_of(postgres, side):
	"""Bytes of the table with its TOAST, and of its indexes."""
	table = f"'{side.schema}.{side.table}'"
	heap, indexes = postgres.sql(f"SELECT pg_table_size({table}), pg_indexes_size({table})")[0]
	return int(heap), int(indexes)
