-- Watching: the state of every store for a person, and the numbers behind it.

CREATE FUNCTION session_store.mirror_reports(
		OUT store_id integer, OUT pid integer, OUT state text, OUT words text,
		OUT lag_keys bigint, OUT lag_milliseconds bigint, OUT redis_sessions bigint,
		OUT rejects_over_limit bigint, OUT last_error text,
		OUT applied bigint, OUT unchanged bigint, OUT hints bigint, OUT gaps bigint,
		OUT reconnects bigint, OUT comparisons bigint, OUT comparison_done bigint,
		OUT comparison_total bigint, OUT comparison_started timestamptz,
		OUT comparison_ended timestamptz, OUT feed text, OUT outbox_keys bigint,
		OUT outbox_milliseconds bigint, OUT pushed bigint, OUT push_conflicts bigint,
		OUT clock_difference bigint, OUT held_postgres bigint, OUT held_redis bigint,
		OUT evictions_kept bigint)
	RETURNS SETOF record
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_mirror_reports';
COMMENT ON FUNCTION session_store.mirror_reports() IS
	'what the mirrors of the current user''s stores last reported';

CREATE FUNCTION session_store.live_sessions(relation regclass) RETURNS bigint
	LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'session_store_live_sessions';
COMMENT ON FUNCTION session_store.live_sessions(regclass) IS
	'live sessions of a store''s table: counted up to 100,000, beyond that estimated from the planner''s statistics';

CREATE VIEW session_store.status WITH (security_barrier) AS
SELECT
	r.store,
	r.phase,
	r.rollout_percent,
	m.words AS mirror,
	m.feed,
	m.lag_keys + m.outbox_keys AS lag_keys,
	greatest(m.lag_milliseconds, m.outbox_milliseconds) AS lag_milliseconds,
	session_store.live_sessions(r.relation) AS postgres_sessions,
	m.redis_sessions,
	(SELECT count(*) FROM session_store.rejected_keys k WHERE k.store_id = r.id)
		+ coalesce(m.rejects_over_limit, 0) AS rejects,
	v.verified_at AS last_verification,
	v.differences,
	a.last_cleanup,
	a.cleaned_rows,
	m.last_error
FROM session_store.registry r
LEFT JOIN session_store.mirror_reports() m ON m.store_id = r.id
LEFT JOIN session_store.activity a ON a.store_id = r.id
LEFT JOIN session_store.verifications v ON v.store_id = r.id
WHERE session_store.owns_table(r.relation);
COMMENT ON VIEW session_store.status IS
	'one row for each store of the current user: phase, mirror, sessions on both sides, last work, last error';
COMMENT ON COLUMN session_store.status.store IS 'name of the store';
COMMENT ON COLUMN session_store.status.phase IS 'where the store is on its way between Redis and PostgreSQL';
COMMENT ON COLUMN session_store.status.rollout_percent IS 'share of the sessions that PostgreSQL owns while Redis is primary';
COMMENT ON COLUMN session_store.status.mirror IS 'state of the mirror in words, with the remedy where there is one';
COMMENT ON COLUMN session_store.status.feed IS 'how changes of Redis are seen';
COMMENT ON COLUMN session_store.status.lag_keys IS 'sessions that are known to have changed on either side and are not copied yet';
COMMENT ON COLUMN session_store.status.lag_milliseconds IS 'age of the oldest of them';
COMMENT ON COLUMN session_store.status.postgres_sessions IS 'live sessions in PostgreSQL: exact up to 100,000, beyond that an estimate from the planner''s statistics';
COMMENT ON COLUMN session_store.status.redis_sessions IS 'keys under the prefix in Redis, as the mirror last saw them';
COMMENT ON COLUMN session_store.status.rejects IS 'keys of Redis that cannot be mirrored; see session_store.rejects';
COMMENT ON COLUMN session_store.status.last_verification IS 'when both sides were last compared, on schedule or by session_store.verify';
COMMENT ON COLUMN session_store.status.differences IS 'sessions that differed then';
COMMENT ON COLUMN session_store.status.last_cleanup IS 'when a cleanup last ended';
COMMENT ON COLUMN session_store.status.cleaned_rows IS 'rows that it removed';
COMMENT ON COLUMN session_store.status.last_error IS 'what last went wrong in the mirror, the verification or the cleanup';

CREATE VIEW session_store.stat_mirror WITH (security_barrier) AS
SELECT r.store, m.pid, m.state, m.applied, m.unchanged, m.hints, m.gaps, m.reconnects, m.comparisons,
	m.comparison_done, m.comparison_total, m.lag_keys, m.lag_milliseconds, m.redis_sessions,
	m.rejects_over_limit, m.last_error, m.feed, m.pushed, m.push_conflicts, m.outbox_keys,
	m.outbox_milliseconds, m.held_postgres, m.held_redis, m.evictions_kept,
	m.clock_difference AS clock_difference_milliseconds
