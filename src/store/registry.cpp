// The registry, cached per backend.
//
// An entry is filled at first use and marked stale by invalidation messages: one for the registry
// (its statement trigger sends it), one for a session table or its index (PostgreSQL sends it on
// every ALTER and GRANT), one for any schema (plans name the table with its schema) or role. Stale
// entries are filled again at the next lookup, never inside the callback. Entries are never freed,
// so that a pointer to one outlives whatever a nested statement does; saved plans of a stale entry
// may still be running, so they are kept until the transaction ends.
#include "store/registry.h"

#include "postgres/compat.h"
#include "postgres/interval.h"
#include "postgres/pg.h"
#include "store/layout.h"

extern "C" {
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/partition.h"
#include "storage/lwlock.h"
#include "utils/catcache.h"
#include "utils/hsearch.h"
#include "utils/relcache.h"
}

namespace session_store {

namespace {

// Columns of session_store.registry, in the order of sql/install/10_registry.sql.
enum RegistryColumn {
	kId = 1,
	kName,
	kRelation,
	kPayload,
	kDefaultTtl,
	kTouchGranularity,
	kLogoutGuard,
	kUserIdPath,
	kPartitionInterval,
	kPartitionsAhead,
	kCleanupInterval,
	kCleanupBatchSize,
	kCleanupMaxDuration,
	kCleanupDelay,
	kCleanupGrace,
	kRedisServer,
	kRedisPrefix,
	kPhase,
	kRolloutPercent,
	kPhaseChangedAt,
	kVerifyInterval,
	kVerifySampleSize,
	kMaxDeletePercent,
	kOnEviction,
	kBoundSystem,
	kBoundDatabase,
	kRegistryColumns = kBoundDatabase,
};

constexpr const char *kPhaseNames[] = {
	"redis_only", "dual_redis_primary", "dual_pg_primary", "pg_only"};

HTAB *cache = nullptr;
Oid cached_registry = InvalidOid;
List *retired_plans = NIL; // in CacheMemoryContext

uint64 stale_marks = 0;

void mark_stale(Oid relation) {
	stale_marks++;
	HASH_SEQ_STATUS status;
	hash_seq_init(&status, cache);
	while (auto *store = static_cast<Store *>(hash_seq_search(&status))) {
		if (!OidIsValid(relation) || store->settings.relation == relation ||
			store->sid_index == relation || has_partition(store, relation)) {
			store->valid = false;
			store->table_known = false;
		}
	}
}

void on_relation_change(Datum, Oid relation) {
	if (relation == InvalidOid || relation == cached_registry) {
		cached_registry = InvalidOid;
		mark_stale(InvalidOid);
	} else {
		mark_stale(relation);
	}
}

void on_schema_change(Datum, int, uint32) {
	cached_registry = InvalidOid;
	mark_stale(InvalidOid);
}

void on_role_change(Datum, int, uint32) {
	mark_stale(InvalidOid);
}

void free_retired_plans(XactEvent event, void *) {
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	ListCell *cell;
	foreach (cell, retired_plans)
		SPI_freeplan(static_cast<SPIPlanPtr>(lfirst(cell)));
	list_free(retired_plans);
	retired_plans = NIL;
}

void retire_plans(Store *store) {
	MemoryContext old = MemoryContextSwitchTo(CacheMemoryContext);
	for (SPIPlanPtr &plan : store->plans) {
		if (plan == nullptr)
			continue;
		retired_plans = lappend(retired_plans, plan);
		plan = nullptr;
	}
	MemoryContextSwitchTo(old);
}

void init_cache() {
	if (cache != nullptr)
		return;
	if (CacheMemoryContext == nullptr)
		CreateCacheMemoryContext();
	HASHCTL control = {};
	control.keysize = NAMEDATALEN;
	control.entrysize = sizeof(Store);
	control.hcxt = CacheMemoryContext;
	cache =
		hash_create("session_store stores", 16, &control, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(on_relation_change, 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, on_schema_change, 0);
	CacheRegisterSyscacheCallback(AUTHOID, on_role_change, 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, on_role_change, 0);
	RegisterXactCallback(free_retired_plans, nullptr);
}

int64 duration(const Datum *values, const bool *nulls, int column) {
	if (nulls[column - 1])
		return 0;
	int64 microseconds;
	if (!interval_to_microseconds(DatumGetIntervalP(values[column - 1]), &microseconds))
		elog(ERROR, "a duration in column %d of the registry is out of range", column);
	return microseconds;
}

bool text_equals(Datum value, const char *expected) {
	return strcmp(TextDatumGetCString(value), expected) == 0;
}

void fill_settings(
	HeapTuple tuple, TupleDesc descriptor, StoreSettings *settings, ArrayType **user_id_path) {
	Datum values[kRegistryColumns];
	bool nulls[kRegistryColumns];
	if (descriptor->natts < kRegistryColumns)
		elog(ERROR, "the registry has %d columns", descriptor->natts);
	heap_deform_tuple(tuple, descriptor, values, nulls);
	auto value = [&](RegistryColumn column) { return values[column - 1]; };

	memset(settings, 0, sizeof(*settings));
	settings->id = DatumGetInt32(value(kId));
	settings->name = *DatumGetName(value(kName));
	settings->relation = DatumGetObjectId(value(kRelation));
	settings->payload = text_equals(value(kPayload), "bytea") ? Payload::bytea : Payload::jsonb;
	if (!parse_phase(TextDatumGetCString(value(kPhase)), &settings->phase))
		elog(ERROR, "the registry holds an unknown phase");
	settings->rollout_percent = DatumGetInt32(value(kRolloutPercent));
	settings->phase_changed_at = DatumGetTimestampTz(value(kPhaseChangedAt));
	settings->default_ttl = duration(values, nulls, kDefaultTtl);
	settings->touch_granularity = duration(values, nulls, kTouchGranularity);
	settings->logout_guard = duration(values, nulls, kLogoutGuard);
	settings->partition_interval = duration(values, nulls, kPartitionInterval);
	settings->partition_is_month = !nulls[kPartitionInterval - 1] &&
		is_calendar_month(DatumGetIntervalP(value(kPartitionInterval)));
	settings->partitions_ahead = DatumGetInt32(value(kPartitionsAhead));
	settings->cleanup_interval = duration(values, nulls, kCleanupInterval);
	settings->cleanup_batch_size = DatumGetInt32(value(kCleanupBatchSize));
	settings->cleanup_max_duration = duration(values, nulls, kCleanupMaxDuration);
	settings->cleanup_delay = duration(values, nulls, kCleanupDelay);
	settings->cleanup_grace = duration(values, nulls, kCleanupGrace);
	settings->has_redis_server = !nulls[kRedisServer - 1];
	if (settings->has_redis_server)
		settings->redis_server = *DatumGetName(value(kRedisServer));
	strlcpy(settings->redis_prefix, TextDatumGetCString(value(kRedisPrefix)),
		sizeof(settings->redis_prefix));
	settings->verify_interval = duration(values, nulls, kVerifyInterval);
	settings->verify_sample_size = DatumGetInt32(value(kVerifySampleSize));
	settings->max_delete_percent = DatumGetInt32(value(kMaxDeletePercent));
	settings->on_eviction =
		text_equals(value(kOnEviction), "delete") ? OnEviction::remove : OnEviction::keep;
	settings->is_bound = !nulls[kBoundSystem - 1] && !nulls[kBoundDatabase - 1];
	if (settings->is_bound) {
		settings->bound_system = DatumGetInt64(value(kBoundSystem));
		settings->bound_database = DatumGetObjectId(value(kBoundDatabase));
	}
	if (user_id_path != nullptr) {
		*user_id_path = nullptr;
		if (!nulls[kUserIdPath - 1]) {
			MemoryContext old = MemoryContextSwitchTo(CacheMemoryContext);
			*user_id_path = DatumGetArrayTypePCopy(value(kUserIdPath));
			MemoryContextSwitchTo(old);
		}
	}
}

// Null when the extension is not installed, or is being dropped just now.
Relation open_registry() {
	Oid registry = registry_relation();
	return OidIsValid(registry) ? try_table_open(registry, AccessShareLock) : nullptr;
}

// Reads the one row that `key` finds through the named index. The catalog snapshot sees what is
// committed now and what this transaction wrote. False when there is none.
bool read_registry_row(
	const char *index, ScanKey key, StoreSettings *settings, ArrayType **user_id_path) {
	Relation relation = open_registry();
	if (relation == nullptr)
		return false;
	SysScanDesc scan = systable_beginscan(relation, extension_table(index), true, nullptr, 1, key);
	HeapTuple tuple = systable_getnext(scan);
	bool found = HeapTupleIsValid(tuple);
	if (found)
		fill_settings(tuple, RelationGetDescr(relation), settings, user_id_path);
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

// Fills a stale entry. False when there is no such store.
bool fill_entry(Store *store) {
	ScanKeyData key;
	ScanKeyInit(&key, kName, BTEqualStrategyNumber, F_NAMEEQ, NameGetDatum(&store->name));
	retire_plans(store);
	if (store->user_id_path != nullptr) {
		pfree(store->user_id_path);
		store->user_id_path = nullptr;
	}
	store->table_known = false;
	// A message that arrives while we read makes the entry stale again.
	store->valid = true;
	if (read_registry_row("registry_store_key", &key, &store->settings, &store->user_id_path))
		return true;
	store->valid = false;
	store->settings.relation = InvalidOid;
	return false;
}

Store *lookup(const char *name) {
	// Most applications use one store.
	static Store *latest = nullptr;
	if (latest != nullptr && latest->valid && strcmp(NameStr(latest->name), name) == 0)
		return latest;
	init_cache();
	bool found;
	auto *store = static_cast<Store *>(hash_search(cache, name, HASH_FIND, &found));
	if (store != nullptr && store->valid)
		return latest = store;
	if (store == nullptr) {
		NameData key;
		namestrcpy(&key, name);
		store = static_cast<Store *>(hash_search(cache, NameStr(key), HASH_ENTER, &found));
		memset(reinterpret_cast<char *>(store) + NAMEDATALEN, 0, sizeof(Store) - NAMEDATALEN);
	}
	return fill_entry(store) ? store : nullptr;
}

} // namespace

Oid extension_table(const char *name) {
	Oid schema = get_namespace_oid("session_store", true);
	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

Oid registry_relation() {
	if (OidIsValid(cached_registry))
		return cached_registry;
	init_cache();
	// Nobody's lookalike: only the extension's own table is read as one.
	Oid extension = get_extension_oid("session_store", true);
	Oid registry = OidIsValid(extension) ? extension_table("registry") : InvalidOid;
	if (OidIsValid(registry) && getExtensionOfObject(RelationRelationId, registry) == extension)
		cached_registry = registry;
	return cached_registry;
}

Oid extension_owner() {
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(registry_relation()));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("extension \"session_store\" is not installed in this database"),
				errhint("Run CREATE EXTENSION session_store.")));
	Oid owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

uint64 stale_descriptions() {
	return stale_marks;
}

Store *find_store(const char *name) {
	Store *store = lookup(name);
	if (store == nullptr)
		ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("store \"%s\" does not exist", name),
				errhint("Create it with session_store.create_store().")));
	return store;
}

