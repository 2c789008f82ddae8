-- What CREATE EXTENSION brings, and that nothing of it is granted to PUBLIC.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
-- A schema that somebody prepared is refused.
CREATE ROLE regress_ss_squatter;
CREATE SCHEMA session_store AUTHORIZATION regress_ss_squatter;
CREATE EXTENSION session_store;
DROP SCHEMA session_store;
DROP ROLE regress_ss_squatter;
CREATE EXTENSION session_store;
SELECT extname, nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'session_store';

-- Every function, view and table carries a comment.
SELECT p.oid::regprocedure FROM pg_proc p
WHERE p.pronamespace = 'session_store'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL;
SELECT c.oid::regclass FROM pg_class c
WHERE c.relnamespace = 'session_store'::regnamespace AND c.relkind IN ('r', 'v')
	AND obj_description(c.oid, 'pg_class') IS NULL;

-- Nothing for PUBLIC.
SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
WHERE p.pronamespace = 'session_store'::regnamespace AND a.grantee = 0;
SELECT c.oid::regclass FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relnamespace = 'session_store'::regnamespace AND a.grantee = 0;
SELECT fdwname FROM pg_foreign_data_wrapper w, aclexplode(w.fdwacl) a
WHERE fdwname = 'session_store_redis' AND a.grantee = 0;

-- Every table has a primary key.
SELECT c.oid::regclass FROM pg_class c
WHERE c.relnamespace = 'session_store'::regnamespace AND c.relkind = 'r'
	AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p');

SHOW session_store.naptime;
SHOW session_store.track;

-- Another encoding is refused.
CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
\c latin
SET client_min_messages = warning;
\set VERBOSITY default
CREATE EXTENSION session_store;
\c contrib_regression
DROP DATABASE latin;
