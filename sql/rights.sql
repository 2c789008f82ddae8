-- Rights: what grant_admin and grant_app give, and what nobody gets.
CREATE ROLE regress_ss_owner;
CREATE ROLE regress_ss_other;
CREATE ROLE regress_ss_app;
CREATE ROLE regress_ss_stranger;
CREATE SCHEMA web AUTHORIZATION regress_ss_owner;
SELECT session_store.grant_admin('regress_ss_owner'), session_store.grant_admin('regress_ss_other');
SELECT session_store.grant_admin('nobody_at_all');
GRANT CREATE ON SCHEMA public TO regress_ss_owner, regress_ss_other;

SET ROLE regress_ss_owner;
SET search_path = web;
SELECT session_store.create_store();
SELECT tableowner FROM pg_tables WHERE tablename = 'sessions';
SELECT session_store.upsert('a', '{}') > 0;
SELECT session_store.grant_admin('regress_ss_app');
SELECT session_store.grant_app('regress_ss_app');
SELECT session_store.grant_app('nobody_at_all');
SET ROLE regress_ss_other;
SET search_path = public;
SELECT session_store.create_store('others');

-- Each sees its own stores only, and changes those only.
SELECT store FROM session_store.stores;
UPDATE session_store.stores SET default_ttl = '1 s' WHERE store = 'sessions';
UPDATE session_store.stores SET relation = 'pg_class' WHERE store = 'others';
UPDATE session_store.stores SET store = 'mine' WHERE store = 'others';
UPDATE session_store.stores SET default_ttl = '2 days', relation = relation WHERE store = 'others';
UPDATE session_store.stores SET phase = 'redis_only';
INSERT INTO session_store.stores (store, relation, payload) VALUES ('mine', 'others', 'jsonb');
DELETE FROM session_store.stores;
SELECT * FROM session_store.registry;
UPDATE session_store.registry SET default_ttl = '1 s';
SELECT session_store.drop_store('sessions');
SELECT session_store.grant_app('regress_ss_other', 'sessions');
SELECT session_store.get('a'), session_store.upsert('a', '{}');
SELECT session_store.upsert('b', '{}');
SELECT session_store.touch('a');
SELECT session_store.expire('a');
SELECT session_store.destroy('a');
-- A function in the view's condition sees no row of another owner.
CREATE FUNCTION leak(name) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
	$$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$;
SELECT store FROM session_store.stores WHERE leak(store);
DROP FUNCTION leak;

-- The application uses its store, and manages nothing.
SET ROLE regress_ss_app;
SELECT session_store.upsert('a', '{"n": 1}') > 0, session_store.get('a');
SELECT session_store.touch('a', ttl => '2 days'), session_store.get_and_touch('a');
SELECT session_store.expire('a'), session_store.upsert('a', '{}'), session_store.destroy('a');
SELECT session_store.upsert('a', '{}') > 0;
SELECT session_store.get('a', 'others');
SELECT session_store.create_store('mine');
SELECT session_store.drop_store('sessions');
SELECT * FROM session_store.stores;
SELECT * FROM session_store.tombstones;
DELETE FROM session_store.tombstones;

-- Revoked rights are obeyed at once.
RESET ROLE;
REVOKE SELECT ON web.sessions FROM regress_ss_app;
SET ROLE regress_ss_app;
SELECT session_store.get('a');
RESET ROLE;
GRANT SELECT ON web.sessions TO regress_ss_app;
REVOKE UPDATE, DELETE ON web.sessions FROM regress_ss_app;
SET ROLE regress_ss_app;
SELECT session_store.get('a'), session_store.touch('a', ttl => '2 days');
SELECT session_store.touch('a', ttl => '3 days');
SELECT session_store.expire('a');
RESET ROLE;
GRANT UPDATE, DELETE ON web.sessions TO regress_ss_app;

-- Row-level security is never bypassed.
ALTER TABLE web.sessions ENABLE ROW LEVEL SECURITY;
SET ROLE regress_ss_app;
SELECT session_store.get('a');
SELECT session_store.touch('a');
SELECT session_store.upsert('a', '{}');
SELECT session_store.expire('a');
SET ROLE regress_ss_owner;
SELECT session_store.get('a');
RESET ROLE;
ALTER TABLE web.sessions DISABLE ROW LEVEL SECURITY;

-- Somebody without any grant.
SET ROLE regress_ss_stranger;
SELECT session_store.get('a');
SELECT * FROM session_store.stores;
RESET ROLE;
RESET search_path;

SELECT session_store.drop_store('sessions', false), session_store.drop_store('others', false);
DROP SCHEMA web;
REVOKE CREATE ON SCHEMA public FROM regress_ss_owner, regress_ss_other;
DROP OWNED BY regress_ss_owner, regress_ss_other, regress_ss_app;
DROP ROLE regress_ss_owner, regress_ss_other, regress_ss_app, regress_ss_stranger;
