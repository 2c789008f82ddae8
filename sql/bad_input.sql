-- Bad input: a class, a message that names the thing, a hint; and nothing changes. Both payload types.
SELECT session_store.create_store();
SELECT session_store.create_store('raw', 'bytea');
SELECT session_store.upsert('a', '{"n": 1}', expire => '2100-01-01') > 0, session_store.upsert_bytes('a', '\x01', expire => '2100-01-01', store => 'raw') > 0;
CREATE TABLE before_sessions AS TABLE sessions;
CREATE TABLE before_raw AS TABLE raw;
-- What may not change: rows, where they are, and tombstones.
CREATE FUNCTION state() RETURNS text LANGUAGE sql AS $$
	SELECT md5(concat((SELECT string_agg(concat(s.ctid, s.xmin, s), ';' ORDER BY sid) FROM sessions s),
		(SELECT string_agg(concat(r.ctid, r.xmin, r), ';' ORDER BY sid) FROM raw r), (SELECT count(*) FROM session_store.tombstones)))
$$;
CREATE TABLE changes (call text);
-- Runs a call and says how it failed; and what did not leave everything as it was.
CREATE FUNCTION attempt(call text, OUT error text, OUT message text, OUT detail text, OUT hint text) LANGUAGE plpgsql AS $$
DECLARE
	before text := state();
BEGIN
	BEGIN
		EXECUTE 'SELECT session_store.' || call;
		message := 'no error';
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS error = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	END;
	-- The backend goes on as before, too.
	IF (state(), session_store.get('a'), session_store.get_bytes('a', 'raw'), session_store.touch('a', expire => '2100-01-01'))
		IS DISTINCT FROM (before, jsonb '{"n": 1}', bytea '\x01', true) THEN
		INSERT INTO changes VALUES (call);
	END IF;
END $$;
CREATE TABLE calls (n int GENERATED ALWAYS AS IDENTITY, call text);
-- Every function with %s for its sid and rest, on each store.
CREATE TABLE functions (name text, call text, store name);
INSERT INTO functions VALUES
	('upsert', $$upsert(%1$s, '{}'%2$s)$$, 'sessions'),
	('upsert_bytes', $$upsert_bytes(%1$s, '\x01'%2$s)$$, 'raw'),
	('get', $$get(%1$s%2$s)$$, 'sessions'),
	('get_bytes', $$get_bytes(%1$s%2$s)$$, 'raw'),
	('get_versioned', $$get_versioned(%1$s%2$s)$$, 'sessions'),
	('get_and_touch', $$get_and_touch(%1$s%2$s)$$, 'sessions'),
	('get_bytes_and_touch', $$get_bytes_and_touch(%1$s%2$s)$$, 'raw'),
	('get_many', $$get_many(ARRAY[%1$s]%2$s)$$, 'sessions'),
	('get_many_bytes', $$get_many_bytes(ARRAY[%1$s]%2$s)$$, 'raw'),
	('merge', $$merge(%1$s, '{}'%2$s)$$, 'sessions'),
	('touch', $$touch(%1$s%2$s)$$, 'sessions'),
	('touch', $$touch(%1$s%2$s)$$, 'raw'),
	('expire', $$expire(%1$s%2$s)$$, 'sessions'),
	('expire', $$expire(%1$s%2$s)$$, 'raw'),
	('destroy', $$destroy(%1$s%2$s)$$, 'sessions'),
	('destroy', $$destroy(%1$s%2$s)$$, 'raw');
-- A sid that is NULL, empty, too long; a store that is NULL or unknown; a payload of the other type.
INSERT INTO calls (call)
	SELECT format(call, sid, format(', store => %L', store)) FROM functions, unnest(ARRAY['NULL', '''''', 'repeat(''x'', 256)', 'repeat(''ü'', 256)']) sid;
INSERT INTO calls (call)
	SELECT format(call, '''a''', ', store => ' || bad) FROM functions, unnest(ARRAY['NULL', '''nowhere''']) bad;
INSERT INTO calls (call)
	SELECT format(call, '''a''', format(', store => %L', CASE store WHEN 'raw' THEN 'sessions' ELSE 'raw' END)) FROM functions
	WHERE name NOT IN ('touch', 'expire', 'destroy', 'get_bytes');
-- Times.
INSERT INTO calls (call)
	SELECT format(call, '''a''', format(', store => %L, ', store) || bad) FROM functions, unnest(ARRAY[
		$$ttl => '1 h', expire => '2100-01-01'$$, $$ttl => '0'$$, $$ttl => '-1 s'$$, $$ttl => '178000000 years'$$, $$ttl => '299000 years'$$]) bad
	WHERE name IN ('upsert', 'upsert_bytes', 'merge', 'touch', 'get_and_touch', 'get_bytes_and_touch');
-- The rest.
INSERT INTO calls (call) VALUES ($$get_many(NULL)$$), ($$merge('a', NULL)$$), ($$expire_user(NULL)$$), ($$expire_user('u', '')$$),
	($$expire_user('u', store => 'nowhere')$$), ($$expire_user('u', store => NULL)$$), ($$user_sessions(NULL)$$), ($$user_sessions('u', 'raw')$$),
	($$user_sessions_bytes('u')$$), ($$user_sessions('u', 'nowhere')$$), ($$routing('nowhere')$$), ($$routing(NULL)$$);
INSERT INTO calls (call) VALUES ($$upsert('a', NULL)$$), ($$upsert_bytes('a', NULL, store => 'raw')$$);
SELECT call, (attempt(call)).* FROM calls ORDER BY n;
-- As psql shows one of them.
SELECT session_store.get('a', 'nowhere');
SELECT session_store.touch(repeat('x', 300));
-- Nothing changed, by none of them.
TABLE changes;
SELECT count(*) FROM (TABLE sessions EXCEPT TABLE before_sessions) d;
SELECT count(*) FROM (TABLE raw EXCEPT TABLE before_raw) d;
SELECT count(*) FROM sessions, raw;
-- 255 characters are allowed, whatever their bytes.
SELECT session_store.upsert(repeat('ü', 255), '{}') > 0, session_store.get(repeat('ü', 255));
DROP FUNCTION attempt, state;
DROP TABLE calls, functions, changes, before_sessions, before_raw;
SELECT session_store.drop_store('sessions', false), session_store.drop_store('raw', false);
