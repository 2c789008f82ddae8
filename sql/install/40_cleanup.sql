-- Removing expired sessions. The supervisor does the same on the store's schedule.

CREATE PROCEDURE session_store.cleanup(store name DEFAULT 'sessions', batch_size integer DEFAULT NULL,
		max_duration interval DEFAULT NULL, delay interval DEFAULT NULL, INOUT deleted bigint DEFAULT 0)
	LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_cleanup';
COMMENT ON PROCEDURE session_store.cleanup(name, integer, interval, interval, bigint) IS
	'removes expired sessions of a store in batches, with a commit after each; NULL means the store''s setting';
