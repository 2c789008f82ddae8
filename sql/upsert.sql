-- upsert and get on a jsonb store: versions, expected versions, users.
SELECT session_store.create_store();
SELECT session_store.upsert('a', '{"n": 1}') AS first \gset
SELECT session_store.get('a');
SELECT session_store.upsert('a', '{"n": 2}') - :first AS grown;
SELECT session_store.upsert('a', '{"n": 2}') - :first AS same_payload_same_version;
SELECT session_store.get('a');
-- A version is the clock in microseconds when the row is new.
SELECT abs(:first - extract(epoch FROM now()) * 1000000) < 60e6 AS clock;
SELECT session_store.get('nobody');

-- ttl, expire, infinity; neither means default_ttl.
SELECT session_store.upsert('t', '{}', ttl => '1 hour') > 0;
SELECT expire - now() BETWEEN '59 min' AND '61 min' FROM sessions WHERE sid = 't';
SELECT session_store.upsert('t', '{}', expire => '2100-01-01 00:00:00.1234+00') > 0;
SELECT expire AT TIME ZONE 'UTC' FROM sessions WHERE sid = 't';
SELECT session_store.upsert('t', '{}', expire => 'infinity') > 0;
SELECT expire, session_store.get('t') FROM sessions WHERE sid = 't';
-- A day is 24 hours, whatever the time zone.
SET TimeZone = 'Europe/Berlin';
SELECT session_store.upsert('t', '{}', ttl => '1 mon 1 day') > 0;
SELECT extract(epoch FROM expire - now())::int / 3600 BETWEEN 31 * 24 - 1 AND 31 * 24 FROM sessions WHERE sid = 't';
RESET TimeZone;

-- An expire in the past is a session that is not live, and its sid starts anew.
SELECT session_store.upsert('p', '{"old": true}', expire => '2000-01-01', user_id => 'u') AS old \gset
SELECT session_store.get('p'), (SELECT count(*) FROM sessions WHERE sid = 'p');
UPDATE sessions SET created_at = '2000-01-01' WHERE sid = 'p';
SELECT session_store.upsert('p', '{"new": true}') > :old AS newer;
SELECT sess, user_id, created_at > now() - interval '1 min' AS new FROM sessions WHERE sid = 'p';

-- expected_version: 0 must not be live, another one must be current.
SELECT session_store.upsert('e', '{"n": 1}', expected_version => 7);
SELECT session_store.upsert('e', '{"n": 1}', expected_version => 0) AS v \gset
SELECT session_store.upsert('e', '{"n": 2}', expected_version => 0);
SELECT session_store.get('e');
SELECT session_store.upsert('e', '{"n": 3}', expected_version => :v) = :v + 1;
SELECT session_store.upsert('e', '{"n": 4}', expected_version => :v);
SELECT sess, version = :v + 1 AS current FROM session_store.get_versioned('e');
UPDATE sessions SET expire = '2000-01-01' WHERE sid = 'e';
SELECT session_store.upsert('e', '{"n": 5}', expected_version => :v + 1);
SELECT session_store.upsert('e', '{"n": 6}', expected_version => 0) > :v;
SELECT * FROM session_store.get_versioned('nobody');

-- user_id: given, kept, or found in the payload.
SELECT session_store.upsert('u', '{}', user_id => 'anna') > 0;
SELECT session_store.upsert('u', '{"n": 1}') > 0;
SELECT user_id FROM sessions WHERE sid = 'u';
UPDATE session_store.stores SET user_id_path = '{passport,user}' WHERE store = 'sessions';
SELECT session_store.upsert('u', '{"passport": {"user": "berta"}}') > 0;
SELECT user_id FROM sessions WHERE sid = 'u';
SELECT session_store.upsert('u', '{"passport": {"user": "berta"}, "n": 1}', user_id => 'clara') > 0;
SELECT user_id FROM sessions WHERE sid = 'u';
SELECT session_store.upsert('u', '{"passport": {"user": "berta"}, "n": 2}', user_id => 'clara') > 0;
SELECT user_id FROM sessions WHERE sid = 'u';
SELECT session_store.upsert('u', '{"passport": {}}') > 0;
SELECT user_id FROM sessions WHERE sid = 'u';
SELECT session_store.upsert('u', '{"n": 3}', user_id => 'dora') > 0, session_store.upsert('u', '{"n": 4}') > 0;
SELECT user_id FROM sessions WHERE sid = 'u';
SELECT session_store.upsert('u2', '{"passport": {"user": 7}}') > 0;
SELECT user_id FROM sessions WHERE sid = 'u2';
UPDATE session_store.stores SET user_id_path = NULL WHERE store = 'sessions';

-- A payload that is stored out of line comes back whole, and equal ones are no change.
SELECT string_agg(md5(i::text), '') AS long FROM generate_series(1, 3000) i \gset
SELECT session_store.upsert('big', jsonb_build_object('x', :'long')) AS v \gset
SELECT session_store.get('big') = jsonb_build_object('x', :'long') AS whole;
SELECT session_store.upsert('big', jsonb_build_object('x', :'long')) = :v AS same;
SELECT length(session_store.get_and_touch('big')->>'x');
-- The same sid more than once in a statement, and triggers, checks and rules of the user's.
SELECT session_store.upsert('x', '{"n": 1}') > 0, session_store.upsert('x', '{"n": 2}') > 0, session_store.touch('x', ttl => '3 days');
SELECT session_store.upsert('x', '{"n": 3}') > 0, session_store.upsert('x', '{"n": 4}') > 0, session_store.expire('x'), session_store.upsert('x', '{"n": 5}');
SELECT session_store.get('x');
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% of %', TG_OP, NEW.sid; RETURN NEW; END $$;
CREATE TRIGGER note AFTER UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION note();
SELECT session_store.upsert('t', '{"n": 1}', expire => '2100-01-01') > 0, session_store.touch('t', expire => '2100-01-02');
DROP TRIGGER note ON sessions;
SELECT session_store.upsert('t', '{"n": 2}') > 0, session_store.touch('t', ttl => '9 days');
ALTER TABLE sessions ADD CONSTRAINT small CHECK (sess ->> 'n' <> '9');
\set VERBOSITY sqlstate
SELECT session_store.upsert('t', '{"n": 9}');
\set VERBOSITY default
ALTER TABLE sessions DROP CONSTRAINT small;
CREATE INDEX ON sessions ((sess ->> 'n'));
SELECT session_store.upsert('t', '{"n": "indexed"}') > 0;
SET enable_seqscan = off;
SELECT sid FROM sessions WHERE sess ->> 'n' = 'indexed';
RESET enable_seqscan;
BEGIN READ ONLY;
SELECT session_store.upsert('t', '{}');
ROLLBACK;
BEGIN READ ONLY;
SELECT session_store.touch('t', ttl => '20 days');
ROLLBACK;
DROP FUNCTION note();
SELECT session_store.drop_store('sessions', keep_table => false);