FROM session_store.registry r
JOIN session_store.mirror_reports() m ON m.store_id = r.id
WHERE session_store.owns_table(r.relation) AND m.state IS NOT NULL;
COMMENT ON VIEW session_store.stat_mirror IS
	'what the mirrors of the current user''s stores have done since they started';
COMMENT ON COLUMN session_store.stat_mirror.store IS 'name of the store';
COMMENT ON COLUMN session_store.stat_mirror.pid IS 'process of the mirror, null when it does not run';
COMMENT ON COLUMN session_store.stat_mirror.state IS 'state of the mirror in a word';
COMMENT ON COLUMN session_store.stat_mirror.applied IS 'sessions written or removed in PostgreSQL';
COMMENT ON COLUMN session_store.stat_mirror.unchanged IS 'sessions read from Redis and found equal';
COMMENT ON COLUMN session_store.stat_mirror.hints IS 'messages of Redis that a key changed';
COMMENT ON COLUMN session_store.stat_mirror.gaps IS 'causes of a full comparison but the first';
COMMENT ON COLUMN session_store.stat_mirror.reconnects IS 'connections to Redis that were made again';
COMMENT ON COLUMN session_store.stat_mirror.comparisons IS 'full comparisons that ended';
COMMENT ON COLUMN session_store.stat_mirror.comparison_done IS 'keys compared by the current or last comparison';
COMMENT ON COLUMN session_store.stat_mirror.comparison_total IS 'keys it has to compare';
COMMENT ON COLUMN session_store.stat_mirror.lag_keys IS 'keys that are known to have changed and are not copied yet';
COMMENT ON COLUMN session_store.stat_mirror.lag_milliseconds IS 'age of the oldest of them';
COMMENT ON COLUMN session_store.stat_mirror.redis_sessions IS 'keys under the prefix in Redis';
COMMENT ON COLUMN session_store.stat_mirror.rejects_over_limit IS 'rejected keys counted past the limit of session_store.rejects';
COMMENT ON COLUMN session_store.stat_mirror.last_error IS 'what last went wrong';
COMMENT ON COLUMN session_store.stat_mirror.feed IS 'how changes of Redis are seen';
COMMENT ON COLUMN session_store.stat_mirror.pushed IS 'sessions written or removed in Redis';
COMMENT ON COLUMN session_store.stat_mirror.push_conflicts IS 'writes to Redis that found the key changed meanwhile, and were decided again';
COMMENT ON COLUMN session_store.stat_mirror.outbox_keys IS 'sessions that changed in PostgreSQL and are not copied yet';
COMMENT ON COLUMN session_store.stat_mirror.outbox_milliseconds IS 'age of the oldest of them';
COMMENT ON COLUMN session_store.stat_mirror.held_postgres IS 'deletes in PostgreSQL that wait for an answer';
COMMENT ON COLUMN session_store.stat_mirror.held_redis IS 'deletes in Redis that wait for an answer';
COMMENT ON COLUMN session_store.stat_mirror.evictions_kept IS 'sessions that are kept though Redis evicted their keys';
COMMENT ON COLUMN session_store.stat_mirror.clock_difference_milliseconds IS 'clock of Redis minus that of this server';

CREATE FUNCTION session_store.progress_reports(
		OUT store_id integer, OUT operation text, OUT pid integer, OUT done bigint,
		OUT total bigint, OUT started_at timestamptz)
	RETURNS SETOF record
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'session_store_progress_reports';
COMMENT ON FUNCTION session_store.progress_reports() IS
	'how far long work on the current user''s stores has come';

CREATE VIEW session_store.progress WITH (security_barrier) AS
SELECT r.store, p.operation, p.pid, p.done, p.total,
	round(p.done / s.seconds, 1) AS rate,
	CASE WHEN p.done > 0 AND p.total IS NOT NULL
		THEN make_interval(secs => round((p.total - p.done) * s.seconds / p.done, 1)::double precision) END AS time_left
FROM session_store.registry r
JOIN session_store.progress_reports() p ON p.store_id = r.id
CROSS JOIN LATERAL (SELECT greatest(extract(epoch FROM clock_timestamp() - p.started_at), 0.001) AS seconds) s
WHERE session_store.owns_table(r.relation);
COMMENT ON VIEW session_store.progress IS
	'how far long work on the current user''s stores has come: resync, verify, repartition, cleanup';
COMMENT ON COLUMN session_store.progress.store IS 'name of the store';
COMMENT ON COLUMN session_store.progress.operation IS 'resync, verify, repartition or cleanup';
COMMENT ON COLUMN session_store.progress.pid IS 'process that does it';
COMMENT ON COLUMN session_store.progress.done IS 'sessions done';
COMMENT ON COLUMN session_store.progress.total IS 'sessions to do, null when not known';
COMMENT ON COLUMN session_store.progress.rate IS 'sessions a second';
COMMENT ON COLUMN session_store.progress.time_left IS 'how long it takes at that rate';
