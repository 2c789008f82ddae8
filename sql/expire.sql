-- expire: a logout sticks for logout_guard, whoever writes late.
SELECT session_store.create_store();
SELECT session_store.upsert('a', '{"n": 1}') > 0;
SELECT session_store.expire('a'), session_store.expire('a'), session_store.expire('nobody');
SELECT session_store.get('a'), (SELECT count(*) FROM sessions);
-- The late save of a request that was under way.
SELECT session_store.upsert('a', '{"n": 2}');
SELECT session_store.upsert('a', '{"n": 2}', expected_version => 0);
SELECT session_store.touch('a');
INSERT INTO sessions (sid, sess, expire) VALUES ('a', '{"n": 3}', 'infinity') RETURNING sid;
SELECT count(*) FROM sessions;
-- The guard off, and on again.
UPDATE session_store.stores SET logout_guard = '0' WHERE store = 'sessions';
SELECT session_store.upsert('a', '{"n": 4}') > 0;
SELECT session_store.expire('a');
SELECT session_store.upsert('a', '{"n": 5}') > 0;
UPDATE session_store.stores SET logout_guard = '1 minute' WHERE store = 'sessions';
-- Logging out once more after the guard has passed.
UPDATE session_store.tombstones SET ended_at = '2000-01-01';
SELECT session_store.expire('a');
SELECT session_store.upsert('a', '{"n": 6}');
-- The end of a session in one transaction.
BEGIN;
SELECT session_store.upsert('b', '{}') > 0;
SELECT session_store.expire('b');
SELECT session_store.upsert('b', '{}');
COMMIT;
SELECT session_store.get('b');
BEGIN;
SELECT session_store.upsert('c', '{}') > 0;
SAVEPOINT s;
SELECT session_store.expire('c');
ROLLBACK TO s;
SELECT session_store.upsert('c', '{"n": 1}') > 0;
COMMIT;
SELECT session_store.get('c');
-- An expired session cannot be logged out, and leaves no tombstone.
SELECT session_store.upsert('d', '{}', expire => '2000-01-01') > 0;
SELECT session_store.expire('d');
DELETE FROM sessions WHERE sid = 'd';
SELECT session_store.upsert('d', '{}') > 0;
-- No sid is shown.
SELECT count(*) FROM session_store.tombstones;
SELECT session_store.drop_store('sessions', keep_table => false);
SELECT count(*) FROM session_store.tombstones;
