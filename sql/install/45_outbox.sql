-- What the mirrors work on: changes of PostgreSQL on their way to Redis, and what Redis evicted.

-- One row for each write of a live session in a dual phase, by whatever statement, in the same
-- transaction. Append only; the mirror removes what Redis has. It says what the write replaced: the
-- base by which the mirror tells who changed a session.
CREATE TABLE session_store.outbox (
	store_id integer NOT NULL,
	seq integer NOT NULL, -- within the writing transaction
	xid bigint NOT NULL, -- which this is, with its epoch
	sid_hash bigint NOT NULL, -- of store and sid: an index on it costs writers less than one on these
	sid text COLLATE "C" NOT NULL,
	payload_digest bigint, -- of the payload that was replaced; null where it stayed or none was there
	base_expire timestamptz, -- of the row that was replaced; null where there was none
	ended boolean NOT NULL, -- the session was logged out
	written_at timestamptz NOT NULL,
	PRIMARY KEY (store_id, xid, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
	autovacuum_vacuum_insert_scale_factor = 0.5, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false);
CREATE INDEX outbox_sid ON session_store.outbox (sid_hash, xid);
COMMENT ON TABLE session_store.outbox IS 'changes of sessions that are to be copied to Redis';

-- Sessions whose key Redis evicted and whose row is kept (on_eviction), until the key comes back.
CREATE TABLE session_store.kept_evictions (
	store_id integer NOT NULL,
	sid text COLLATE "C" NOT NULL,
	evicted_at timestamptz NOT NULL,
	PRIMARY KEY (store_id, sid)
);
COMMENT ON TABLE session_store.kept_evictions IS 'sessions whose key Redis evicted and whose row is kept';
