-- Partitioned stores: their partitions, and that a sid has one row whatever writes it.
SET TimeZone = 'Asia/Kathmandu';
SELECT session_store.create_store('short', partition_interval => '59 minutes');
SELECT session_store.create_store('long', partition_interval => '32 days');
SELECT session_store.create_store('negative', partition_interval => '-1 day');
SELECT session_store.create_store(partition_interval => '1 hour');
SELECT store, partition_interval FROM session_store.stores;

-- Ranges are whole hours in UTC and without gaps; names show them; they reach default_ttl and four more.
CREATE VIEW ranges AS SELECT * FROM session_store.partitions() WHERE range_from IS NOT NULL;
SELECT count(*) BETWEEN 28 AND 30 AS partitions, bool_and(range_to = range_from + '1 hour') AS hours,
	bool_and(range_from = date_trunc('hour', range_from, 'UTC')) AS whole,
	max(range_to) >= now() + '28 hours' AND max(range_to) <= now() + '30 hours' AS reach,
	bool_and(partition::text = 'sessions_' || to_char(range_from AT TIME ZONE 'UTC', 'YYYYMMDD"t"HH24MI_') || to_char(range_to AT TIME ZONE 'UTC', 'YYYYMMDD"t"HH24MI')) AS names
FROM ranges;
SELECT (SELECT count(*) FROM ranges) - count(*) AS ends FROM ranges a JOIN ranges b ON a.range_to = b.range_from;
SELECT partition, range_from, range_to, live_rows, expired_rows FROM session_store.partitions() WHERE range_from IS NULL;
-- Every partition has a primary key on the sid, and the trigger.
SELECT count(*) FROM pg_partition_tree('sessions') t WHERE isleaf
	AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.relid AND indisprimary AND indnatts = 1);
SELECT count(DISTINCT tgname), count(*) = (SELECT count(*) FROM pg_partition_tree('sessions')) AS everywhere FROM pg_trigger
	WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('sessions'));

-- A session is in the partition of its expiry, or in the catch-all.
SELECT session_store.upsert('a', '{"n": 1}', ttl => '3 hours') > 0, session_store.upsert('far', '{}', ttl => '40 hours') > 0,
	session_store.upsert('never', '{}', expire => 'infinity') > 0, session_store.upsert('past', '{}', expire => '2001-02-03') > 0;
CREATE VIEW places AS
	SELECT sid, s.tableoid::regclass = 'sessions_catch_all'::regclass AS in_catch_all, expire >= p.range_from AND expire < p.range_to AS in_range
	FROM sessions s LEFT JOIN ranges p ON s.tableoid = p.partition ORDER BY sid;
TABLE places;
SELECT session_store.get('a'), session_store.get('far'), session_store.get('never'), session_store.get('past');
-- It moves with it: by the functions, and by a statement. That is no logout.
SELECT version AS v, created_at AS c FROM sessions WHERE sid = 'a' \gset
SELECT session_store.touch('a', ttl => '20 hours');
UPDATE sessions SET expire = now() + '9 hours' WHERE sid IN ('far', 'never');
UPDATE sessions SET expire = now() + '5 hours', sess = '{"n": 2}' WHERE sid = 'a';
TABLE places;
SELECT version = :v + 1 AS version, created_at = :'c' AS same, updated_at > :'c' AS updated FROM sessions WHERE sid = 'a';
SELECT session_store.merge('a', '{"m": 3}', ttl => '15 hours');
SELECT session_store.upsert('a', '{"n": 4}', expire => 'infinity') - :v;
TABLE places;
SELECT count(*) FROM session_store.tombstones;
SELECT session_store.touch('a', ttl => '1 hour'), session_store.expire('a'), session_store.upsert('a', '{}');
SELECT count(*) FROM session_store.tombstones;