// The store of that table, as the cache knows it or the registry.
static Store *find_store_by_table(Oid table) {
	HASH_SEQ_STATUS status;
	hash_seq_init(&status, cache);
	while (auto *store = static_cast<Store *>(hash_seq_search(&status))) {
		if (store->valid && store->settings.relation == table) {
			hash_seq_term(&status);
			return store;
		}
	}
	ScanKeyData key;
	StoreSettings settings;
	ScanKeyInit(&key, kRelation, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(table));
	if (!read_registry_row("registry_relation_key", &key, &settings, nullptr))
		return nullptr;
	return lookup(NameStr(settings.name));
}

// A partition is known by its store once that has been described.
static Store *find_store_by_partition(Oid partition) {
	HASH_SEQ_STATUS status;
	hash_seq_init(&status, cache);
	while (auto *store = static_cast<Store *>(hash_seq_search(&status))) {
		if (store->valid && store->table_known && has_partition(store, partition)) {
			hash_seq_term(&status);
			return store;
		}
	}
	Store *store = find_store_by_table(get_partition_parent(partition, true));
	return store != nullptr ? store : find_store_by_table(partition);
}

Store *find_store_of(Relation relation) {
	init_cache();
	if (!relation->rd_rel->relispartition) {
		Store *store = find_store_by_table(RelationGetRelid(relation));
		if (store != nullptr && !store->table_known)
			describe_table(store, relation);
		return store;
	}
	Store *store = find_store_by_partition(RelationGetRelid(relation));
	if (store != nullptr && !store->table_known) {
		Relation table = table_open(store->settings.relation, AccessShareLock);
		describe_table(store, table);
		table_close(table, NoLock);
	}
	return store;
}

