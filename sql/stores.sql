-- Making stores, their tables and settings, and taking them away.
SELECT session_store.create_store();
SELECT session_store.create_store('raw', 'bytea');
CREATE SCHEMA web;
SELECT session_store.create_store('We"ird', table_schema => 'web');

\d sessions
SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'raw' ORDER BY ordinal_position;

\x on
SELECT * FROM session_store.stores WHERE store = 'sessions';
\x off
SELECT store, relation, payload FROM session_store.stores ORDER BY store;

-- Settings are columns, checked when written, and used at once.
UPDATE session_store.stores SET default_ttl = '2 hours' WHERE store = 'sessions';
SELECT session_store.upsert('ttl', '{}') > 0;
SELECT expire - now() BETWEEN '1:59' AND '2:01' FROM sessions WHERE sid = 'ttl';
UPDATE session_store.stores SET default_ttl = '1 day' WHERE store = 'sessions';
SELECT session_store.upsert('ttl', '{}') > 0;
SELECT expire - now() BETWEEN '23:59' AND '24:01' FROM sessions WHERE sid = 'ttl';
DELETE FROM sessions;

UPDATE session_store.stores SET default_ttl = '0' WHERE store = 'sessions';
UPDATE session_store.stores SET default_ttl = '-1 s' WHERE store = 'sessions';
UPDATE session_store.stores SET default_ttl = '178000000 years' WHERE store = 'sessions';
UPDATE session_store.stores SET default_ttl = NULL WHERE store = 'sessions';
UPDATE session_store.stores SET touch_granularity = '-1 s' WHERE store = 'sessions';
UPDATE session_store.stores SET logout_guard = '-1 s' WHERE store = 'sessions';
UPDATE session_store.stores SET cleanup_interval = '0' WHERE store = 'sessions';
UPDATE session_store.stores SET cleanup_batch_size = 0 WHERE store = 'sessions';
UPDATE session_store.stores SET cleanup_max_duration = '0' WHERE store = 'sessions';
UPDATE session_store.stores SET cleanup_delay = '-1 s' WHERE store = 'sessions';
UPDATE session_store.stores SET cleanup_grace = '-1 s' WHERE store = 'sessions';
UPDATE session_store.stores SET partitions_ahead = 0 WHERE store = 'sessions';
UPDATE session_store.stores SET verify_interval = '0' WHERE store = 'sessions';
UPDATE session_store.stores SET verify_sample_size = 0 WHERE store = 'sessions';
UPDATE session_store.stores SET max_delete_percent = 101 WHERE store = 'sessions';
UPDATE session_store.stores SET on_eviction = 'forget' WHERE store = 'sessions';
UPDATE session_store.stores SET redis_prefix = repeat('x', 513) WHERE store = 'sessions';
UPDATE session_store.stores SET user_id_path = '{}' WHERE store = 'sessions';
UPDATE session_store.stores SET user_id_path = '{a}' WHERE store = 'raw';
-- Not settings: these have their own functions, or none.
UPDATE session_store.stores SET phase = 'redis_only' WHERE store = 'sessions';
UPDATE session_store.stores SET rollout_percent = 5 WHERE store = 'sessions';
UPDATE session_store.stores SET payload = 'bytea' WHERE store = 'sessions';
UPDATE session_store.stores SET store = 'other' WHERE store = 'sessions';
UPDATE session_store.stores SET redis_server = 'nowhere' WHERE store = 'sessions';

-- Bad calls change nothing.
SELECT session_store.create_store('sessions');
SELECT session_store.create_store('');
SELECT session_store.create_store(NULL);
SELECT session_store.create_store('x', 'json');
SELECT session_store.create_store('x', table_schema => 'nowhere');
SELECT session_store.create_store('x', table_schema => NULL);
SELECT session_store.drop_store('nowhere');
CREATE TABLE taken (a int);
SELECT session_store.create_store('taken');
DROP TABLE taken;
SELECT store, relation, payload FROM session_store.stores ORDER BY store;

-- Renaming the table, its schema or its owner keeps the store working.
SELECT session_store.upsert('a', '{"n": 1}', store => 'We"ird') > 0;
ALTER TABLE web."We""ird" RENAME TO visitors;
SELECT session_store.get('a', 'We"ird');
SELECT session_store.upsert('a', '{"n": 2}', store => 'We"ird') > 0;
ALTER SCHEMA web RENAME TO site;
SELECT session_store.upsert('a', '{"n": 3}', store => 'We"ird') > 0;
SELECT session_store.get('a', 'We"ird');
ALTER TABLE site.visitors SET SCHEMA public;
SELECT session_store.upsert('a', '{"n": 4}', store => 'We"ird') > 0;
CREATE ROLE regress_session_owner;
ALTER TABLE visitors OWNER TO regress_session_owner;
SELECT session_store.get('a', 'We"ird');
ALTER TABLE visitors OWNER TO CURRENT_USER;
DROP ROLE regress_session_owner;

-- A table that lacks what a store needs is named, and works again when it is mended.
ALTER TABLE visitors RENAME COLUMN version TO versions;
SELECT session_store.get('a', 'We"ird');
ALTER TABLE visitors RENAME COLUMN versions TO version;
SELECT session_store.get('a', 'We"ird');

-- A store goes with its table, or without it.
SELECT session_store.drop_store('We"ird');
SELECT sess FROM visitors;
INSERT INTO visitors (sid, sess, expire) VALUES ('b', '{}', 'infinity');
DELETE FROM visitors;
DROP TABLE visitors;
DROP TABLE raw;
SELECT store FROM session_store.stores ORDER BY store;
SELECT session_store.create_store('raw', 'bytea');
SELECT session_store.drop_store('raw', keep_table => false);
SELECT to_regclass('raw');
SELECT session_store.drop_store('sessions', keep_table => false);
SELECT count(*) FROM session_store.registry;
BEGIN;
SELECT session_store.create_store('undone');
SELECT session_store.upsert('a', '{}', store => 'undone') > 0;
ROLLBACK;
SELECT session_store.get('a', 'undone');
DROP SCHEMA site;
