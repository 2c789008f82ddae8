// Stores and their settings: the registry table as plain data, cached per backend.
#pragma once

#include <cstdint>

#include "postgres/pg.h"

namespace session_store {

enum class Payload : uint8_t { jsonb, bytea };
enum class Phase : uint8_t { redis_only, dual_redis_primary, dual_pg_primary, pg_only };
enum class OnEviction : uint8_t { keep, remove };

inline constexpr int kMaxPrefixBytes = 512;

// One store. Durations are microseconds. Plain data: copied by value into any memory.
struct StoreSettings {
	int32 id;
	NameData name;
	Oid relation;
	Payload payload;
	Phase phase;
	int32 rollout_percent;
	TimestampTz phase_changed_at;
	int64 default_ttl;
	int64 touch_granularity;
	int64 logout_guard;
	int64 partition_interval; // 0: not partitioned
	bool partition_is_month;  // a calendar month, rather than so many microseconds
	int32 partitions_ahead;
	int64 cleanup_interval;
	int32 cleanup_batch_size;
	int64 cleanup_max_duration;
	int64 cleanup_delay;
	int64 cleanup_grace;
	bool has_redis_server;
	NameData redis_server;
	char redis_prefix[kMaxPrefixBytes + 1];
	int64 verify_interval;
	int32 verify_sample_size;
	int32 max_delete_percent;
	OnEviction on_eviction;
	bool is_bound; // set_phase was called somewhere
	int64 bound_system;
	Oid bound_database;
};

// Where the columns of a store's table stand, looked up by name.
struct StoreColumns {
	AttrNumber sid;
	AttrNumber sess;
	AttrNumber user_id;
	AttrNumber expire;
	AttrNumber created_at;
	AttrNumber updated_at;
	AttrNumber version;
	AttrNumber expire_bucket;
};

// The saved plans of a store, see store/plans.cpp.
enum class StorePlan : uint8_t {
	upsert,
	insert_not_live,
	update_version,
	touch,
	expire,
	destroy,
	merge,
	expire_user,
	user_sessions,
	// Of partitioned tables, where a row is locked or known to be absent before.
	insert,
	update,
	update_not_live,
	user_sids,
	expire_sids,
};
inline constexpr int kStorePlans = 14;

// Whether sessions can be written without a statement, see store/direct_writes.h. Noted: yes, but
// with a call of note_written().
enum class DirectWrites : uint8_t { unknown, allowed, noted, refused };

// One partition of a store's table. Those that hold a range come first, newest first; a catch-all
// has no range: what no other partition takes, or what never expires.
struct StorePartition {
	Oid relation;
	Oid sid_index; // unique index on sid alone
	TimestampTz from;
	TimestampTz to;
	bool is_catch_all;
	StoreColumns columns;
	DirectWrites direct_update;
};

// A store as backends use it. The pointer stays valid for the life of the backend; its contents are
// those of the last lookup.
struct Store {
	NameData name; // hash key
	bool valid;
	StoreSettings settings;
	ArrayType *user_id_path; // null when there is none; in the cache's memory
	bool table_known;        // what follows describes the table as it is
	StoreColumns columns;
	Oid sid_index; // unique index on sid alone; none on a partitioned table
	DirectWrites direct_insert;
	DirectWrites direct_update;
	bool is_partitioned;
	int partition_count;
	StorePartition *partitions; // as long as the table stays known
	Oid may_select; // the user last found to have the right, as long as no right or role changed
	Oid may_update;
	Oid may_insert;
	SPIPlanPtr plans[kStorePlans]; // saved, null until first used
};

// The store of that name. ERROR undefined_object when there is none, with a hint.
Store *find_store(const char *name);
// The store whose open table, or partition of it, is `relation`, described as it is now, or null.
Store *find_store_of(Relation relation);

// Counts the messages that may have made what was read of a table out of date.
uint64 stale_descriptions();

// Opens the store's table with `lockmode` and makes sure that `store` describes it as it is now.
// ERROR when the table is gone or is no session table any more.
Relation open_store_table(Store *store, LOCKMODE lockmode);

// All stores (palloc'd array in the current memory context), for workers. Needs a transaction and
// no privilege. Returns 0 stores when the extension is not installed in this database.
int read_all_stores(StoreSettings **stores);
// Fresh settings of one store by id; false when it is gone. Not cached.
bool read_store(int32 id, StoreSettings *settings);

// The settings in a row of the registry.
void settings_of_row(HeapTuple row, TupleDesc descriptor, StoreSettings *settings);

// Whether the mirror of this store may run here: set_phase was called in this cluster and database.
bool store_is_bound_here(const StoreSettings *settings);

inline bool is_dual(Phase phase) {
	return phase == Phase::dual_redis_primary || phase == Phase::dual_pg_primary;
}
const char *phase_name(Phase phase);
// False when `name` is no phase.
bool parse_phase(const char *name, Phase *phase);

// OIDs of the extension's own objects; InvalidOid when the extension is not installed.
Oid registry_relation();
Oid extension_table(const char *name);
// Owner of the extension's tables; ERROR when it is not installed.
Oid extension_owner();

// The current user owns the store's table (has the privileges of its owner), or ERROR.
void require_store_owner(const Store *store);

} // namespace session_store
