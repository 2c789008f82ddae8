-- Many sessions at once, and the sessions of a user.
SELECT session_store.create_store();
SELECT session_store.create_store('raw', 'bytea');
SELECT count(session_store.upsert('s' || i, jsonb_build_object('n', i), user_id => CASE WHEN i <= 3 THEN 'anna' ELSE 'berta' END)) FROM generate_series(1, 5) i;
SELECT count(session_store.upsert_bytes('s' || i, '\x01', user_id => 'anna', store => 'raw')) FROM generate_series(1, 2) i;
UPDATE sessions SET expire = '2000-01-01' WHERE sid = 's2';
SELECT sid, sess, expire > now() AS live, version > 0 AS version FROM session_store.get_many(ARRAY['s3', 's1', 's2', 'nobody', 's3']);
SELECT sid, sess FROM session_store.get_many_bytes(ARRAY['s2', 's1'], 'raw');
SELECT count(*) FROM session_store.get_many('{}');
SELECT sid, sess, updated_at >= created_at AS times, expire > now() AS live FROM session_store.user_sessions('anna');
SELECT sid, sess FROM session_store.user_sessions_bytes('anna', 'raw');
SELECT count(*) FROM session_store.user_sessions('nobody');
-- Log out everywhere, but here.
SELECT session_store.expire_user('anna', keep_sid => 's1');
SELECT session_store.upsert('s6', '{}', user_id => 'anna') > 0;
SELECT session_store.expire_user('anna', 's1');
SELECT sid FROM session_store.user_sessions('anna');
SELECT session_store.upsert('s3', '{}') AS late, session_store.upsert('s2', '{}') > 0 AS was_expired;
SELECT session_store.expire_user('anna'), session_store.expire_user('anna'), session_store.expire_user('anna', store => 'raw');
SELECT sid FROM sessions ORDER BY sid;
SELECT phase, rollout_percent, changed_at <= now() FROM session_store.routing();
SELECT session_store.drop_store('sessions', false), session_store.drop_store('raw', false);
