"""What is compared: tables and statements of each side, as its users create and send them.

The statements are pgbench script lines. A script's preamble (operations.py) sets :key, :exp and
:ttl in the same way for every side, so that client and parameters cost the same; $1 and $2 repeat
a parameter, as connect-pg-simple's own text does.
"""

from dataclasses import dataclass

from .payload import MISSING_TAIL, key_of, sid_of

SID = sid_of(":key")
MISSING_SID = sid_of(":key", MISSING_TAIL)
MANY = 20
MANY_SIDS = "ARRAY[" + ", ".join(sid_of(f":key{i}") for i in range(MANY)) + "]"


@dataclass(frozen=True)
class Side:
	"""One competitor: a schema of its own in the common database, and the SQL of each operation."""

	name: str
	label: str
	table: str
	payload_type: str
	create: str
	statements: dict
	extension: bool = False

	@property
	def schema(self):
		return self.name

	def load_sql(self, payload, expire, first, last):
		"""Fill sessions first to last, heap order independent of sid order, as life leaves it."""
		return (f"INSERT INTO {self.schema}.{self.table} (sess, expire, sid)"
				f" SELECT $payload${payload}$payload$::{self.payload_type}, {expire},"
				f" {sid_of('(' + key_of('n') + ')')}"
				f" FROM (SELECT n::bigint FROM generate_series({first}, {last}) n"
				" ORDER BY md5(n::text)) numbers")


def statement_table(get, touch, upsert, get_many, missing):
	return {
		"get": get,
		"get_missing": missing,
		"get_many": get_many,
		"touch_throttled": touch,
		"get_and_touch": get + touch,
		"touch_writes": touch,
		"upsert_same": upsert,
		"upsert_changed": upsert,
		"insert": upsert,
	}


def select(sid):
	return f'SELECT sess FROM "session" WHERE sid = {sid} AND expire >= to_timestamp(:now);\n'


CONNECT_PG_SIMPLE = statement_table(
	get=select(SID),
	missing=select(MISSING_SID),
	touch=f'UPDATE "session" SET expire = to_timestamp(:exp) WHERE sid = {SID} RETURNING sid;\n',
	upsert=f'INSERT INTO "session" (sess, expire, sid) SELECT :payload, to_timestamp(:exp), {SID}'
		   ' ON CONFLICT (sid) DO UPDATE SET sess=$1, expire=to_timestamp($2) RETURNING sid;\n',
	get_many=f'SELECT sid, sess, expire FROM "session" WHERE sid = ANY({MANY_SIDS})'
			 ' AND expire >= to_timestamp(:now);\n',
)
CONNECT_PG_SIMPLE["destroy"] = f'DELETE FROM "session" WHERE sid = {SID};\n'



def session_store_statements(store=None):
	"""What an application of a store of ours sends; the default store needs no name."""
	name = f", store => '{store}'" if store else ""
	statements = statement_table(
		get=f"SELECT session_store.get({SID}{name});\n",
		missing=f"SELECT session_store.get({MISSING_SID}{name});\n",
		touch=f"SELECT session_store.touch({SID}, :ttl::interval{name});\n",
		upsert=f"SELECT session_store.upsert({SID}, :payload::jsonb, :ttl::interval{name});\n",
		get_many=f"SELECT sid, sess, expire FROM session_store.get_many({MANY_SIDS}{name});\n",
	)
	statements["get_and_touch"] = f"SELECT session_store.get_and_touch({SID}, :ttl::interval{name});\n"
	statements["destroy"] = f"SELECT session_store.expire({SID}{name});\n"
	return statements


def _connect_pg_simple_schema(payload_type):
	return f"""
CREATE TABLE "session" ("sid" varchar NOT NULL COLLATE "default", "sess" {payload_type} NOT NULL,
	"expire" timestamp(6) NOT NULL);
ALTER TABLE "session" ADD CONSTRAINT "session_pkey" PRIMARY KEY ("sid")
	NOT DEFERRABLE INITIALLY IMMEDIATE;
CREATE INDEX "IDX_session_expire" ON "session" ("expire");
"""


COMMON_SCHEMA = """
CREATE TABLE "session" (sid varchar(255) PRIMARY KEY, sess jsonb NOT NULL,
	expire timestamptz NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX session_expire_idx ON "session" (expire);
CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.updated_at = now();
	RETURN NEW;
END $$;
CREATE TRIGGER session_updated_at BEFORE UPDATE ON "session"
	FOR EACH ROW EXECUTE FUNCTION set_updated_at();
"""

OURS = Side("ours", "session_store", "sessions", "jsonb",
			"SELECT session_store.create_store('sessions');", session_store_statements(), extension=True)

PEERS = [
	Side("cps_json", "connect-pg-simple, json", "session", "json",
		 _connect_pg_simple_schema("json"), CONNECT_PG_SIMPLE),
	Side("cps_jsonb", "connect-pg-simple, jsonb", "session", "jsonb",
		 _connect_pg_simple_schema("jsonb"), CONNECT_PG_SIMPLE),
	Side("common", "common migration schema", "session", "jsonb", COMMON_SCHEMA, CONNECT_PG_SIMPLE),
]

TABLE_SIDES = {side.name: side for side in [OURS, *PEERS]}
