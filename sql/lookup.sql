-- Finding a sid by its index, whatever the index looks like.
SELECT session_store.create_store();
-- An empty index.
SELECT session_store.get('a'), session_store.touch('a');
-- Sids of all lengths, neighbours of each other, some long enough to be compressed in the index.
CREATE TEMP TABLE sids AS
	SELECT md5(i::text) AS sid FROM generate_series(1, 5000) i
	UNION SELECT left(repeat(chr(96 + i % 26), 255), 1 + i % 255) FROM generate_series(1, 600) i
	UNION SELECT repeat('ü', 250) || i FROM generate_series(1, 300) i
	UNION SELECT repeat(md5(i::text), 7) || i FROM generate_series(1, 300) i;
SELECT count(session_store.upsert(sid, jsonb_build_object('sid', sid))) = (SELECT count(*) FROM sids) FROM sids;
SELECT count(*) FROM sids WHERE session_store.get(sid) ->> 'sid' IS DISTINCT FROM sid;
SELECT count(session_store.get(sid || 'x')) - (SELECT count(*) FROM sids a JOIN sids b ON a.sid = b.sid || 'x') FROM sids WHERE length(sid) < 255;
SELECT count(*) FROM session_store.get_many((SELECT array_agg(sid) FROM sids)) m JOIN sids USING (sid) WHERE m.sess ->> 'sid' = sid;
-- Holes, and pages of them.
SELECT count(*) FROM sids WHERE sid > '4' AND sid < 'a' AND NOT session_store.destroy(sid);
SELECT count(*) FROM sids WHERE session_store.get(sid) IS NULL <> (sid > '4' AND sid < 'a');
VACUUM sessions;
SELECT count(*) FROM sids WHERE session_store.get(sid) IS NULL <> (sid > '4' AND sid < 'a');
-- Many entries of one sid: each new user is one, and all are kept while they may be seen.
BEGIN;
DO $$
BEGIN
	FOR i IN 1..400 LOOP
		PERFORM session_store.upsert('many', jsonb_build_object('i', i, 'pad', repeat(md5(i::text), 20)), user_id => 'u' || i);
		IF session_store.get('many') ->> 'i' IS DISTINCT FROM i::text OR session_store.get('man') IS NOT NULL OR session_store.get('manz') IS NOT NULL THEN
			RAISE 'lost at %', i;
		END IF;
	END LOOP;
END $$;
COMMIT;
SELECT session_store.get('many') ->> 'i', session_store.get_and_touch('many') ->> 'i', session_store.touch('many'), session_store.get('manz');
SELECT session_store.expire('many');
SELECT session_store.get('many'), session_store.touch('many');
-- A reader with a snapshot sees the row of its time.
SELECT session_store.upsert('old', '{"n": 0}') > 0;
BEGIN ISOLATION LEVEL REPEATABLE READ;
DECLARE c CURSOR FOR SELECT session_store.get('old') FROM generate_series(1, 2);
DO $$ BEGIN FOR i IN 1..20 LOOP PERFORM session_store.upsert('old', jsonb_build_object('n', i), user_id => i::text); END LOOP; END $$;
FETCH 1 FROM c;
SELECT session_store.get('old');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT session_store.get('old'), session_store.get('older'), (SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock' AND relation = 'sessions_pkey'::regclass) > 0 AS locks_the_gap;
COMMIT;
SELECT session_store.drop_store('sessions', false);
