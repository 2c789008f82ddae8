-- From here on create_store() makes partitioned stores: the tests that follow run on them, with the
-- results that they have on plain ones.
CREATE OR REPLACE FUNCTION session_store.create_store(store name DEFAULT 'sessions', payload text DEFAULT 'jsonb',
		partition_interval interval DEFAULT '1 day', table_schema name DEFAULT current_schema())
	RETURNS regclass LANGUAGE c VOLATILE AS '$libdir/session_store', 'session_store_create_store';
SELECT session_store.create_store();
SELECT relkind FROM pg_class WHERE oid = 'sessions'::regclass;
SELECT session_store.drop_store('sessions', false);
