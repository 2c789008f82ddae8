-- session_store.status: one row for each of the caller's stores, for a person.
SELECT session_store.create_store();
SELECT session_store.create_store('raw', 'bytea');
\d session_store.status

-- Live sessions only.
SELECT session_store.upsert('a', '{}') > 0, session_store.upsert('b', '{}', expire => 'infinity') > 0;
INSERT INTO sessions (sid, sess, expire) VALUES ('gone', '{}', now() - interval '1 day');
SELECT store, phase, rollout_percent, mirror, lag_keys, lag_milliseconds, postgres_sessions, redis_sessions, rejects,
	last_verification, differences, last_cleanup, cleaned_rows, last_error
FROM session_store.status ORDER BY store;
CALL session_store.cleanup();
SELECT store, last_cleanup <= clock_timestamp() AS cleaned, cleaned_rows FROM session_store.status ORDER BY store;

-- Beyond 100,000 the planner's statistics answer, and less is counted.
INSERT INTO raw (sid, sess, expire)
	SELECT i, '', now() + CASE WHEN i % 10 = 0 THEN interval '-1 day' ELSE interval '1 day' END
	FROM generate_series(1, 120000) i;
ANALYZE raw;
SELECT round(postgres_sessions, -4) AS about FROM session_store.status WHERE store = 'raw';
DELETE FROM raw WHERE sid::int > 100000;
SELECT postgres_sessions FROM session_store.status WHERE store = 'raw';
TRUNCATE raw;

-- Rejected keys are counted. (The mirror writes them; here somebody who may write anything.)
INSERT INTO session_store.rejected_keys (store_id, key_hash, redis_key, reason)
	SELECT id, '\x01', 'key', 'test' FROM session_store.registry WHERE store = 'sessions';
SELECT store, rejects FROM session_store.status ORDER BY store;
DELETE FROM session_store.rejected_keys;

-- No mirror runs in a single phase.
SELECT * FROM session_store.stat_mirror;
SELECT state, words FROM session_store.mirror_reports() ORDER BY store_id;

-- A store that was bound elsewhere says what to do.
UPDATE session_store.registry SET phase = 'dual_redis_primary', bound_system = 1, bound_database = 1 WHERE store = 'raw';
SELECT mirror FROM session_store.status WHERE store = 'raw';
UPDATE session_store.registry SET phase = 'pg_only', bound_system = NULL, bound_database = NULL WHERE store = 'raw';

-- A renamed table and schema.
ALTER TABLE raw RENAME TO "Raw table";
CREATE SCHEMA "My schema";
ALTER TABLE "Raw table" SET SCHEMA "My schema";
SELECT store, postgres_sessions FROM session_store.status WHERE store = 'raw';
ALTER TABLE "My schema"."Raw table" SET SCHEMA public;
ALTER TABLE "Raw table" RENAME TO raw;
DROP SCHEMA "My schema";

-- Each sees its own stores only; who uses a store does not manage it.
CREATE ROLE regress_ss_watcher;
CREATE ROLE regress_ss_member IN ROLE regress_ss_watcher;
GRANT CREATE ON SCHEMA public TO regress_ss_watcher;
SELECT session_store.grant_admin('regress_ss_watcher');
SET ROLE regress_ss_watcher;
SELECT session_store.create_store('watched');
SELECT store, postgres_sessions FROM session_store.status;
SELECT count(*) FROM session_store.mirror_reports();
SELECT store FROM session_store.stat_mirror;
SELECT session_store.live_sessions('public.sessions');
SELECT session_store.live_sessions(0);
SET ROLE regress_ss_member;
SELECT store FROM session_store.status;
RESET ROLE;
SELECT store FROM session_store.status ORDER BY store;

-- A policy on the table runs with the owner's rights when somebody else looks.
SET ROLE regress_ss_watcher;
CREATE TABLE seen (role name);
CREATE FUNCTION see() RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.seen VALUES (current_user); RETURN true; END $$;
ALTER TABLE watched ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY see ON watched USING (public.see());
INSERT INTO watched (sid, sess, expire) VALUES ('a', '{}', 'infinity');
TRUNCATE seen;
RESET ROLE;
SELECT postgres_sessions FROM session_store.status WHERE store = 'watched';
SELECT DISTINCT role FROM seen WHERE role <> 'regress_ss_watcher';

SELECT session_store.drop_store('watched', keep_table => false);
DROP FUNCTION see;
DROP TABLE seen;
DROP OWNED BY regress_ss_watcher;
DROP ROLE regress_ss_member, regress_ss_watcher;
SELECT session_store.drop_store('raw', keep_table => false), session_store.drop_store('sessions', keep_table => false);
