\echo Use "CREATE EXTENSION session_store" to load this file. \quit

DO $$
BEGIN
	IF pg_catalog.getdatabaseencoding() <> 'UTF8' THEN
		RAISE EXCEPTION 'session_store needs a UTF8 database'
			USING ERRCODE = 'feature_not_supported',
				DETAIL = pg_catalog.format('The encoding of database "%s" is %s.',
					pg_catalog.current_database(), pg_catalog.getdatabaseencoding()),
				HINT = 'Create the database with ENCODING ''UTF8''.';
	END IF;
	-- Who owns the schema could put lookalikes of our functions into it.
	IF NOT (SELECT o.rolsuper OR o.rolname = current_user FROM pg_catalog.pg_namespace n
			JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner WHERE n.nspname = 'session_store') THEN
		RAISE EXCEPTION 'schema "session_store" belongs to somebody else'
			USING ERRCODE = 'insufficient_privilege',
				HINT = 'Drop or rename the schema, or change its owner.';
	END IF;
END $$;
