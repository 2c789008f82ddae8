-- Servers and user mappings of session_store_redis, and the phases of a store.
-- In the one database of these tests where workers run: elsewhere their cleanup would come between two statements.
\c postgres
CREATE EXTENSION session_store;
\set SHOW_CONTEXT never
CREATE ROLE regress_ss_redis;
CREATE ROLE regress_ss_reader IN ROLE pg_read_server_files;
SELECT session_store.grant_admin('regress_ss_redis');
GRANT USAGE ON FOREIGN DATA WRAPPER session_store_redis TO regress_ss_reader;
CREATE SCHEMA redis_test AUTHORIZATION regress_ss_redis;
SET search_path = redis_test;

-- Options are checked when they are written.
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (hots 'localhost');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (password 'x');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (host '');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (port '0');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (port '65536');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (port '63 79');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (port '0x17');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (database '-1');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (database '99999999999');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (tls 'perhaps');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (connect_timeout '0');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (connect_timeout '5 parsecs');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (command_timeout '1h');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (path 'redis.sock');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '/r.sock', host 'localhost');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '/r.sock', port '1');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '/r.sock', tls 'on');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (tls_ca_file '/ca.pem');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (tls 'on', tls_cert_file '/c.pem');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (tls 'on', tls_ca_file 'ca.pem');
CREATE SERVER all_options FOREIGN DATA WRAPPER session_store_redis OPTIONS (host 'h', port '6380',
	database '15', tls 'true', tls_ca_file '/ca.pem', tls_cert_file '/c.pem', tls_key_file '/k.pem',
	connect_timeout '500', command_timeout '5s');
ALTER SERVER all_options OPTIONS (SET port 'x');
ALTER SERVER all_options OPTIONS (DROP tls);
CREATE SERVER socket FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '/nonexistent/redis.sock');
CREATE FOREIGN TABLE t (a integer) SERVER all_options;
ALTER FOREIGN DATA WRAPPER session_store_redis OPTIONS (ADD host 'h');

-- What is refused of a user mapping shows no password.
CREATE USER MAPPING FOR CURRENT_USER SERVER all_options OPTIONS (passwort 'secret-1');
CREATE USER MAPPING FOR CURRENT_USER SERVER all_options OPTIONS (password 'secret-2', host 'h');
CREATE USER MAPPING FOR CURRENT_USER SERVER all_options OPTIONS (password 'secret-3', password_file '/f');
CREATE USER MAPPING FOR CURRENT_USER SERVER all_options OPTIONS (password '');
CREATE USER MAPPING FOR CURRENT_USER SERVER all_options OPTIONS (password_file 'f');
CREATE USER MAPPING FOR CURRENT_USER SERVER all_options OPTIONS (username 'u', password 'secret-4');
ALTER USER MAPPING FOR CURRENT_USER SERVER all_options OPTIONS (ADD password_file '/f');

-- Files of the server are for those who may read them.
SET ROLE regress_ss_redis;
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '/r.sock');
CREATE SERVER s FOREIGN DATA WRAPPER session_store_redis OPTIONS (tls 'on', tls_ca_file '/etc/passwd');
CREATE SERVER own FOREIGN DATA WRAPPER session_store_redis OPTIONS (host 'localhost', port '1');
ALTER SERVER own OPTIONS (DROP host, DROP port, ADD path '/r.sock');
CREATE USER MAPPING FOR CURRENT_USER SERVER own OPTIONS (password_file '/etc/passwd');
CREATE USER MAPPING FOR CURRENT_USER SERVER own OPTIONS (password 'secret-5');
SET ROLE regress_ss_reader;
CREATE SERVER reader FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '/r.sock');
RESET ROLE;
DROP SERVER reader;

-- A store names a server that its owner may use.
CREATE FOREIGN DATA WRAPPER regress_ss_wrapper;
CREATE SERVER stranger FOREIGN DATA WRAPPER regress_ss_wrapper;
GRANT USAGE ON FOREIGN SERVER stranger TO regress_ss_redis;
SET ROLE regress_ss_redis;
SELECT session_store.create_store('first'), session_store.create_store('second');
UPDATE session_store.stores SET redis_server = 'missing' WHERE store = 'first';
UPDATE session_store.stores SET redis_server = 'stranger' WHERE store = 'first';
UPDATE session_store.stores SET redis_server = 'socket' WHERE store = 'first';
SELECT session_store.set_phase('first', 'dual_redis_primary');
UPDATE session_store.stores SET redis_server = 'own' WHERE store = 'first';

