-- Looking at Redis for a person: check_redis and verify.

CREATE FUNCTION session_store.check_redis(store name)
	RETURNS TABLE (item text, ok boolean, detail text)
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_check_redis';
COMMENT ON FUNCTION session_store.check_redis(name) IS 'reaches the Redis of a store and says what would go wrong';
