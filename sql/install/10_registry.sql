-- The registry: one row a store, and what belongs to a store besides its sessions.
-- Only the extension's functions and the view session_store.stores reach these tables.

CREATE SEQUENCE session_store.registry_id AS integer;

CREATE TABLE session_store.registry (
	id integer PRIMARY KEY DEFAULT pg_catalog.nextval('session_store.registry_id'),
	store name NOT NULL UNIQUE,
	relation regclass NOT NULL UNIQUE,
	payload text NOT NULL CHECK (payload IN ('jsonb', 'bytea')),
	default_ttl interval NOT NULL DEFAULT '1 day',
	touch_granularity interval NOT NULL DEFAULT '1 minute',
	logout_guard interval NOT NULL DEFAULT '1 minute',
	user_id_path text[],
	partition_interval interval,
	partitions_ahead integer NOT NULL DEFAULT 4,
	cleanup_interval interval NOT NULL DEFAULT '15 minutes',
	cleanup_batch_size integer NOT NULL DEFAULT 1000,
	cleanup_max_duration interval NOT NULL DEFAULT '60 seconds',
	cleanup_delay interval NOT NULL DEFAULT '100 milliseconds',
	cleanup_grace interval NOT NULL DEFAULT '0',
	redis_server name,
	redis_prefix text COLLATE "C" NOT NULL DEFAULT 'sess:',
	phase text NOT NULL DEFAULT 'pg_only'
		CHECK (phase IN ('redis_only', 'dual_redis_primary', 'dual_pg_primary', 'pg_only')),
	rollout_percent integer NOT NULL DEFAULT 0 CHECK (rollout_percent BETWEEN 0 AND 100),
	phase_changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	verify_interval interval NOT NULL DEFAULT '5 minutes',
	verify_sample_size integer NOT NULL DEFAULT 1000,
	max_delete_percent integer NOT NULL DEFAULT 20,
	on_eviction text NOT NULL DEFAULT 'keep',
	-- The cluster and database that set_phase bound the store to; elsewhere its mirror is paused.
	bound_system bigint,
	bound_database oid
);
COMMENT ON TABLE session_store.registry IS 'one row a store; session_store.stores is the view for people';

-- Ended sids: for logout_guard they refuse late writes. The row trigger writes them.
CREATE TABLE session_store.tombstones (
	store_id integer NOT NULL,
	sid text COLLATE "C" NOT NULL,
	ended_at timestamptz NOT NULL,
	by_redis boolean NOT NULL, -- the session ended in Redis and the mirror followed
	PRIMARY KEY (store_id, sid)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, vacuum_truncate = false);
COMMENT ON TABLE session_store.tombstones IS 'sids that were ended within logout_guard';

-- What ran last for a store, so that a restart neither repeats nor forgets it.
CREATE TABLE session_store.activity (
	store_id integer PRIMARY KEY REFERENCES session_store.registry ON DELETE CASCADE,
	last_cleanup timestamptz,
	cleaned_rows bigint
) WITH (fillfactor = 50);
COMMENT ON TABLE session_store.activity IS 'the last background work of each store';

-- What was last done to a partition. Its triggers may be off where it is written, so that nothing
-- here relies on its foreign key being checked.
CREATE TABLE session_store.partition_actions (
	store_id integer NOT NULL REFERENCES session_store.registry ON DELETE CASCADE,
	partition oid NOT NULL,
	action text NOT NULL,
	at timestamptz NOT NULL,
	PRIMARY KEY (store_id, partition)
);
COMMENT ON TABLE session_store.partition_actions IS 'what was last done to each partition; session_store.partitions() shows it';

CREATE TABLE session_store.phase_changes (
	id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	store name NOT NULL,
	changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	changed_by name NOT NULL,
	from_phase text NOT NULL,
	to_phase text NOT NULL,
	from_rollout_percent integer NOT NULL,
	to_rollout_percent integer NOT NULL,
	forced boolean NOT NULL
);
COMMENT ON TABLE session_store.phase_changes IS 'every change of a phase; session_store.phase_history is the view for people';

