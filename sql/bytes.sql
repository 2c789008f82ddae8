-- A bytea store: any serializer's bytes.
SELECT session_store.create_store('raw', 'bytea');
SELECT session_store.upsert_bytes('a', '\x00ff8004950a', store => 'raw') AS v \gset
SELECT session_store.get_bytes('a', 'raw');
SELECT session_store.get_bytes_and_touch('a', store => 'raw');
SELECT session_store.upsert_bytes('a', '\x00ff8004950a', store => 'raw') = :v AS same;
SELECT session_store.upsert_bytes('a', '\x', expected_version => :v, store => 'raw') = :v + 1;
SELECT session_store.get_bytes('a', 'raw'), session_store.get_bytes('nobody', 'raw');
SELECT session_store.touch('a', ttl => '1 hour', store => 'raw');
SELECT session_store.expire('a', 'raw'), session_store.upsert_bytes('a', '\x01', store => 'raw');
SELECT session_store.destroy('a', 'raw'), session_store.upsert_bytes('a', '\x01', store => 'raw') > 0;
-- get_bytes reads a jsonb store too.
SELECT session_store.create_store();
SELECT session_store.upsert('a', '{"n": "ü"}') > 0;
SELECT convert_from(session_store.get_bytes('a'), 'UTF8');
SELECT session_store.drop_store('raw', false), session_store.drop_store('sessions', false);
