-- Looking at Redis for a person: check_redis and verify.

CREATE FUNCTION session_store.check_redis(store name)
	RETURNS TABLE (item text, ok boolean, detail text)
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_check_redis';
COMMENT ON FUNCTION session_store.check_redis(name) IS 'reaches the Redis of a store and says what would go wrong';

-- The last verification of each store, scheduled or called.
CREATE TABLE session_store.verifications (
	store_id integer PRIMARY KEY REFERENCES session_store.registry ON DELETE CASCADE,
	verified_at timestamptz NOT NULL,
	compared bigint NOT NULL,
	differences bigint NOT NULL,
	rejects bigint NOT NULL,
	kept_evictions bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE session_store.verifications IS 'what the last verification of each store found';

CREATE FUNCTION session_store.verify(store name, sample_size integer DEFAULT NULL, tolerance interval DEFAULT NULL)
	RETURNS TABLE (sid text, difference text, redis_expire timestamptz, postgres_expire timestamptz)
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_verify';
COMMENT ON FUNCTION session_store.verify(name, integer, interval) IS 'compares the sessions of both sides, all of them or a sample, and gives those that differ';
