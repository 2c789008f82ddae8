-- Partitions by expiry. The supervisor maintains them as well.

CREATE PROCEDURE session_store.maintain_partitions(store name DEFAULT 'sessions')
	LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_maintain_partitions';
COMMENT ON PROCEDURE session_store.maintain_partitions(name) IS
	'makes the partitions ahead and drops those wholly past expiry and cleanup_grace, one short transaction a step; the worker, or the call where there is none, then gives the space of large ones back in slices';

CREATE FUNCTION session_store.partitions(store name DEFAULT 'sessions')
	RETURNS TABLE (partition regclass, range_from timestamptz, range_to timestamptz, live_rows bigint,
		expired_rows bigint, bytes bigint, last_action text, last_action_at timestamptz)
	LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'session_store_partitions';
COMMENT ON FUNCTION session_store.partitions(name) IS
	'the partitions of a store, oldest first, then the catch-all and what is left of large ones that were dropped, with a range of nulls; rows are estimates';

-- How far a change of a store's layout has come; see src/store/repartition.cpp.
CREATE TABLE session_store.repartitions (
	store_id integer PRIMARY KEY REFERENCES session_store.registry ON DELETE CASCADE,
	partition_interval interval, -- asked for; null for a plain table
	source oid NOT NULL,
	target oid NOT NULL,
	phase text NOT NULL DEFAULT 'made' CHECK (phase IN ('made', 'copying', 'swapped')),
	copied_to text COLLATE "C" NOT NULL DEFAULT '', -- sids up to this one are copied
	copied_all boolean NOT NULL DEFAULT false,
	copied bigint NOT NULL DEFAULT 0,
	total bigint NOT NULL, -- an estimate
	started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	stepped_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE session_store.repartitions IS 'changes of the layout of a store that are under way';

-- Sids that were written since copying began; null for all of them.
CREATE TABLE session_store.repartition_changes (
	store_id integer NOT NULL,
	xid bigint NOT NULL, -- of the transaction that wrote it
	seq integer NOT NULL, -- within it
	sid text COLLATE "C",
	PRIMARY KEY (store_id, xid, seq)
) WITH (vacuum_truncate = false);
COMMENT ON TABLE session_store.repartition_changes IS 'sessions that were written while their store is repartitioned';

CREATE FUNCTION session_store.note_written() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_note_written';
COMMENT ON FUNCTION session_store.note_written() IS 'notes the sids that are written while a store is repartitioned';

CREATE PROCEDURE session_store.repartition(store name, partition_interval interval)
	LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_repartition';
COMMENT ON PROCEDURE session_store.repartition(name, interval) IS
	'changes the layout of a filled store under traffic: partitions of that interval, or none for NULL';
