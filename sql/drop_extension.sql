-- DROP EXTENSION leaves the tables, their rows and their defaults.
SELECT session_store.create_store();
SELECT session_store.upsert('a', '{"n": 1}', expire => 'infinity') > 0;
DROP EXTENSION session_store;
SELECT sid, sess, expire FROM sessions;
INSERT INTO sessions (sid, sess, expire) VALUES ('b', '{}', '2100-01-01 00:20+00') RETURNING version > 0 AS version, expire_bucket AT TIME ZONE 'UTC' AS bucket;
UPDATE sessions SET sess = '{"n": 2}' WHERE sid = 'b';
DELETE FROM sessions WHERE sid = 'a';
\d sessions
DROP TABLE sessions;
CREATE EXTENSION session_store;
SELECT session_store.create_store();
SELECT session_store.get('a');
SELECT session_store.drop_store('sessions', false);
