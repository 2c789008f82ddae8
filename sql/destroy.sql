-- destroy: removes a session and its tombstone, so that the sid can be used at once.
SELECT session_store.create_store();
SELECT session_store.upsert('a', '{"n": 1}') AS v \gset
SELECT session_store.destroy('a'), session_store.destroy('a'), session_store.destroy('nobody');
SELECT session_store.upsert('a', '{"n": 2}') > :v AS newer;
SELECT session_store.expire('a');
SELECT session_store.upsert('a', '{"n": 3}');
SELECT session_store.destroy('a');
SELECT session_store.upsert('a', '{"n": 4}') > :v AS newer;
UPDATE sessions SET expire = '2000-01-01';
SELECT session_store.destroy('a');
SELECT count(*) FROM sessions;
SELECT session_store.drop_store('sessions', keep_table => false);
