-- Session functions. ttl and expire are alternatives; neither means the store's default_ttl.

CREATE FUNCTION session_store.upsert(sid text, sess jsonb, ttl interval DEFAULT NULL,
		expire timestamptz DEFAULT NULL, user_id text DEFAULT NULL,
		expected_version bigint DEFAULT NULL, store name DEFAULT 'sessions') RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_upsert';
COMMENT ON FUNCTION session_store.upsert(text, jsonb, interval, timestamptz, text, bigint, name) IS
	'creates or replaces a session; returns its new version, or NULL with nothing changed when expected_version is not the current one (0: must not be live) or the sid was ended within logout_guard';

CREATE FUNCTION session_store.upsert_bytes(sid text, sess bytea, ttl interval DEFAULT NULL,
		expire timestamptz DEFAULT NULL, user_id text DEFAULT NULL,
		expected_version bigint DEFAULT NULL, store name DEFAULT 'sessions') RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_upsert_bytes';
COMMENT ON FUNCTION session_store.upsert_bytes(text, bytea, interval, timestamptz, text, bigint, name) IS
	'upsert for a store of bytea payloads';

CREATE FUNCTION session_store.get(sid text, store name DEFAULT 'sessions') RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'session_store_get';
COMMENT ON FUNCTION session_store.get(text, name) IS
	'the payload of a live session, else NULL; reads only';

CREATE FUNCTION session_store.get_bytes(sid text, store name DEFAULT 'sessions') RETURNS bytea
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'session_store_get_bytes';
COMMENT ON FUNCTION session_store.get_bytes(text, name) IS
	'the payload of a live session as bytes, else NULL; of a jsonb store its text; reads only';

CREATE FUNCTION session_store.get_versioned(sid text, store name DEFAULT 'sessions',
		OUT sess jsonb, OUT version bigint, OUT expire timestamptz) RETURNS record
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'session_store_get_versioned';
COMMENT ON FUNCTION session_store.get_versioned(text, name) IS
	'the payload of a live session with its version, for upsert(expected_version), and its expiry; NULLs when it is not live';

CREATE FUNCTION session_store.get_and_touch(sid text, ttl interval DEFAULT NULL,
		expire timestamptz DEFAULT NULL, store name DEFAULT 'sessions') RETURNS jsonb
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_get_and_touch';
COMMENT ON FUNCTION session_store.get_and_touch(text, interval, timestamptz, name) IS
	'get and touch in one call';

CREATE FUNCTION session_store.get_bytes_and_touch(sid text, ttl interval DEFAULT NULL,
		expire timestamptz DEFAULT NULL, store name DEFAULT 'sessions') RETURNS bytea
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_get_bytes_and_touch';
COMMENT ON FUNCTION session_store.get_bytes_and_touch(text, interval, timestamptz, name) IS
	'get_bytes and touch in one call';

CREATE FUNCTION session_store.touch(sid text, ttl interval DEFAULT NULL,
		expire timestamptz DEFAULT NULL, store name DEFAULT 'sessions') RETURNS boolean
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_touch';
COMMENT ON FUNCTION session_store.touch(text, interval, timestamptz, name) IS
	'extends a live session, writing at most once in touch_granularity; true when it is live';

CREATE FUNCTION session_store.expire(sid text, store name DEFAULT 'sessions') RETURNS boolean
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_expire';
COMMENT ON FUNCTION session_store.expire(text, name) IS
	'logs out: removes a live session and refuses late writes of its sid for logout_guard; true when it was live';

CREATE FUNCTION session_store.destroy(sid text, store name DEFAULT 'sessions') RETURNS boolean
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_destroy';
COMMENT ON FUNCTION session_store.destroy(text, name) IS
	'removes a session and its tombstone: the sid can be used again at once; true when it was live';

CREATE FUNCTION session_store.get_many(sids text[], store name DEFAULT 'sessions')
	RETURNS TABLE (sid text, sess jsonb, expire timestamptz, version bigint)
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 20 AS 'MODULE_PATHNAME', 'session_store_get_many';
COMMENT ON FUNCTION session_store.get_many(text[], name) IS
	'the live ones of these sessions, each once, in the order of their sids; reads only';

CREATE FUNCTION session_store.get_many_bytes(sids text[], store name DEFAULT 'sessions')
	RETURNS TABLE (sid text, sess bytea, expire timestamptz, version bigint)
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 20 AS 'MODULE_PATHNAME', 'session_store_get_many_bytes';
COMMENT ON FUNCTION session_store.get_many_bytes(text[], name) IS
	'get_many for a store of bytea payloads';

CREATE FUNCTION session_store.merge(sid text, patch jsonb, ttl interval DEFAULT NULL,
		expire timestamptz DEFAULT NULL, store name DEFAULT 'sessions') RETURNS jsonb
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_merge';
COMMENT ON FUNCTION session_store.merge(text, jsonb, interval, timestamptz, name) IS
	'applies an RFC 7396 merge patch to the payload of a live session; returns the new payload, NULL when it is not live';

CREATE FUNCTION session_store.expire_user(user_id text, keep_sid text DEFAULT NULL,
		store name DEFAULT 'sessions') RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_expire_user';
COMMENT ON FUNCTION session_store.expire_user(text, text, name) IS
	'logs a user out everywhere, but for keep_sid; returns the number of sessions ended';

CREATE FUNCTION session_store.user_sessions(user_id text, store name DEFAULT 'sessions')
	RETURNS TABLE (sid text, sess jsonb, created_at timestamptz, updated_at timestamptz, expire timestamptz)
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 5 AS 'MODULE_PATHNAME', 'session_store_user_sessions';
COMMENT ON FUNCTION session_store.user_sessions(text, name) IS
	'the live sessions of a user, oldest first; reads only';

CREATE FUNCTION session_store.user_sessions_bytes(user_id text, store name DEFAULT 'sessions')
	RETURNS TABLE (sid text, sess bytea, created_at timestamptz, updated_at timestamptz, expire timestamptz)
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 5 AS 'MODULE_PATHNAME', 'session_store_user_sessions_bytes';
COMMENT ON FUNCTION session_store.user_sessions_bytes(text, name) IS
	'user_sessions for a store of bytea payloads';

CREATE FUNCTION session_store.routing(store name DEFAULT 'sessions',
		OUT phase text, OUT rollout_percent integer, OUT changed_at timestamptz) RETURNS record
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'session_store_routing';
COMMENT ON FUNCTION session_store.routing(name) IS
	'where an application finds its sessions: the phase, the rollout percentage, and since when';

CREATE FUNCTION session_store.owner(sid text, store name DEFAULT 'sessions') RETURNS text
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'session_store_owner';
COMMENT ON FUNCTION session_store.owner(text, name) IS
	'the side that owns a sid now: redis or postgres';

-- The one trigger of every session table, on every statement that writes it.
CREATE FUNCTION session_store.row_trigger() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'session_store_row_trigger';
COMMENT ON FUNCTION session_store.row_trigger() IS
	'keeps version, updated_at, user_id and the logout guard right for every writer of a session table';
