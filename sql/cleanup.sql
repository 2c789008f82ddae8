-- CALL session_store.cleanup(): expired rows go in batches, and nothing else.
\set SHOW_CONTEXT never
SELECT session_store.create_store();
CREATE FUNCTION fill(prefix text, rows int, age interval) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO sessions (sid, sess, expire) SELECT prefix || i, '{}', now() - age FROM generate_series(1, rows) i $$;

-- Expired rows of every age go; live ones and those without an end stay.
SELECT fill('old', 25, '3 days'), fill('hour', 10, '61 minutes'), fill('just', 10, '1 second'), fill('live', 5, '-10 minutes');
SELECT session_store.upsert('forever', '{}', expire => 'infinity') > 0;
CALL session_store.cleanup();
SELECT count(*), count(*) FILTER (WHERE expire > now()) AS live FROM sessions;
SELECT store, cleaned_rows, last_cleanup > now() - interval '1 minute' AS just_now FROM session_store.status;
-- An expired session is no logout: its sid can be used again at once.
SELECT count(*) FROM session_store.tombstones;
SELECT session_store.upsert('just1', '{}') > 0;
SELECT session_store.destroy('just1');

-- Batches: a statement of its own for each, with its own transaction.
CREATE TABLE deletions (rows int, transaction xid8);
CREATE FUNCTION note_deletion() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.deletions SELECT count(*), pg_current_xact_id() FROM gone; RETURN NULL; END $$;
CREATE TRIGGER note_deletion AFTER DELETE ON sessions REFERENCING OLD TABLE AS gone
	FOR EACH STATEMENT EXECUTE FUNCTION note_deletion();
SELECT fill('old', 25, '3 days');
CALL session_store.cleanup(batch_size => 10, delay => '0');
SELECT array_agg(rows ORDER BY transaction) AS rows, count(DISTINCT transaction) AS transactions FROM deletions;
TRUNCATE deletions;
-- The oldest come first, and the time limit ends a run after the batch that it is in.
SELECT fill('hour', 10, '61 minutes'), fill('old', 10, '3 days');
CALL session_store.cleanup('sessions', batch_size => 10, max_duration => '1 millisecond');
SELECT DISTINCT left(sid, 4) FROM sessions WHERE expire < now();
CALL session_store.cleanup('sessions', 10, '1 minute', '1 millisecond');
SELECT array_agg(rows ORDER BY transaction) AS rows FROM deletions;
DROP TRIGGER note_deletion ON sessions;

-- The store's settings hold where nothing is given.
UPDATE session_store.stores SET cleanup_grace = '1 hour', cleanup_batch_size = 7, cleanup_delay = '0';
SELECT fill('old', 15, '3 days'), fill('just', 10, '1 second');
CALL session_store.cleanup();
SELECT count(*) FROM sessions WHERE expire < now();
UPDATE session_store.stores SET cleanup_grace = '0', cleanup_batch_size = 1000, cleanup_delay = '100 ms';
CALL session_store.cleanup();

-- Rows of a child table are not ours.
CREATE TABLE child () INHERITS (sessions);
INSERT INTO child (sid, sess, expire) VALUES ('child', '{}', now() - interval '1 day');
CALL session_store.cleanup();
SELECT count(*) FROM child;
DROP TABLE child;

-- A trigger that keeps every row does not keep cleanup busy.
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER a_keep BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION keep();
SELECT fill('old', 3, '1 day');
CALL session_store.cleanup(batch_size => 2, delay => '0');
DROP TRIGGER a_keep ON sessions;
-- A deferred foreign key is looked at within the batch.
CREATE TABLE details (sid text COLLATE "C" REFERENCES sessions DEFERRABLE INITIALLY DEFERRED);
INSERT INTO details VALUES ('old1');
CALL session_store.cleanup(batch_size => 1000, delay => '0');
SELECT count(*) FROM sessions WHERE sid LIKE 'old%';
DROP TABLE details;
CALL session_store.cleanup();

-- In a session of another isolation level, and from a procedure.
SET default_transaction_isolation = 'serializable';
SELECT fill('old', 3, '1 day');
CALL session_store.cleanup(delay => '0', batch_size => 2);
RESET default_transaction_isolation;
CREATE PROCEDURE from_procedure() LANGUAGE plpgsql AS
	$$ DECLARE removed bigint; BEGIN CALL session_store.cleanup(deleted => removed); RAISE NOTICE '% removed', removed; END $$;