-- Two stores on one Redis have prefixes of which none begins with the other.
UPDATE session_store.stores SET redis_server = 'own' WHERE store = 'second';
UPDATE session_store.stores SET redis_server = 'own', redis_prefix = 'sess:2:' WHERE store = 'second';
UPDATE session_store.stores SET redis_server = 'own', redis_prefix = '' WHERE store = 'second';
CREATE SERVER twin FOREIGN DATA WRAPPER session_store_redis OPTIONS (host 'LOCALHOST', port '1', database '0');
UPDATE session_store.stores SET redis_server = 'twin' WHERE store = 'second';
CREATE SERVER neighbour FOREIGN DATA WRAPPER session_store_redis OPTIONS (host 'localhost', port '1', database '1');
UPDATE session_store.stores SET redis_server = 'neighbour' WHERE store = 'second';
UPDATE session_store.stores SET redis_server = 'own', redis_prefix = 'other:' WHERE store = 'second';

-- Phases.
SELECT session_store.set_phase('missing', 'pg_only');
SELECT session_store.set_phase('first', 'dual');
SELECT session_store.set_phase('first', NULL);
SELECT session_store.set_phase(NULL, 'pg_only');
SELECT session_store.set_phase('first', 'pg_only', force => NULL);
SELECT session_store.set_phase('first', 'dual_pg_primary');
SELECT session_store.set_phase('first', 'dual_redis_primary', 10);
SELECT session_store.set_phase('first', 'dual_redis_primary', 101);
SELECT session_store.upsert('a', '{}', store => 'first') > 0;
SELECT session_store.set_phase('first', 'redis_only');
SELECT session_store.set_phase('first', 'redis_only', force => true);
SELECT session_store.set_phase('first', 'dual_redis_primary');
SELECT session_store.set_phase('first', 'pg_only');
SELECT session_store.set_phase('second', 'redis_only');
SELECT session_store.set_phase('second', 'pg_only', 0);
UPDATE session_store.stores SET redis_server = NULL WHERE store = 'second';
SELECT session_store.set_phase('second', 'dual_redis_primary');
UPDATE session_store.stores SET redis_server = 'own' WHERE store = 'second';
SELECT session_store.set_phase('second', 'dual_redis_primary');
UPDATE session_store.stores SET redis_prefix = 'new:' WHERE store = 'second';
UPDATE session_store.stores SET redis_server = NULL WHERE store = 'second';
UPDATE session_store.stores SET default_ttl = '2 days' WHERE store = 'second';
SELECT session_store.upsert('a', '{}', store => 'second') > 0 AS stored;
SELECT session_store.set_phase('second', 'pg_only');
SELECT session_store.set_phase('second', 'dual_redis_primary');
SELECT session_store.set_phase('second', 'pg_only', force => true);
SELECT session_store.upsert('a', '{}', store => 'second') > 0;
SELECT store, changed_by, from_phase, to_phase, from_rollout_percent, to_rollout_percent, forced
FROM session_store.phase_history ORDER BY changed_at;
SELECT store, phase, rollout_percent FROM session_store.stores ORDER BY store;

-- A server that the owner may not use any more is refused, as is anybody else's store.
RESET ROLE;
ALTER SERVER own OWNER TO CURRENT_USER;
SET ROLE regress_ss_redis;
SELECT session_store.set_phase('second', 'dual_redis_primary', force => true);
RESET ROLE;
CREATE ROLE regress_ss_redis_other;
SELECT session_store.grant_admin('regress_ss_redis_other');
SET ROLE regress_ss_redis_other;
SELECT session_store.set_phase('second', 'redis_only');
SELECT * FROM session_store.phase_history;
SELECT * FROM session_store.mirror_state;
SELECT * FROM session_store.rejected_keys;
RESET ROLE;

SELECT session_store.drop_store('first', false), session_store.drop_store('second', false);
SET client_min_messages = warning;
DROP SERVER all_options, socket, own, twin, neighbour CASCADE;
DROP FOREIGN DATA WRAPPER regress_ss_wrapper CASCADE;
DROP SCHEMA redis_test CASCADE;
DROP OWNED BY regress_ss_redis, regress_ss_redis_other, regress_ss_reader;
DROP ROLE regress_ss_redis, regress_ss_redis_other, regress_ss_reader;
DROP EXTENSION session_store;
