-- Direct writers: connect-pg-simple's statements, and what plain SQL may do.
SELECT session_store.create_store('session');
UPDATE session_store.stores SET user_id_path = '{passport,user}' WHERE store = 'session';
PREPARE save AS INSERT INTO "session" (sess, expire, sid) SELECT $1, to_timestamp($2), $3 ON CONFLICT (sid) DO UPDATE SET sess=$1, expire=to_timestamp($2) RETURNING sid;
PREPARE load AS SELECT sess FROM "session" WHERE sid = $1 AND expire >= to_timestamp($2);
PREPARE touch AS UPDATE "session" SET expire = to_timestamp($1) WHERE sid = $2 RETURNING sid;
PREPARE destroy AS DELETE FROM "session" WHERE sid = $1;
PREPARE prune AS DELETE FROM "session" WHERE expire < to_timestamp($1);
EXECUTE save('{"cookie": {}, "n": 1}', 4102444800, 'dJet3mWb');
SELECT version AS v, updated_at AS u FROM session \gset
EXECUTE load('dJet3mWb', 1795306626);
EXECUTE save('{"cookie": {}, "passport": {"user": "anna"}, "n": 2}', 4102444800, 'dJet3mWb');
SELECT version - :v AS grown, updated_at > :'u' AS updated, user_id FROM session;
EXECUTE touch(4102444900, 'dJet3mWb');
SELECT version - :v AS grown, expire AT TIME ZONE 'UTC' FROM session;
EXECUTE destroy('dJet3mWb');
-- The late save is dropped without an error.
EXECUTE save('{"n": 3}', 4102444800, 'dJet3mWb');
EXECUTE load('dJet3mWb', 1795306626);
SELECT count(*) FROM session;
-- Pruning is no logout.
EXECUTE save('{"n": 1}', 946684800, 'old');
EXECUTE prune(1795306626);
EXECUTE save('{"n": 2}', 4102444800, 'old');
SELECT session_store.get('old', 'session');
-- Many rows in one statement, COPY, and a session's own version of things is not believed.
INSERT INTO session (sid, sess, expire) SELECT 'm' || i, '{}', 'infinity' FROM generate_series(1, 50) i;
UPDATE session SET version = 1, updated_at = '2000-01-01' WHERE sid = 'm1';
SELECT version > 1000000, updated_at > '2020-01-01' FROM session WHERE sid = 'm1';
DELETE FROM session WHERE sid LIKE 'm%';
INSERT INTO session (sid, sess, expire) SELECT 'm' || i, '{}', 'infinity' FROM generate_series(1, 60) i;
SELECT count(*) FROM session WHERE sid LIKE 'm%';
COPY session (sid, sess, expire) FROM stdin;
copied	{"n": 1}	2100-01-01 00:00:00+00
\.
SELECT session_store.get('copied', 'session');
-- Constraints of the table.
\set VERBOSITY terse
INSERT INTO session (sid, sess, expire) VALUES ('', '{}', 'infinity');
INSERT INTO session (sid, sess, expire) VALUES (repeat('x', 256), '{}', 'infinity');
INSERT INTO session (sid, sess, expire) VALUES ('n', NULL, 'infinity');
UPDATE session SET sess = NULL WHERE sid = 'copied';
UPDATE session SET sid = 'renamed' WHERE sid = 'copied';
\set VERBOSITY default
-- The trigger is for tables of stores only.
CREATE TABLE other (sid text, sess jsonb);
CREATE TRIGGER t BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION session_store.row_trigger();
INSERT INTO other VALUES ('a', '{}');
DROP TABLE other;
DEALLOCATE ALL;
SELECT session_store.drop_store('session', false);
