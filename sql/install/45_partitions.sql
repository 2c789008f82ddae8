-- Partitions by expiry. The supervisor maintains them as well.

CREATE PROCEDURE session_store.maintain_partitions(store name DEFAULT 'sessions')
	LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_maintain_partitions';
COMMENT ON PROCEDURE session_store.maintain_partitions(name) IS
	'makes the partitions ahead and drops those wholly past expiry and cleanup_grace, one short transaction a step';

CREATE FUNCTION session_store.partitions(store name DEFAULT 'sessions')
	RETURNS TABLE (partition regclass, range_from timestamptz, range_to timestamptz, live_rows bigint,
		expired_rows bigint, bytes bigint, last_action text, last_action_at timestamptz)
	LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'session_store_partitions';
COMMENT ON FUNCTION session_store.partitions(name) IS
	'the partitions of a store, oldest first, the catch-all last with a range of nulls; rows are estimates';