Relation open_store_table(Store *store, LOCKMODE lockmode) {
	for (;;) {
		if (!store->valid)
			(void)find_store(NameStr(store->name));
		Relation relation = try_table_open(store->settings.relation, lockmode);
		if (relation == nullptr)
			ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
					errmsg("the table of store \"%s\" does not exist", NameStr(store->name)),
					errhint("Take the store away with session_store.drop_store().")));
		if (store->valid) {
			if (!store->table_known)
				describe_table(store, relation);
			return relation;
		}
		table_close(relation, lockmode);
	}
}

int read_all_stores(StoreSettings **stores) {
	*stores = nullptr;
	Relation relation = open_registry();
	if (relation == nullptr)
		return 0;
	SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, nullptr, 0, nullptr);
	int count = 0;
	int capacity = 8;
	*stores = static_cast<StoreSettings *>(palloc(capacity * sizeof(StoreSettings)));
	while (HeapTuple tuple = systable_getnext(scan)) {
		if (count == capacity) {
			capacity *= 2;
			*stores =
				static_cast<StoreSettings *>(repalloc(*stores, capacity * sizeof(StoreSettings)));
		}
		fill_settings(tuple, RelationGetDescr(relation), &(*stores)[count++], nullptr);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return count;
}

bool read_store(int32 id, StoreSettings *settings) {
	ScanKeyData key;
	ScanKeyInit(&key, kId, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	return read_registry_row("registry_pkey", &key, settings, nullptr);
}

void settings_of_row(HeapTuple row, TupleDesc descriptor, StoreSettings *settings) {
	fill_settings(row, descriptor, settings, nullptr);
}

bool store_is_bound_here(const StoreSettings *settings) {
	return settings->is_bound && settings->bound_database == MyDatabaseId &&
		settings->bound_system == static_cast<int64>(GetSystemIdentifier());
}

const char *phase_name(Phase phase) {
	return kPhaseNames[static_cast<int>(phase)];
}

bool parse_phase(const char *name, Phase *phase) {
	for (size_t i = 0; i < lengthof(kPhaseNames); i++) {
		if (strcmp(name, kPhaseNames[i]) == 0) {
			*phase = static_cast<Phase>(i);
			return true;
		}
	}
	return false;
}

void require_store_owner(const Store *store) {
	if (!owns_relation(store->settings.relation, GetUserId()))
		ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("must be owner of store \"%s\"", NameStr(store->name))));
}

} // namespace session_store
