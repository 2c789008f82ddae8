// Keeping the partitions of a store.
//
// Making one: a table is made by itself, and attached. Attaching locks the catch-all, out of whose
// range the new partition is cut: the sessions in that range are moved within the same transaction.
// PostgreSQL would then read the whole catch-all to prove that none is left. The index on
// expire_bucket proves it in microseconds: under the lock a CHECK that says so is added, marked as
// valid, believed by ATTACH, and dropped again.
//
// Dropping one locks the table, behind everybody who uses it; emptying it does not. Both free its
// space at once: one that is too large for that is detached, see store/leftovers.cpp.
// None of it fires a row trigger: expiry is no logout, and a session that moves is no new one.
#include "store/partitions.h"

#include "postgres/identity.h"
#include "store/cleanup.h"
#include "store/layout.h"
#include "store/leftovers.h"
#include "store/repartition.h"
#include "store/repartition_state.h"
#include "store/table_ddl.h"

extern "C" {
#include "catalog/partition.h"
#include "catalog/pg_constraint.h"
#include "storage/bufmgr.h"
}

namespace session_store {

namespace {

constexpr const char *kProof = "session_store_range_is_empty";
// What moves under the lock takes some 20 microseconds a session.
constexpr int64 kMostMovedAtOnce = 1000;

constexpr const char *kNote =
	"INSERT INTO session_store.partition_actions (store_id, partition, action, at) "
	"SELECT id, $2, $3, pg_catalog.clock_timestamp() FROM session_store.registry WHERE id = $1 "
	"ON CONFLICT (store_id, partition) DO UPDATE SET action = excluded.action, at = excluded.at";
constexpr const char *kForget =
	"DELETE FROM session_store.partition_actions WHERE store_id = $1 AND partition = $2";

// The ranges of the partitions, ascending.
core::PartitionRange *ranges_of(const Store *store, int *count) {
	auto *ranges = static_cast<core::PartitionRange *>(
		palloc(Max(store->partition_count, 1) * sizeof(core::PartitionRange)));
	*count = 0;
	for (int i = store->partition_count - 1; i >= 0; i--) {
		const StorePartition *partition = &store->partitions[i];
		if (!partition->is_catch_all)
			ranges[(*count)++] = {partition->from, partition->to};
	}
	return ranges;
}

bool find_missing_range(const Store *store, core::PartitionRange *missing) {
	int count;
	core::PartitionRange *ranges = ranges_of(store, &count);
	core::PartitionRule rule = partition_rule(&store->settings);
	TimestampTz now = GetCurrentTimestamp();
	auto range = core::missing_range(
		rule, {ranges, static_cast<size_t>(count)}, now, core::horizon(rule, now));
	if (range.has_value())
		*missing = *range;
	return range.has_value();
}

// A row that was written past the row trigger is in the first bucket, whatever its expiry.
constexpr const char *kInRange =
	"expire >= $1 AND expire < $2 AND "
	"(expire_bucket >= $1 - '1 hour'::pg_catalog.interval AND expire_bucket < $2 "
	"OR expire_bucket = '-infinity')";
constexpr const char *kCount =
	"SELECT count(*) FROM (SELECT 1 FROM ONLY %s WHERE %s LIMIT $3) AS waiting";
constexpr const char *kMove = "WITH moved AS (DELETE FROM ONLY %s WHERE %s RETURNING *) "
							  "INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM moved";

// The table is locked, but not open: DDL refuses a relation that is in use.
struct MakeStep {
	Store *store;
	Oid table;
	const char *columns; // that can be copied
	core::PartitionRange range;
	Oid catch_all;
	int wait_ms;
	PartitionWork *work;
	bool is_crowded; // more sessions wait for the partition than may be moved at once
};

void run_over_range(const char *sql, const MakeStep *step) {
	static const Oid types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID};
	Datum values[] = {TimestampTzGetDatum(step->range.from), TimestampTzGetDatum(step->range.to),
		Int64GetDatum(kMostMovedAtOnce + 1)};
	if (SPI_execute_with_args(
			sql, lengthof(types), const_cast<Oid *>(types), values, nullptr, false, 0) < 0)
		elog(ERROR, "could not move sessions to their partition");
}

int64 count_waiting(const MakeStep *step) {
	run_over_range(psprintf(kCount, qualified_name(step->catch_all), kInRange), step);
	bool is_null;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
}

void set_for_move(const char *name, const char *value) {
	(void)set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

int64 move_out_of_catch_all(const MakeStep *step) {
	run_over_range(psprintf(kMove, qualified_name(step->catch_all), kInRange,
					   qualified_name(step->work->partition), step->columns, step->columns),
		step);
	return static_cast<int64>(SPI_processed);
}

// Adds a constraint that ATTACH believes, because we have just seen that it holds.
void prove_range_is_empty(const MakeStep *step) {
	const char *from = quote_literal_cstr(timestamptz_to_str(step->range.from));
	const char *to = quote_literal_cstr(timestamptz_to_str(step->range.to));
	execute_ddl(psprintf("ALTER TABLE %s ADD CONSTRAINT %s CHECK (expire IS NOT NULL AND "
						 "(expire < %s::pg_catalog.timestamptz OR "
						 "expire >= %s::pg_catalog.timestamptz)) NOT VALID",
		qualified_name(step->catch_all), kProof, from, to));
	Oid constraint = get_relation_constraint_oid(step->catch_all, kProof, false);
	Relation catalog = table_open(ConstraintRelationId, RowExclusiveLock);
	HeapTuple tuple = SearchSysCacheCopy1(CONSTROID, ObjectIdGetDatum(constraint));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for constraint %u", constraint);
	reinterpret_cast<Form_pg_constraint>(GETSTRUCT(tuple))->convalidated = true;
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	table_close(catalog, RowExclusiveLock);
	CacheInvalidateRelcacheByRelid(step->catch_all);
	CommandCounterIncrement();
}

void drop_proof(const MakeStep *step) {
	execute_ddl(
		psprintf("ALTER TABLE %s DROP CONSTRAINT %s", qualified_name(step->catch_all), kProof));
}

// Somebody else may have made it before we had the lock.
bool is_still_missing(const MakeStep *step) {
	table_close(open_store_table(step->store, AccessShareLock), NoLock);
	core::PartitionRange range;
	return find_missing_range(step->store, &range) && range == step->range;
}

StepResult make_partition(void *argument) {
	auto *step = static_cast<MakeStep *>(argument);
	// Keeps other maintainers out, and nobody else.
	if (!lock_for_ddl(step->table, ShareUpdateExclusiveLock, step->wait_ms) ||
		!is_still_missing(step))
		return StepResult::in_the_way;
	step->work->partition = create_detached_partition(step->table, step->range);
	if (!lock_for_ddl(step->catch_all, AccessExclusiveLock, step->wait_ms))
		return StepResult::in_the_way;
	if (count_waiting(step) > kMostMovedAtOnce) {
		step->is_crowded = true;
		return StepResult::in_the_way;
	}
	step->work->moved = move_out_of_catch_all(step);
	prove_range_is_empty(step);
	attach_partition(step->table, step->work->partition, step->range);
	drop_proof(step);
	note_action(step->store, step->work->partition,
		step->work->moved > 0
			? psprintf("made, with " INT64_FORMAT " sessions of the catch-all", step->work->moved)
			: "made");
	return StepResult::done;
}

// Copies the store into a new table of the same layout, where every session has its partition.
void rebuild(Store *store) {
	Interval interval = {};
	if (store->settings.partition_is_month)
		interval.month = 1;
	else if (store->settings.partition_interval % USECS_PER_DAY == 0)
		interval.day = static_cast<int32>(store->settings.partition_interval / USECS_PER_DAY);
	else
		interval.time = store->settings.partition_interval;
	begin_repartition(store, &interval);
}

struct DropStep {
	Store *store;
	Oid table;
	Oid owner;
	Oid partition;
	Oid catch_all; // whose bounds change with it; may be none
	int wait_ms;
};

bool lock_catch_all(const DropStep *step) {
	return !OidIsValid(step->catch_all) || lock_for_ddl(step->catch_all, AccessExclusiveLock, 0);
}

// Somebody else may have dropped or detached it before we had the lock.
bool is_still_partition(const DropStep *step) {
	return get_rel_relispartition(step->partition) &&
		get_partition_parent(step->partition, false) == step->table;
}

StepResult drop_or_detach(const DropStep *step) {
	if (is_worth_detaching(step->partition, step->owner)) {
		if (!detach_as_leftover(step->table, step->partition))
			return StepResult::in_the_way;
		note_action(step->store, step->partition, "dropped, its space is given back in slices");
		return StepResult::done;
	}
	execute_ddl(psprintf("DROP TABLE %s", qualified_name(step->partition)));
	note_action(step->store, step->partition, nullptr);
	return StepResult::done;
}

StepResult drop_partition(void *argument) {
	auto *step = static_cast<DropStep *>(argument);
	if (!lock_for_ddl(step->table, AccessExclusiveLock, step->wait_ms) || !lock_catch_all(step) ||
		!lock_for_drop(step->partition) || !is_still_partition(step))
		return StepResult::in_the_way;
	const int level = limit_lock_waits(kDependentsWait);
	const StepResult result = drop_or_detach(step);
	AtEOXact_GUC(false, level);
	return result;
}

StepResult empty_partition(void *argument) {
	auto *step = static_cast<DropStep *>(argument);
	if (!lock_for_drop(step->partition) || !is_still_partition(step) ||
		is_worth_detaching(step->partition, step->owner))
		return StepResult::in_the_way;
	Relation partition = table_open(step->partition, NoLock);
	bool is_empty = RelationGetNumberOfBlocks(partition) == 0;
	table_close(partition, NoLock);
	if (is_empty)
		return StepResult::in_the_way;
	// No trigger is to take it for a TRUNCATE of somebody's.
	const int level = NewGUCNestLevel();
	set_for_move("session_replication_role", "replica");
	execute_ddl(psprintf("TRUNCATE ONLY %s", qualified_name(step->partition)));
	AtEOXact_GUC(false, level);
	note_action(step->store, step->partition, "emptied, to be dropped when the table is free");
	return StepResult::done;
}

const StorePartition *find_oldest_over(const Store *store) {
	TimestampTz now = removable_until(&store->settings, GetCurrentTimestamp());
	for (int i = store->partition_count - 1; i >= 0; i--) {
		const StorePartition *partition = &store->partitions[i];
		if (!partition->is_catch_all)
			return core::is_over(
					   {partition->from, partition->to}, store->settings.cleanup_grace, now)
				? partition
				: nullptr;
	}
	return nullptr;
}

} // namespace

void note_action(const Store *store, Oid partition, const char *action) {
	static const Oid types[] = {INT4OID, OIDOID, TEXTOID};
	Datum values[] = {Int32GetDatum(store->settings.id), ObjectIdGetDatum(partition),
		action != nullptr ? CStringGetTextDatum(action) : 0};
	Identity caller = enter_extension_owner();
	if (SPI_execute_with_args(action != nullptr ? kNote : kForget, action != nullptr ? 3 : 2,
			const_cast<Oid *>(types), values, nullptr, false, 0) < 0)
		elog(ERROR, "could not note the action of a partition");
	leave_identity(&caller);
}

void make_first_partitions(const char *name) {
	Store *store = find_store(name);
	core::PartitionRule rule = partition_rule(&store->settings);
	warn_of_many_partitions(name, &rule);
	Relation table = open_store_table(store, AccessExclusiveLock);
	Oid oid = RelationGetRelid(table);
	core::PartitionRange range;
	bool missing = find_missing_range(store, &range);
	table_close(table, NoLock);
	while (missing) {
		create_partition(oid, get_rel_name(oid), range);
		table = open_store_table(store, AccessExclusiveLock);
		missing = find_missing_range(store, &range);
		table_close(table, NoLock);
	}
}

StepResult make_partition_step(Store *store, int wait_ms, PartitionWork *work) {
	*work = {};
	Relation table = open_store_table(store, AccessShareLock);
	const StorePartition *catch_all = catch_all_of(store);
	MakeStep step = {store, RelationGetRelid(table), copied_columns(table), {}, InvalidOid, wait_ms,
		work, false};
	bool is_due = catch_all != nullptr && store->settings.partition_interval > 0 &&
		find_missing_range(store, &step.range);
	Oid owner = table->rd_rel->relowner;
	table_close(table, NoLock);
	if (!is_due)
		return StepResult::nothing;
	step.catch_all = catch_all->relation;
	// A table made in vain leaves dead rows in the catalogs.
	if (wait_ms == 0 && !could_lock(step.catch_all, AccessExclusiveLock))
		return StepResult::in_the_way;
	SPI_connect();
	bool same;
	if (repartition_is_under_way(store, nullptr, &same)) {
		SPI_finish(); // the new layout has it
		return StepResult::nothing;
	}
	Identity caller = enter_owner(owner);
	set_for_move("session_replication_role", "replica");
	set_for_move("enable_seqscan", "off");
	StepResult result = try_ddl_step(make_partition, &step);
	leave_identity(&caller);
	if (step.is_crowded) {
		rebuild(store);
		result = StepResult::done;
	}
	SPI_finish();
	return result;
}

StepResult drop_partition_step(Store *store, int wait_ms, PartitionWork *work) {
	*work = {};
	Relation table = open_store_table(store, AccessShareLock);
	const StorePartition *over = store->is_partitioned ? find_oldest_over(store) : nullptr;
	const StorePartition *catch_all = catch_all_of(store);
	DropStep step = {store, RelationGetRelid(table), table->rd_rel->relowner, InvalidOid,
		catch_all == nullptr ? InvalidOid : catch_all->relation, wait_ms};
	table_close(table, NoLock);
	if (over == nullptr)
		return StepResult::nothing;
	step.partition = work->partition = over->relation;
	SPI_connect();
	Identity caller = enter_owner(step.owner);
	StepResult result = try_ddl_step(drop_partition, &step);
	if (result == StepResult::in_the_way)
		(void)try_ddl_step(empty_partition, &step);
	leave_identity(&caller);
	SPI_finish();
	return result;
}

} // namespace session_store