-- Redis keys that a store cannot hold.
CREATE TABLE session_store.rejected_keys (
	store_id integer NOT NULL REFERENCES session_store.registry ON DELETE CASCADE,
	key_hash bytea NOT NULL,
	redis_key bytea NOT NULL,
	payload bytea,
	reason text NOT NULL,
	first_seen timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	last_seen timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (store_id, key_hash)
);
COMMENT ON TABLE session_store.rejected_keys IS 'Redis keys that cannot be mirrored; session_store.rejects is the view for people';

SELECT pg_catalog.pg_extension_config_dump('session_store.registry_id', '');
SELECT pg_catalog.pg_extension_config_dump('session_store.registry', '');
SELECT pg_catalog.pg_extension_config_dump('session_store.phase_changes', '');
SELECT pg_catalog.pg_extension_config_dump('session_store.phase_changes_id_seq', '');

CREATE FUNCTION session_store.check_settings() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_check_settings';
COMMENT ON FUNCTION session_store.check_settings() IS 'checks the settings of a store before they are written';
CREATE TRIGGER check_settings BEFORE INSERT OR UPDATE ON session_store.registry
	FOR EACH ROW EXECUTE FUNCTION session_store.check_settings();

CREATE FUNCTION session_store.registry_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_registry_changed';
COMMENT ON FUNCTION session_store.registry_changed() IS 'tells every backend and worker that a store changed';
CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON session_store.registry
	FOR EACH STATEMENT EXECUTE FUNCTION session_store.registry_changed();

-- True for the stores of the current user. Row-level security on the registry would make pg_dump
-- by ordinary roles fail, so that this condition guards every view instead.
CREATE FUNCTION session_store.owns_table(relation regclass) RETURNS boolean
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT coalesce((SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = relation), false) $$;
COMMENT ON FUNCTION session_store.owns_table(regclass) IS 'whether the current user has the rights of the owner of a table';

-- Expressions instead of columns where set_phase or repartition is the way to change a value.
CREATE VIEW session_store.stores WITH (security_barrier) AS
SELECT
	store,
	relation,
	payload,
	default_ttl,
	touch_granularity,
	logout_guard,
	user_id_path,
	partition_interval + interval '0' AS partition_interval,
	partitions_ahead,
	cleanup_interval,
	cleanup_batch_size,
	cleanup_max_duration,
	cleanup_delay,
	cleanup_grace,
	redis_server,
	redis_prefix,
	phase || '' AS phase,
	rollout_percent + 0 AS rollout_percent,
	verify_interval,
	verify_sample_size,
	max_delete_percent,
	on_eviction
FROM session_store.registry
WHERE session_store.owns_table(relation)
WITH CASCADED CHECK OPTION;
COMMENT ON VIEW session_store.stores IS 'the stores of the current user and their settings; settings are changed by UPDATE';

CREATE VIEW session_store.phase_history WITH (security_barrier) AS
SELECT c.store, c.changed_at, c.changed_by, c.from_phase, c.to_phase,
	c.from_rollout_percent, c.to_rollout_percent, c.forced
FROM session_store.phase_changes c
JOIN session_store.registry r USING (store)
WHERE session_store.owns_table(r.relation);
COMMENT ON VIEW session_store.phase_history IS 'every change of phase of the stores of the current user';

CREATE VIEW session_store.rejects WITH (security_barrier) AS
SELECT r.store, k.redis_key, k.payload, k.reason, k.first_seen, k.last_seen
FROM session_store.rejected_keys k
JOIN session_store.registry r ON r.id = k.store_id
WHERE session_store.owns_table(r.relation);
COMMENT ON VIEW session_store.rejects IS 'Redis keys that cannot be mirrored, with their bytes and the reason';
