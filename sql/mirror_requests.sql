-- wait_for_mirror and resync: who may ask, and what is said where no mirror runs.
-- In the one database of these tests where workers run: elsewhere their cleanup would come between two statements.
\c postgres
CREATE EXTENSION session_store;
SELECT session_store.create_store();
CREATE ROLE regress_ss_other;
SELECT session_store.grant_admin('regress_ss_other');

SELECT session_store.wait_for_mirror('sessions');
SELECT session_store.resync('sessions');
SELECT session_store.wait_for_mirror('nowhere');
SELECT session_store.resync('nowhere');
SELECT session_store.wait_for_mirror(NULL);
SELECT session_store.wait_for_mirror('sessions', NULL);
SELECT session_store.wait_for_mirror('sessions', '-1 s');
SELECT session_store.resync(NULL);
SELECT session_store.resync('sessions', NULL);
SELECT session_store.resync('sessions', refill_redis => NULL);
SET ROLE regress_ss_other;
SELECT session_store.wait_for_mirror('sessions');
SELECT session_store.resync('sessions');
RESET ROLE;

-- In a dual phase, while no Redis answers.
CREATE SERVER requests_redis FOREIGN DATA WRAPPER session_store_redis OPTIONS (host 'localhost', port '1');
UPDATE session_store.stores SET redis_server = 'requests_redis';
SELECT session_store.set_phase('sessions', 'dual_redis_primary');
SELECT session_store.wait_for_mirror('sessions', '0');
SELECT session_store.resync('sessions', allow_mass_delete => true);
-- A copy of the database is another one.
UPDATE session_store.registry SET bound_system = bound_system + 1;
SELECT session_store.wait_for_mirror('sessions');
SELECT session_store.resync('sessions', refill_redis => true);

SELECT session_store.drop_store('sessions', keep_table => false);
DROP SERVER requests_redis;
DROP OWNED BY regress_ss_other;
DROP ROLE regress_ss_other;
DROP EXTENSION session_store;
