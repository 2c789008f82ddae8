-- touch: extends a live session, and writes only when it must.
SELECT session_store.create_store();
CREATE FUNCTION seconds_left(name text) RETURNS text LANGUAGE sql AS
	$$ SELECT coalesce(round(extract(epoch FROM expire - clock_timestamp()) / 5) * 5, NULL)::text FROM sessions WHERE sid = name $$;
SELECT session_store.upsert('a', '{"n": 1}', ttl => '10 minutes') AS v \gset
SELECT tableoid || ' ' || ctid AS at FROM sessions WHERE sid = 'a' \gset

-- Asked later than expire: written, and a minute more, so that the next touches need not.
SELECT session_store.touch('a', ttl => '20 minutes'), seconds_left('a');
SELECT tableoid || ' ' || ctid <> :'at' AS written FROM sessions WHERE sid = 'a';
SELECT tableoid || ' ' || ctid AS at FROM sessions WHERE sid = 'a' \gset
SELECT session_store.touch('a', ttl => '20 minutes'), session_store.touch('a', ttl => '20 minutes 30 seconds');
SELECT session_store.get_and_touch('a', ttl => '20 minutes');
SELECT tableoid || ' ' || ctid = :'at' AS unwritten FROM sessions WHERE sid = 'a';
-- Asked earlier by more than a minute: a shortening, written exactly.
SELECT session_store.touch('a', ttl => '5 minutes'), seconds_left('a');
-- An absolute expire is written exactly, and not again.
SELECT session_store.touch('a', expire => '2100-01-01 00:00:00+00');
SELECT expire AT TIME ZONE 'UTC' FROM sessions;
SELECT tableoid || ' ' || ctid AS at FROM sessions WHERE sid = 'a' \gset
SELECT session_store.touch('a', expire => '2100-01-01 00:00:00+00');
SELECT tableoid || ' ' || ctid = :'at' AS unwritten FROM sessions WHERE sid = 'a';
SELECT session_store.touch('a', expire => 'infinity');
SELECT expire FROM sessions;
-- The default ttl.
SELECT session_store.touch('a');
SELECT seconds_left('a');
-- A touch is no change of the payload.
SELECT version = :v AS same_version, updated_at > created_at AS updated FROM sessions;

-- touch_granularity 0: every touch writes what was asked.
UPDATE session_store.stores SET touch_granularity = '0' WHERE store = 'sessions';
SELECT session_store.touch('a', ttl => '1 hour');
SELECT seconds_left('a');

-- Not live: false, nothing written, nothing revived.
SELECT session_store.touch('nobody'), session_store.get_and_touch('nobody');
SELECT session_store.touch('a', expire => '2000-01-01');
SELECT session_store.touch('a'), session_store.get_and_touch('a'), session_store.get('a');
SELECT count(*) FROM sessions WHERE expire > now();

-- Touches are HOT within the hour of the bucket.
SELECT session_store.drop_store('sessions', false), session_store.create_store();
INSERT INTO sessions (sid, sess, expire) SELECT i, '{}', '2100-01-01 00:00+00' FROM generate_series(1, 10) i;
SELECT pg_stat_force_next_flush();
SELECT count(session_store.touch(i::text, expire => '2100-01-01 00:30+00')) FROM generate_series(1, 10) i;
SELECT pg_stat_force_next_flush();
SELECT sum(n_tup_upd - n_tup_hot_upd) AS not_hot, sum(n_tup_hot_upd) >= 10 AS hot FROM pg_stat_user_tables WHERE relid IN (SELECT 'sessions'::regclass UNION SELECT relid FROM pg_partition_tree('sessions'));
DROP FUNCTION seconds_left;
SELECT session_store.drop_store('sessions', keep_table => false);