-- A second row is refused, wherever it would be, whoever writes it.
\set VERBOSITY terse
SELECT session_store.upsert('b', '{}', ttl => '2 hours') > 0;
INSERT INTO sessions (sid, sess, expire) VALUES ('b', '{}', now() + '2 hours');
INSERT INTO sessions (sid, sess, expire) VALUES ('b', '{}', now() + '7 hours');
INSERT INTO sessions (sid, sess, expire) VALUES ('past', '{}', 'infinity');
INSERT INTO sessions_catch_all (sid, sess, expire) VALUES ('b', '{}', 'infinity');
INSERT INTO sessions (sid, sess, expire) VALUES ('c', '{}', now() + '7 hours'), ('c', '{}', 'infinity');
INSERT INTO sessions (sid, sess, expire) SELECT 'b', '{}', 'infinity' ON CONFLICT DO NOTHING;
\echo :SQLSTATE
COPY sessions (sid, sess, expire) FROM stdin;
b	{}	infinity
\.
BEGIN;
INSERT INTO sessions (sid, sess, expire) VALUES ('d', '{}', now() + '7 hours');
INSERT INTO sessions (sid, sess, expire) VALUES ('d', '{}', now() + '9 hours');
ROLLBACK;
\set VERBOSITY default
WITH gone AS (DELETE FROM sessions WHERE sid = 'never' RETURNING sid)
	INSERT INTO sessions (sid, sess, expire) SELECT 'again', '{}', 'infinity' FROM gone;
SELECT sid, count(*) FROM sessions GROUP BY sid ORDER BY sid;
-- Functions called by a statement that writes the same sid.
INSERT INTO sessions (sid, sess, expire) VALUES ('e', '{}', now() + '2 hours') RETURNING session_store.upsert(sid, '{"twice": 1}');
SELECT session_store.upsert('e', '{"n": 1}', ttl => '1 hour') > 0, session_store.upsert('e', '{"n": 2}', ttl => '9 hours') > 0, session_store.touch('e', ttl => '20 hours'), session_store.get('e');
SELECT session_store.get('e');

-- The exact statements that need a unique index say that there is none.
INSERT INTO sessions (sess, expire, sid) SELECT '{}', to_timestamp(4102444800), 'f' ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess RETURNING sid;

-- Many sids, and the sessions of a user.
SELECT count(session_store.upsert('m' || i, '{}', ttl => (1 + i % 25) * '1 hour'::interval, user_id => 'u' || i % 1000)) FROM generate_series(1, 3000) i;
SELECT count(*) FROM session_store.user_sessions('u7'), session_store.get_many(ARRAY['m7', 'm8', 'm3000']);
SELECT session_store.expire_user('u7');
SELECT count(DISTINCT sid) = count(*) AS once FROM sessions;
-- Columns of a user's, there and dropped again.
ALTER TABLE sessions ADD COLUMN first text DEFAULT 'x', ADD COLUMN seen int DEFAULT 7;
ALTER TABLE sessions DROP COLUMN first;
CREATE INDEX sessions_seen ON sessions (seen);

-- Maintenance: what is due is made, with the sessions that wait for it, and what is over is dropped.
SELECT count(*) AS before FROM ranges \gset
CALL session_store.maintain_partitions();
SELECT count(*) - :before BETWEEN 0 AND 1 AS same FROM ranges;
SELECT session_store.upsert('g', '{"g": 1}', ttl => '31 hours') > 0, session_store.upsert('forever', '{}', expire => 'infinity') > 0;
UPDATE session_store.stores SET partitions_ahead = 7 WHERE store = 'sessions';
CALL session_store.maintain_partitions();
SELECT count(*) - :before BETWEEN 3 AND 4 AS more, count(*) FILTER (WHERE last_action = 'made, with 1 sessions of the catch-all' AND last_action_at > now() - interval '1 minute') AS moved FROM ranges;
SELECT sid, in_catch_all, in_range, seen FROM places JOIN sessions USING (sid) WHERE sid IN ('g', 'forever');
SELECT session_store.get('g'), session_store.touch('g', ttl => '5 hours'), session_store.touch('g', ttl => '34 hours');
SELECT sid, seen, sess, in_range FROM places JOIN sessions USING (sid) WHERE sid = 'g';
SELECT count(*) FROM pg_constraint WHERE conname = 'session_store_range_is_empty';
SELECT count(*) FROM ranges r WHERE (SELECT count(*) FROM pg_index WHERE indrelid = r.partition) <> 4;
CALL session_store.maintain_partitions('nowhere');
CALL session_store.maintain_partitions(NULL);
SELECT * FROM session_store.partitions('nowhere');
SELECT session_store.create_store('plain');
CALL session_store.maintain_partitions('plain');
SELECT * FROM session_store.partitions('plain');
BEGIN;
CALL session_store.maintain_partitions();
ROLLBACK;
-- Too many partitions.
UPDATE session_store.stores SET default_ttl = '30 days' WHERE store = 'sessions';
UPDATE session_store.stores SET default_ttl = '1 day' WHERE store = 'sessions';
UPDATE session_store.stores SET partition_interval = '1 day' WHERE store = 'sessions';

