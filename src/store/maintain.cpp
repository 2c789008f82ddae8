// CALL session_store.maintain_partitions(), and the list of a store's partitions.
#include "core/schedule.h"
#include "postgres/identity.h"
#include "store/layout.h"
#include "store/leftovers.h"
#include "store/procedure.h"
#include "store/repartition.h"
#include "store/table_ddl.h"
#include "worker/shared_state.h"

extern "C" {
#include "storage/bufmgr.h"
}

namespace session_store {

namespace {

// How long a call tries for locks that others hold, before it leaves the rest to a later one.
constexpr int64 kPatience = 10 * USECS_PER_SEC;

using Step = StepResult (*)(Store *, int, PartitionWork *);

// Takes the step as often as it is due, a transaction each time. False when somebody is in the way.
bool take_steps(const char *name, Step step, TimestampTz until) {
	unsigned failures = 0;
	for (;;) {
		next_transaction();
		const core::LockTry attempt = core::lock_try(failures);
		PartitionWork work;
		switch (step(own_store(name), static_cast<int>(attempt.wait.count()), &work)) {
		case StepResult::nothing:
			return true;
		case StepResult::done:
			failures = 0;
			if (work.rest > 0) {
				next_transaction();
				wait_microseconds(work.rest);
			}
			break;
		case StepResult::in_the_way:
			failures++;
			if (GetCurrentTimestamp() + attempt.pause.count() * 1000 > until)
				return false;
			next_transaction();
			wait_microseconds(attempt.pause.count() * 1000);
			break;
		}
	}
}

void require_partitioned(Store *store) {
	Relation table = open_store_table(store, AccessShareLock);
	if (!store->is_partitioned)
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("store \"%s\" is not partitioned", NameStr(store->name)),
				errhint("Call session_store.repartition() to partition it.")));
	table_close(table, AccessShareLock);
}

// What partitions() shows of one.
constexpr int kListColumns = 8;

// The planner's idea of how many rows of a partition satisfy a condition.
int64 estimate_rows(Oid partition, const char *condition) {
	SPIPlanPtr plan = SPI_prepare(
		psprintf("SELECT 1 FROM ONLY %s%s", qualified_name(partition), condition), 0, nullptr);
	if (plan == nullptr)
		elog(ERROR, "could not plan a count: %s", SPI_result_code_string(SPI_result));
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);
	double rows =
		cached == nullptr ? 0 : linitial_node(PlannedStmt, cached->stmt_list)->planTree->plan_rows;
	if (cached != nullptr)
		ReleaseCachedPlan(cached, nullptr);
	SPI_freeplan(plan);
	return static_cast<int64>(rows);
}

// An empty table is planned as if it had some pages.
int64 estimate_all(Oid partition) {
	Relation table = table_open(partition, AccessShareLock);
	bool is_empty = RelationGetNumberOfBlocks(table) == 0;
	table_close(table, AccessShareLock);
	return is_empty ? 0 : estimate_rows(partition, "");
}

bool read_action(const Store *store, Oid partition, Datum *action, Datum *at) {
	static const Oid types[] = {INT4OID, OIDOID};
	Datum values[] = {Int32GetDatum(store->settings.id), ObjectIdGetDatum(partition)};
	Identity caller = enter_extension_owner();
	if (SPI_execute_with_args("SELECT action, at FROM session_store.partition_actions "
							  "WHERE store_id = $1 AND partition = $2",
			lengthof(types), const_cast<Oid *>(types), values, nullptr, true, 1) < 0)
		elog(ERROR, "could not read the action of a partition");
	leave_identity(&caller);
	if (SPI_processed == 0)
		return false;
	bool is_null;
	HeapTuple row = SPI_tuptable->vals[0];
	*action = SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &is_null);
	*at = SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &is_null);
	return true;
}

// It has no range and no rows any more.
void list_leftover(const Store *store, Oid leftover, ReturnSetInfo *result) {
	Datum values[kListColumns] = {
		ObjectIdGetDatum(leftover), 0, 0, 0, 0, Int64GetDatum(bytes_of_leftover(leftover))};
	if (DatumGetInt64(values[5]) < 0)
		return;
	bool has_action = read_action(store, leftover, &values[6], &values[7]);
	bool nulls[kListColumns] = {false, true, true, false, false, false, !has_action, !has_action};
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

void list_partition(
	const Store *store, const StorePartition *partition, TimestampTz now, ReturnSetInfo *result) {
	int64 all = estimate_all(partition->relation);
	int64 live = all;
	bool has_range = !partition->is_catch_all;
	if (has_range && partition->to <= now)
		live = 0;
	else if (all > 0 && (!has_range || partition->from < now))
		live = Min(all,
			estimate_rows(partition->relation,
				psprintf(" WHERE expire > %s::pg_catalog.timestamptz",
					quote_literal_cstr(timestamptz_to_str(now)))));
	Datum values[kListColumns] = {ObjectIdGetDatum(partition->relation),
		TimestampTzGetDatum(partition->from), TimestampTzGetDatum(partition->to),
		Int64GetDatum(live), Int64GetDatum(all - live),
		DirectFunctionCall1(pg_total_relation_size, ObjectIdGetDatum(partition->relation))};
	bool has_action = read_action(store, partition->relation, &values[6], &values[7]);
	bool nulls[kListColumns] = {
		false, !has_range, !has_range, false, false, false, !has_action, !has_action};
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

} // namespace

bool free_leftovers(const char *store, TimestampTz until) {
	if (shared_state_available() && supervisor_pid(MyDatabaseId) != 0)
		return true;
	return take_steps(store, free_leftover_step, until);
}

} // namespace session_store

using namespace session_store;

// (store)
SESSION_STORE_FUNCTION(session_store_maintain_partitions) {
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("store must not be null")));
	NameData name = *PG_GETARG_NAME(0);
	require_partitioned(own_store(NameStr(name)));
	require_commits(fcinfo, "maintain_partitions");
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	TimestampTz until = GetCurrentTimestamp() + kPatience;
	bool made = take_steps(NameStr(name), make_partition_step, until) &&
		take_steps(NameStr(name), repartition_step, until);
	bool dropped = take_steps(NameStr(name), drop_partition_step, until);
	bool freed = free_leftovers(NameStr(name), GetCurrentTimestamp() + kPatience);
	SPI_finish();
	const char *done_last = dropped ? "freed" : "dropped";
	if (!made || !dropped || !freed)
		ereport(WARNING,
			(errmsg("partitions of store \"%s\" are in use", NameStr(name)),
				errdetail("Some were not %s.", made ? done_last : "made"),
				errhint("The worker tries again; or call it again later.")));
	PG_RETURN_VOID();
}

// (store)
SESSION_STORE_FUNCTION(session_store_partitions) {
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("store must not be null")));
	Store *store = own_store(NameStr(*PG_GETARG_NAME(0)));
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	Relation table = open_store_table(store, AccessShareLock);
	TimestampTz now = GetCurrentTimestamp();
	SPI_connect();
	Identity caller = enter_owner(table->rd_rel->relowner);
	for (int i = store->partition_count - 1; i >= 0; i--) {
		if (!store->partitions[i].is_catch_all)
			list_partition(store, &store->partitions[i], now, result);
	}
	if (const StorePartition *catch_all = catch_all_of(store))
		list_partition(store, catch_all, now, result);
	ListCell *cell;
	foreach (cell, leftovers_of(RelationGetRelid(table)))
		list_leftover(store, lfirst_oid(cell), result);
	leave_identity(&caller);
	SPI_finish();
	table_close(table, NoLock);
	PG_RETURN_NULL();
}
