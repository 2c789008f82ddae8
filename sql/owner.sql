-- owner(sid): which side an application asks, in every phase.
SELECT session_store.create_store();
CREATE ROLE regress_ss_app;
SELECT session_store.grant_app('regress_ss_app');

CREATE TABLE sids (sid text PRIMARY KEY, bucket integer);
-- zlib.crc32(sid.encode()) % 100, from Python.
INSERT INTO sids VALUES ('123456789', 62), ('zażółć', 22), ('セッション', 32), ('🙂', 5), ('a', 7);
GRANT SELECT ON sids TO regress_ss_app;

-- A single phase, and PostgreSQL as primary, know no share.
SELECT DISTINCT session_store.owner(sid) FROM sids;
UPDATE session_store.registry SET phase = 'redis_only', rollout_percent = 50;
SELECT DISTINCT session_store.owner(sid, 'sessions') FROM sids;
UPDATE session_store.registry SET phase = 'dual_pg_primary', rollout_percent = 0;
SELECT DISTINCT session_store.owner(sid) FROM sids;

-- The share of the sids that PostgreSQL owns, to the bucket.
UPDATE session_store.registry SET phase = 'dual_redis_primary', rollout_percent = 0;
SELECT DISTINCT session_store.owner(sid) FROM sids;
SET ROLE regress_ss_app;
DO $$
DECLARE
	percent integer;
	wrong text;
BEGIN
	FOR percent IN 0 .. 100 LOOP
		EXECUTE format('RESET ROLE; UPDATE session_store.registry SET rollout_percent = %s; SET ROLE regress_ss_app', percent);
		SELECT string_agg(sid, ', ') INTO wrong FROM sids
			WHERE session_store.owner(sid) <> CASE WHEN bucket < percent THEN 'postgres' ELSE 'redis' END;
		IF wrong IS NOT NULL THEN
			RAISE EXCEPTION 'wrong at % percent: %', percent, wrong;
		END IF;
	END LOOP;
END $$;
SELECT phase, rollout_percent FROM session_store.routing();
SELECT DISTINCT session_store.owner(sid) FROM sids;
RESET ROLE;

-- Bad input.
SELECT session_store.owner(NULL);
SELECT session_store.owner('');
SELECT session_store.owner(repeat('é', 255)) IN ('redis', 'postgres');
SELECT session_store.owner(repeat('é', 256));
SELECT session_store.owner('a', 'nowhere');
SELECT session_store.owner('a', NULL);

UPDATE session_store.registry SET phase = 'pg_only', rollout_percent = 0;
DROP TABLE sids;
SELECT session_store.drop_store('sessions', keep_table => false);
DROP OWNED BY regress_ss_app;
DROP ROLE regress_ss_app;