-- A large partition that is over is detached, with which its sessions are gone; its space is given back in slices. Its
-- first rows, which are cut off last, have TOAST.
CREATE FUNCTION add_large(name text, day date) RETURNS void LANGUAGE plpgsql SET client_min_messages = warning AS $$
DECLARE noon timestamptz := day + interval '12 hours';
BEGIN
	EXECUTE format('CREATE TABLE %I (LIKE sessions INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY (sid))', name);
	EXECUTE format('ALTER TABLE %I ALTER sess SET STORAGE EXTERNAL', name);
	EXECUTE format('INSERT INTO %I (sid, sess, user_id, expire, expire_bucket) SELECT %L || i, to_jsonb(repeat(md5(i::text), CASE WHEN i <= 20 THEN 300 ELSE 60 END)), ''gone'', %L, %L
		FROM generate_series(1, 10000) i', name, name, noon, noon);
	EXECUTE format('ALTER TABLE sessions ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, day::timestamptz, (day + 1)::timestamptz);
END $$;
CREATE VIEW leftovers AS SELECT partition, live_rows, expired_rows, bytes > 0 AS has_bytes, last_action
	FROM session_store.partitions() WHERE range_from IS NULL AND partition <> 'sessions_catch_all'::regclass;
CREATE TABLE people (id text PRIMARY KEY);
INSERT INTO people SELECT DISTINCT user_id FROM sessions WHERE user_id IS NOT NULL UNION SELECT 'gone';
ALTER TABLE sessions ADD CONSTRAINT of_people FOREIGN KEY (user_id) REFERENCES people;
SELECT add_large('large', '2020-01-01');
SELECT pg_total_relation_size('large') > 20000000 AS is_large, pg_relation_filepath('large') AS path \gset
\echo :is_large
-- Not while something depends on it that would keep it from being dropped.
CREATE VIEW dependent AS SELECT sid FROM large;
CALL session_store.maintain_partitions();
SELECT count(*) FROM sessions WHERE sid LIKE 'large%';
DROP VIEW dependent;
-- What comes to depend on it afterwards holds up the rest before anything is destroyed.
CREATE FUNCTION make_dependent() RETURNS event_trigger LANGUAGE plpgsql AS
	$$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW public.dependent AS SELECT sid FROM public.large'; END $$;
CREATE EVENT TRIGGER make_dependent ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION make_dependent();
CALL session_store.maintain_partitions();
DROP EVENT TRIGGER make_dependent;
SELECT count(*) FROM sessions WHERE sid LIKE 'large%';
SELECT count(*), sum(length(sess::text)) FROM large;
TABLE leftovers;
SELECT session_store.get('large1'), session_store.upsert('large1', '{"n": 1}') > 0, session_store.expire('large1');
DROP VIEW dependent;
-- Its rows keep nobody from deleting what they refer to.
DELETE FROM people WHERE id = 'gone';
ALTER TABLE sessions DROP CONSTRAINT of_people;
DROP TABLE people;
-- Nor is a table touched that somebody has taken for something else.
CREATE ROLE regress_ss_taker;
ALTER TABLE large OWNER TO regress_ss_taker;
CALL session_store.maintain_partitions();
TABLE leftovers;
ALTER TABLE large OWNER TO CURRENT_USER;
DROP ROLE regress_ss_taker;
CREATE TABLE parent (LIKE large);
ALTER TABLE large INHERIT parent;
CALL session_store.maintain_partitions();
ALTER TABLE large NO INHERIT parent;
DROP TABLE parent;
CREATE TABLE other (LIKE large) PARTITION BY RANGE (expire);
ALTER TABLE other ATTACH PARTITION large DEFAULT;
CALL session_store.maintain_partitions();
SELECT count(*), sum(length(sess::text)) FROM large;
ALTER TABLE other DETACH PARTITION large;
DROP TABLE other;
-- Between two slices it is a smaller table, whatever is done to it.
ALTER TABLE large RENAME TO renamed;
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS
	$$ BEGIN IF tg_tag = 'DROP TABLE' THEN RAISE 'not now'; END IF; END $$;
CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse();
\set SHOW_CONTEXT never
CALL session_store.maintain_partitions();
DROP EVENT TRIGGER refuse;
TABLE leftovers;
SELECT pg_table_size('renamed') < 2500000 AS is_small, count(*) BETWEEN 1 AND 2000 AS has_less, bool_and(length(sess::text) > 1000) AS is_readable, max(length(sess::text)) AS longest FROM renamed;
CREATE INDEX ON renamed (expire);
REINDEX TABLE renamed;
VACUUM renamed;
INSERT INTO renamed (sid, sess, expire) VALUES ('new', '{}', 'infinity');
SELECT sid FROM renamed WHERE sid = 'new';
CALL session_store.maintain_partitions();
SELECT to_regclass('renamed'), coalesce((pg_stat_file(:'path', true)).size, 0) AS bytes;
TABLE leftovers;
SELECT count(*) FROM session_store.partition_actions WHERE partition NOT IN (SELECT oid FROM pg_class);
SELECT sid FROM session_store.tombstones WHERE sid LIKE 'large%';
-- By cleanup as well; and it goes with the store, or with its table.
SELECT add_large('large', '2020-01-01'), add_large('larger', '2020-01-02');
CALL session_store.cleanup();
SELECT to_regclass('large'), to_regclass('larger');
SELECT add_large('large', '2020-01-01');
CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse();
CALL session_store.maintain_partitions();
DROP EVENT TRIGGER refuse;
SELECT partition FROM leftovers;

-- Dropping it, or keeping the table.
SELECT session_store.drop_store('sessions');
SELECT to_regclass('large');
SELECT count(*) > 2900 FROM sessions;
INSERT INTO sessions (sid, sess, expire) VALUES ('plain', '{}', now() + '1 hour');
DROP VIEW places, ranges, leftovers;
DROP TABLE sessions;
SELECT count(*) FROM session_store.partition_actions;
SELECT session_store.drop_store('plain', false);
-- A hundred thousand sids in one transaction: their locks fit.
SELECT session_store.create_store('many', 'bytea', '7 days');
BEGIN;
SELECT count(session_store.upsert_bytes('m' || i, '', store => 'many')) FROM generate_series(1, 50000) i;
INSERT INTO many (sid, sess, expire) SELECT 'n' || i, '', 'infinity' FROM generate_series(1, 50000) i;
SELECT count(*) < 2000 AS few FROM pg_locks WHERE locktype = 'advisory';
COMMIT;
SELECT session_store.drop_store('many', false);
-- Calendar months.
SELECT session_store.create_store('monthly', 'bytea', '1 month');
SELECT count(*) BETWEEN 5 AND 6, bool_and(range_from AT TIME ZONE 'UTC' = date_trunc('month', range_from AT TIME ZONE 'UTC')
	AND range_to AT TIME ZONE 'UTC' = range_from AT TIME ZONE 'UTC' + interval '1 month') AS months
FROM session_store.partitions('monthly') WHERE range_from IS NOT NULL;
SELECT session_store.upsert_bytes('a', '\x00', store => 'monthly') > 0, session_store.get_bytes('a', 'monthly');
-- Without the extension it stays.
SET client_min_messages = warning;
DROP EXTENSION session_store;
SELECT sid, sess FROM monthly;
INSERT INTO monthly (sid, sess, expire) VALUES ('b', '\x01', 'infinity');
UPDATE monthly SET expire = now() WHERE sid = 'b';
SELECT count(*) FROM pg_trigger WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('monthly'));
DROP TABLE monthly;
CREATE EXTENSION session_store;
