-- Making and taking away stores, and the rights to use them.

CREATE FUNCTION session_store.create_store(store name DEFAULT 'sessions', payload text DEFAULT 'jsonb',
		partition_interval interval DEFAULT NULL, table_schema name DEFAULT current_schema())
	RETURNS regclass
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_create_store';
COMMENT ON FUNCTION session_store.create_store(name, text, interval, name) IS
	'makes a store: a table of sessions that belongs to the caller, and its settings; payload is jsonb or bytea';

CREATE FUNCTION session_store.drop_store(store name, keep_table boolean DEFAULT true) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_drop_store';
COMMENT ON FUNCTION session_store.drop_store(name, boolean) IS
	'takes a store away; its table stays, as an ordinary one, unless keep_table is false';

CREATE FUNCTION session_store.grant_app(role name, store name DEFAULT 'sessions') RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_grant_app';
COMMENT ON FUNCTION session_store.grant_app(name, name) IS
	'grants a role what an application needs to use a store, and no more';

CREATE FUNCTION session_store.grant_admin(role name) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_grant_admin';
COMMENT ON FUNCTION session_store.grant_admin(name) IS
	'lets a role create and manage stores of its own';

CREATE FUNCTION session_store.on_drop() RETURNS event_trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_on_drop';
COMMENT ON FUNCTION session_store.on_drop() IS 'takes a store away when its table is dropped';
CREATE EVENT TRIGGER session_store_on_drop ON sql_drop EXECUTE FUNCTION session_store.on_drop();