SELECT fill('old', 3, '1 day');
CALL from_procedure();

-- Old tombstones go too.
UPDATE session_store.stores SET logout_guard = '1 microsecond';
SELECT session_store.upsert('out', '{}') > 0, session_store.expire('out');
CALL session_store.cleanup();
SELECT count(*) FROM session_store.tombstones;

-- Bad input.
CALL session_store.cleanup('nothing');
\echo :LAST_ERROR_SQLSTATE
CALL session_store.cleanup(NULL);
CALL session_store.cleanup(batch_size => 0);
\echo :LAST_ERROR_SQLSTATE
CALL session_store.cleanup(batch_size => 100001);
CALL session_store.cleanup(max_duration => '0');
CALL session_store.cleanup(max_duration => '-1 second');
CALL session_store.cleanup(delay => '-1 second');
CALL session_store.cleanup(delay => '178000000 years');
BEGIN;
CALL session_store.cleanup();
ROLLBACK;
-- The whole table is never read for want of the index.
DROP INDEX sessions_expire_bucket_idx;
CALL session_store.cleanup();
CREATE INDEX ON sessions (expire_bucket);
CALL session_store.cleanup();
-- Without a statement the oldest come first, too, whichever way the index is sorted.
DROP INDEX sessions_expire_bucket_idx;
CREATE INDEX ON sessions (expire_bucket DESC);
SELECT fill('hour', 5, '61 minutes'), fill('old', 5, '3 days');
CALL session_store.cleanup(batch_size => 5, max_duration => '1 millisecond');
SELECT DISTINCT left(sid, 4) FROM sessions WHERE expire < now();
SELECT fill('old', 5, '3 days');
CALL session_store.cleanup(batch_size => 2, delay => '0');

-- The owner alone.
CREATE ROLE regress_ss_cleaner;
CREATE ROLE regress_ss_client;
GRANT CREATE ON SCHEMA public TO regress_ss_cleaner;
SELECT session_store.grant_admin('regress_ss_cleaner'), session_store.grant_app('regress_ss_client');
SET ROLE regress_ss_cleaner;
CALL session_store.cleanup('sessions');
SELECT session_store.create_store('mine');
CALL session_store.cleanup('mine');
SET ROLE regress_ss_client;
CALL session_store.cleanup('sessions');
RESET ROLE;

-- What the owner put on the table runs with the owner's rights, whoever calls, and at once.
SET ROLE regress_ss_cleaner;
CREATE TABLE who (role name, restricted text);
CREATE FUNCTION who_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.who VALUES (current_user, current_setting('search_path'));
	BEGIN
		EXECUTE 'SET ROLE none';
	EXCEPTION WHEN insufficient_privilege THEN
		INSERT INTO public.who VALUES (current_user, 'set role: ' || SQLERRM);
	END;
	BEGIN
		EXECUTE 'CREATE TEMP TABLE trap ()';
	EXCEPTION WHEN insufficient_privilege THEN
		INSERT INTO public.who VALUES (current_user, 'temp: ' || SQLERRM);
	END;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER who_runs AFTER DELETE ON mine DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION who_runs();
INSERT INTO mine (sid, sess, expire) VALUES ('a', '{}', now() - interval '1 day');
RESET ROLE;
CALL session_store.cleanup('mine');
SELECT * FROM who;
-- Nor may it be put off again.
SET ROLE regress_ss_cleaner;
CREATE FUNCTION put_off() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN OLD; END $$;
CREATE TRIGGER a_put_off BEFORE DELETE ON mine FOR EACH ROW EXECUTE FUNCTION put_off();
INSERT INTO mine (sid, sess, expire) VALUES ('a', '{}', now() - interval '1 day');
RESET ROLE;
CALL session_store.cleanup('mine');
SELECT count(*) FROM mine;
SELECT current_user = session_user AS myself, current_setting('enable_seqscan') AS seqscan;

DROP FUNCTION put_off() CASCADE;
DROP FUNCTION who_runs() CASCADE;
DROP TABLE who, deletions;
DROP PROCEDURE from_procedure;
DROP FUNCTION fill, note_deletion, keep;
SELECT session_store.drop_store('mine', keep_table => false), session_store.drop_store('sessions', keep_table => false);
DROP OWNED BY regress_ss_cleaner, regress_ss_client;
DROP ROLE regress_ss_cleaner, regress_ss_client;
