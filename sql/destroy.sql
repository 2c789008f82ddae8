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
-- A session function within the trigger of another one's statement leaves that as it is.
CREATE FUNCTION nested() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM session_store.destroy(OLD.sid || '-child');
	BEGIN
		PERFORM session_store.upsert(OLD.sid || '-child', '{}') / 0;
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
	RETURN OLD;
END $$;
CREATE TRIGGER a_first BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION nested();
SELECT session_store.upsert('p', '{}') > 0, session_store.upsert('p-child', '{}') > 0;
SELECT session_store.destroy('p');
SELECT sid FROM sessions;
SELECT count(*) FROM session_store.tombstones;
SELECT session_store.upsert('p', '{}') > 0, session_store.expire('p'), session_store.upsert('p', '{}');
DROP TRIGGER a_first ON sessions;
DROP FUNCTION nested();
SELECT session_store.drop_store('sessions', keep_table => false);
