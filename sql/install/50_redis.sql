-- Redis: the wrapper whose servers name one, and the phases of a store.

CREATE FUNCTION session_store.redis_validator(options text[], catalog oid) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'session_store_redis_validator';
COMMENT ON FUNCTION session_store.redis_validator(text[], oid) IS 'checks the options of a server or user mapping of session_store_redis';

CREATE FOREIGN DATA WRAPPER session_store_redis NO HANDLER VALIDATOR session_store.redis_validator;
COMMENT ON FOREIGN DATA WRAPPER session_store_redis IS 'servers that name the Redis of a session store';

-- What the mirror must remember of a store across its restarts. A row is missing until set_phase
-- made it, and in a restored database, which counts as owner_replaces = false.
CREATE TABLE session_store.mirror_state (
	store_id integer PRIMARY KEY REFERENCES session_store.registry ON DELETE CASCADE,
	-- A dual phase was entered and the first full comparison has not ended: the owner's state
	-- replaces the other side's, whatever max_delete_percent says, as set_phase had asked.
	owner_replaces boolean NOT NULL,
	-- The Redis that the last full comparison was about: the next mirror tells by it whether
	-- continuity was kept.
	run_id text,
	replication_id text,
	flush_calls bigint,
	swapdb_calls bigint
) WITH (fillfactor = 50);
COMMENT ON TABLE session_store.mirror_state IS 'what the mirror of each store must remember across restarts';

CREATE FUNCTION session_store.set_phase(store name, phase text, rollout_percent integer DEFAULT NULL, force boolean DEFAULT false)
	RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_set_phase';
COMMENT ON FUNCTION session_store.set_phase(name, text, integer, boolean) IS 'moves a store to another phase, and binds it to this cluster and database';

CREATE FUNCTION session_store.wait_for_mirror(store name, timeout interval DEFAULT '30 seconds')
	RETURNS boolean LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_wait_for_mirror';
COMMENT ON FUNCTION session_store.wait_for_mirror(name, interval) IS 'waits until all that either side had accepted when it was called has been copied; false when the time was too short';

CREATE FUNCTION session_store.resync(store name, allow_mass_delete boolean DEFAULT false, refill_redis boolean DEFAULT false)
	RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_resync';
COMMENT ON FUNCTION session_store.resync(name, boolean, boolean) IS 'asks the mirror for a full comparison and repair now';
