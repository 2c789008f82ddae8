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
END $$;
