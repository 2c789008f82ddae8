-- A new session, whatever its table's user has added to the table.
SELECT session_store.create_store();
\set VERBOSITY terse
SELECT v - extract(epoch FROM now()) * 1000000 BETWEEN 0 AND 60 * 1000000 AS from_the_clock FROM session_store.upsert('a', '{"n": 1}', expire => '2100-01-01 12:34:56.789+00', user_id => 'anna') v;
SELECT sess, user_id, expire AT TIME ZONE 'UTC' AS expire, expire_bucket AT TIME ZONE 'UTC' AS bucket, created_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS created, created_at = updated_at AS updated FROM sessions;
-- Twice in a statement, and after a rollback.
SELECT session_store.upsert('b', '{"n": 1}') + 1 = session_store.upsert('b', '{"n": 2}') AS next_version;
DO $$
BEGIN
	PERFORM session_store.upsert('c', '{"n": 1}');
	RAISE EXCEPTION 'gone';
EXCEPTION WHEN raise_exception THEN
	PERFORM session_store.upsert('c', '{"n": 2}', expected_version => 0);
END $$;
SELECT sid, sess FROM sessions ORDER BY sid;
SELECT session_store.upsert('c', '{"n": 3}', expected_version => 0), session_store.upsert('d', '{"n": 3}', expected_version => 1);
-- Within the guard.
SELECT session_store.expire('c');
SELECT session_store.upsert('c', '{"n": 3}'), session_store.upsert('c', '{"n": 3}', expected_version => 0);
SELECT session_store.destroy('c'), session_store.upsert('c', '{"n": 4}') > 0 AS at_once;
SELECT session_store.get('c');
-- user_id_path.
UPDATE session_store.stores SET user_id_path = '{user}';
SELECT session_store.upsert('e', '{"user": "emma"}') > 0, session_store.upsert('f', '{"user": "emma"}', user_id => 'fred') > 0;
SELECT sid, user_id FROM sessions WHERE sid IN ('e', 'f') ORDER BY sid;
-- Columns of the user's: a default, NOT NULL, a dropped one.
ALTER TABLE sessions ADD note text DEFAULT 'noted', ADD gone int;
SELECT session_store.upsert('g', '{}') > 0;
ALTER TABLE sessions DROP gone;
SELECT session_store.upsert('h', '{}') > 0;
SELECT sid, note FROM sessions WHERE sid IN ('g', 'h') ORDER BY sid;
ALTER TABLE sessions DROP note;
DELETE FROM sessions WHERE user_id IS NULL;
ALTER TABLE sessions ALTER user_id SET NOT NULL;
SELECT session_store.upsert('i', '{}');
SELECT session_store.upsert('i', '{}', user_id => 'ian') > 0;
-- A unique index, a check, a trigger of the user's.
CREATE UNIQUE INDEX one_each ON sessions (user_id) WHERE user_id = 'ian';
SELECT session_store.upsert('j', '{}', user_id => 'ian');
SELECT session_store.upsert('j', '{}', user_id => 'jan') > 0;
ALTER TABLE sessions ADD CONSTRAINT named CHECK (user_id <> 'nobody');
SELECT session_store.upsert('k', '{}', user_id => 'nobody');
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.user_id := upper(NEW.user_id); RETURN NEW; END $$;
CREATE TRIGGER shout BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION shout();
SELECT session_store.upsert('k', '{}', user_id => 'kim') > 0;
SELECT user_id FROM sessions WHERE sid = 'k';
DROP TRIGGER shout ON sessions;
DROP FUNCTION shout;
ALTER TABLE sessions DROP CONSTRAINT named, ALTER user_id DROP NOT NULL;
-- Read only, and without the right to insert.
BEGIN READ ONLY;
SELECT session_store.upsert('l', '{}');
ROLLBACK;
CREATE ROLE regress_ss_reader;
SELECT session_store.grant_app('regress_ss_reader');
REVOKE INSERT ON sessions FROM regress_ss_reader;
SET ROLE regress_ss_reader;
SELECT session_store.upsert('l', '{}');
SELECT session_store.upsert('a', '{"n": 2}') > 0;
RESET ROLE;
SELECT count(*) FROM sessions WHERE sid = 'l';
-- The indexes have every row.
SET enable_seqscan = off;
SELECT string_agg(sid, ' ' ORDER BY sid) FROM sessions;
SELECT session_store.user_sessions('jan') IS NOT NULL AS found, count(*) FROM sessions WHERE expire_bucket > '2000-01-01' GROUP BY 1;
SELECT session_store.drop_store('sessions', false);
DROP OWNED BY regress_ss_reader;
DROP ROLE regress_ss_reader;
