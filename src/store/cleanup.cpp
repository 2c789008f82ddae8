// Removing expired rows in batches.
//
// A batch is a transaction of its own: it finds rows by the index on expire_bucket, which a touch
// leaves alone, and deletes those that nobody else has locked; by a statement where the table has
// triggers or rules of its user's. Within a run the scan starts at the bucket that the last batch
// reached, since the dead index entries before it stay until vacuum. An expired row is no logout:
// it leaves no tombstone.
//
// Rights: triggers, rules, constraints and index expressions belong to the table's owner, so all of
// it runs as the owner in a security-restricted operation. Deferred constraint triggers would run
// at commit, with the rights of whoever commits: they are made to run at once.
#include "store/cleanup.h"

#include "core/partitions.h"
#include "postgres/identity.h"
#include "postgres/interval.h"
#include "store/ddl_step.h"
#include "store/direct_delete.h"
#include "store/layout.h"
#include "store/leftovers.h"
#include "store/procedure.h"
#include "store/write_origin.h"
#include "worker/progress.h"
#include "worker/shared_state.h"

extern "C" {
#include "catalog/pg_am.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
}

namespace session_store {

namespace {

constexpr int64 kClockSlack = 100 * 1000; // microseconds: Redis' clock is known no better
constexpr int64 kWorthNoting = 60 * USECS_PER_SEC;
constexpr const char *kBucketColumn = "expire_bucket";

// $1: first bucket, $2: rows that expired up to then, $3: how many. A row that was extended after
// it was found is locked in its new version, whose ctid the deletion does not see: it stays.
constexpr const char *kBatch =
	"WITH due AS MATERIALIZED ("
	"SELECT ctid, expire_bucket FROM ONLY %s "
	"WHERE expire_bucket >= $1 AND expire_bucket <= $2 AND expire <= $2 "
	"ORDER BY expire_bucket LIMIT $3 FOR UPDATE SKIP LOCKED), "
	"gone AS (DELETE FROM ONLY %s WHERE ctid = ANY (ARRAY(SELECT ctid FROM due)) AND expire <= $2 "
	"RETURNING 1) "
	"SELECT (SELECT count(*) FROM due), (SELECT max(expire_bucket) FROM due), "
	"(SELECT count(*) FROM gone)";

constexpr const char *kRecord =
	"INSERT INTO session_store.activity (store_id, last_cleanup, cleaned_rows) "
	"SELECT id, pg_catalog.clock_timestamp(), $2 FROM session_store.registry WHERE id = $1 "
	"ON CONFLICT (store_id) DO UPDATE "
	"SET last_cleanup = excluded.last_cleanup, cleaned_rows = excluded.cleaned_rows";

constexpr const char *kRemoveTombstones =
	"DELETE FROM session_store.tombstones WHERE ctid = ANY (ARRAY("
	"SELECT t.ctid FROM session_store.tombstones t "
	"LEFT JOIN session_store.registry r ON r.id = t.store_id "
	"WHERE ($1 = 0 OR t.store_id = $1) AND (r.id IS NULL OR "
	"t.ended_at <= pg_catalog.clock_timestamp() - r.logout_guard) "
	"LIMIT $2 FOR UPDATE OF t SKIP LOCKED))";

// Whatever the session or the database says of plans: only the index will do.
constexpr const char *kPlannerSettings[][2] = {
	{"enable_seqscan", "off"},
	{"enable_bitmapscan", "off"},
	{"enable_indexscan", "on"},
	{"enable_indexonlyscan", "on"},
	{"enable_tidscan", "on"},
	{"jit", "off"},
};

// ERROR when there is none.
Oid find_bucket_index(Relation table) {
	AttrNumber bucket = get_attnum(RelationGetRelid(table), kBucketColumn);
	Oid found = InvalidOid;
	List *indexes = bucket == InvalidAttrNumber ? NIL : RelationGetIndexList(table);
	ListCell *cell;
	foreach (cell, indexes) {
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);
		if (index->rd_index->indisvalid && index->rd_rel->relam == BTREE_AM_OID &&
			index->rd_index->indkey.values[0] == bucket &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, nullptr))
			found = RelationGetRelid(index);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	if (!OidIsValid(found))
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("table \"%s\" of a session store has no index on \"%s\"",
					RelationGetRelationName(table), kBucketColumn),
				errhint("Cleanup needs it: create it again.")));
	return found;
}

// Needs an SPI connection. The error of a statement is raised by itself.
void run(const char *statement, int arguments, const Oid *types, Datum *values) {
	int result = SPI_execute_with_args(
		statement, arguments, const_cast<Oid *>(types), values, nullptr, false, 0);
	if (result < 0)
		elog(ERROR, "could not run a statement: %s", SPI_result_code_string(result));
}

int64 count_at(int column) {
	bool is_null;
	return DatumGetInt64(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &is_null));
}

struct Batch {
	Relation table; // the store's, or a partition of it
	const Store *store;
	Oid bucket_index;
	TimestampTz until;
	int size;
	CleanupProgress *progress;
};

// False when the table is not one for that.
bool delete_at_once(const Batch *batch) {
	const Store *store = batch->store;
	const StorePartition *partition = find_partition(store, RelationGetRelid(batch->table));
	const StoreColumns *columns = partition == nullptr ? &store->columns : &partition->columns;
	CleanupProgress *progress = batch->progress;
	const ExpiredRows rows = {
		columns->expire, columns->expire_bucket, progress->low_water, batch->until, batch->size};
	DeletedRows deleted;
	if (!delete_expired_directly(
			batch->table, batch->bucket_index, store->settings.id, columns->sid, &rows, &deleted))
		return false;
	if (deleted.count > 0)
		progress->low_water = deleted.last_bucket;
	progress->deleted += deleted.count;
	progress->exhausted = deleted.count < batch->size;
	return true;
}

// It runs what the user has on the table.
void delete_by_statement(const Batch *batch) {
	CleanupProgress *progress = batch->progress;
	for (const auto &setting : kPlannerSettings)
		(void)set_config_option(
			setting[0], setting[1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	run("SET CONSTRAINTS ALL IMMEDIATE", 0, nullptr, nullptr);
	begin_write(batch->store->settings.relation, WriteOrigin::housekeeping, true);
	const char *name =
		quote_qualified_identifier(get_namespace_name(RelationGetNamespace(batch->table)),
			RelationGetRelationName(batch->table));
	static const Oid types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID};
	Datum values[] = {TimestampTzGetDatum(progress->low_water), TimestampTzGetDatum(batch->until),
		Int32GetDatum(batch->size)};
	run(psprintf(kBatch, name, name), lengthof(types), types, values);
	end_write();
	int64 found = count_at(1);
	int64 deleted = count_at(3);
	bool is_null;
	Datum bucket = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &is_null);
	if (!is_null)
		progress->low_water = DatumGetTimestampTz(bucket);
	progress->deleted += deleted;
	// Rows that are found and will not go, such as those that a trigger keeps, would be found
	// again.
	progress->exhausted = found < batch->size || deleted == 0;
}

StepResult delete_batch(void *argument) {
	const auto *batch = static_cast<Batch *>(argument);
	if (!delete_at_once(batch))
		delete_by_statement(batch);
	return StepResult::done;
}

void clean_as_owner(Relation table, const Store *store, int batch_size, CleanupProgress *progress) {
	const StoreSettings *settings = &store->settings;
	Batch batch = {table, store, find_bucket_index(table),
		removable_until(settings, GetCurrentTransactionStartTimestamp()) - settings->cleanup_grace,
		batch_size, progress};
	Identity caller = enter_owner(table->rd_rel->relowner);
	// It fails when a session that was found is moved to another partition before it is locked.
	progress->interrupted = try_ddl_step(delete_batch, &batch) == StepResult::in_the_way;
	leave_identity(&caller);
}

// The partition whose turn it is, or null at the end. `now`: removable_until().
const StorePartition *next_partition(
	const Store *store, const CleanupProgress *progress, TimestampTz now) {
	if (!progress->catch_all_is_done && catch_all_of(store) != nullptr)
		return catch_all_of(store);
	for (int i = store->partition_count - 1; i >= 0 && progress->scope == CleanupScope::everything;
		 i--) {
		const StorePartition *partition = &store->partitions[i];
		core::PartitionRange range = {partition->from, partition->to};
		if (!partition->is_catch_all && partition->to > progress->done_to &&
			partition->from <= now - store->settings.cleanup_grace &&
			!core::is_over(range, store->settings.cleanup_grace, now))
			return partition;
	}
	return nullptr;
}

void note_partition_done(CleanupProgress *progress, const StorePartition *partition) {
	if (partition->is_catch_all)
		progress->catch_all_is_done = true;
	else
		progress->done_to = partition->to;
	progress->low_water = DT_NOBEGIN;
	progress->exhausted = false;
}

// A batch in one partition; those where nothing has expired are passed over.
void clean_partitions(Store *store, int batch_size, CleanupProgress *progress) {
	const int64 deleted_before = progress->deleted;
	do {
		const StorePartition *found = next_partition(store, progress,
			removable_until(&store->settings, GetCurrentTransactionStartTimestamp()));
		if (found == nullptr) {
			progress->exhausted = true;
			return;
		}
		// What is cleaned may run code of the owner's, which may change the description.
		const StorePartition partition = *found;
		Relation table = table_open(partition.relation, RowExclusiveLock);
		clean_as_owner(table, store, batch_size, progress);
		table_close(table, NoLock);
		if (progress->exhausted)
			note_partition_done(progress, &partition);
	} while (progress->deleted == deleted_before && !progress->interrupted);
}

} // namespace

TimestampTz removable_until(const StoreSettings *settings, TimestampTz now) {
	if (!is_dual(settings->phase) || !store_is_bound_here(settings))
		return now;
	MirrorReport report;
	pid_t pid;
	if (!shared_state_available() ||
		!get_mirror_report(MyDatabaseId, settings->id, &report, &pid) || report.copied_until == 0)
		return 0;
	// By Redis' clock a session may live on when it has expired by ours.
	const int64 behind = Max(-report.clock_difference_ms, int64{0}) * 1000;
	return Min(now, report.copied_until - behind - kClockSlack);
}

void clean_batch(Store *store, int batch_size, CleanupProgress *progress) {
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	Relation table = open_store_table(store, RowExclusiveLock);
	if (store->is_partitioned)
		clean_partitions(store, batch_size, progress);
	else
		clean_as_owner(table, store, batch_size, progress);
	table_close(table, NoLock);
	PopActiveSnapshot();
	SPI_finish();
	report_progress(store->settings.id, Operation::cleanup, progress->deleted, -1);
}

void record_cleanup(int32 store_id, int64 deleted) {
	static const Oid types[] = {INT4OID, INT8OID};
	Datum values[] = {Int32GetDatum(store_id), Int64GetDatum(deleted)};
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	Identity caller = enter_extension_owner();
	run(kRecord, lengthof(types), types, values);
	leave_identity(&caller);
	PopActiveSnapshot();
	SPI_finish();
	end_progress(store_id, Operation::cleanup);
}

int64 remove_old_tombstones(int32 store_id) {
	static const Oid types[] = {INT4OID, INT4OID};
	Datum values[] = {Int32GetDatum(store_id), Int32GetDatum(kTombstoneBatch)};
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	Identity caller = enter_extension_owner();
	run(kRemoveTombstones, lengthof(types), types, values);
	int64 removed = static_cast<int64>(SPI_processed);
	leave_identity(&caller);
	PopActiveSnapshot();
	SPI_finish();
	return removed;
}

namespace {

// What CALL session_store.cleanup() was asked for; NULL arguments mean the store's settings.
struct CleanupRequest {
	NameData store;
	int batch_size;     // 0: the setting
	int64 max_duration; // 0: the setting
	int64 delay;        // -1: the setting
};

int64 duration_argument(FunctionCallInfo fcinfo, int number, const char *name, int64 smallest) {
	int64 microseconds;
	if (!interval_to_microseconds(PG_GETARG_INTERVAL_P(number), &microseconds))
		ereport(
			ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s is out of range", name)));
	if (microseconds < smallest)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg(smallest > 0 ? "%s must be positive" : "%s must not be negative", name)));
	return microseconds;
}

CleanupRequest cleanup_arguments(FunctionCallInfo fcinfo) {
	CleanupRequest request = {{}, 0, 0, -1};
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("store must not be null")));
	request.store = *PG_GETARG_NAME(0);
	if (!PG_ARGISNULL(1)) {
		request.batch_size = PG_GETARG_INT32(1);
		if (request.batch_size < 1 || request.batch_size > kMaxCleanupBatch)
			ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("batch_size must be between 1 and %d", kMaxCleanupBatch)));
	}
	if (!PG_ARGISNULL(2))
		request.max_duration = duration_argument(fcinfo, 2, "max_duration", 1);
	if (!PG_ARGISNULL(3))
		request.delay = duration_argument(fcinfo, 3, "delay", 0);
	return request;
}

// Those that somebody uses are for another time.
void drop_expired_partitions(const char *name) {
	PartitionWork work;
	do
		next_transaction();
	while (drop_partition_step(own_store(name), 0, &work) == StepResult::done);
	(void)free_leftovers(name, 0);
}

// The caller is told where rows that he may look for are kept.
void note_kept_rows(const StoreSettings *settings) {
	const TimestampTz now = GetCurrentTimestamp();
	const TimestampTz until = removable_until(settings, now);
	if (now - until < kWorthNoting)
		return;
	ereport(NOTICE,
		(errmsg("what has expired lately in store \"%s\" is kept for now", NameStr(settings->name)),
			errdetail("The mirror has yet to copy what may have renewed it."),
			errhint("session_store.status says what the mirror does.")));
}

int64 run_cleanup(const CleanupRequest *request) {
	drop_expired_partitions(NameStr(request->store));
	CleanupProgress progress = begin_cleanup(CleanupScope::everything);
	TimestampTz start = GetCurrentTimestamp();
	int32 store_id;
	for (;;) {
		next_transaction();
		Store *store = own_store(NameStr(request->store));
		store_id = store->settings.id;
		int batch_size =
			request->batch_size > 0 ? request->batch_size : store->settings.cleanup_batch_size;
		int64 max_duration = request->max_duration > 0 ? request->max_duration
													   : store->settings.cleanup_max_duration;
		int64 delay = request->delay >= 0 ? request->delay : store->settings.cleanup_delay;
		commit_without_waiting();
		clean_batch(store, batch_size, &progress);
		if (progress.exhausted || GetCurrentTimestamp() - start + delay >= max_duration)
			break;
		if (delay > 0) {
			next_transaction();
			wait_microseconds(delay);
		}
	}
	next_transaction();
	while (remove_old_tombstones(store_id) == kTombstoneBatch)
		next_transaction();
	record_cleanup(store_id, progress.deleted);
	return progress.deleted;
}

} // namespace

} // namespace session_store

SESSION_STORE_FUNCTION(session_store_cleanup) {
	using namespace session_store;
	CleanupRequest request = cleanup_arguments(fcinfo);
	TupleDesc result;
	if (get_call_result_type(fcinfo, nullptr, &result) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	result = BlessTupleDesc(result);
	const StoreSettings settings = own_store(NameStr(request.store))->settings;
	require_commits(fcinfo, "cleanup");
	note_kept_rows(&settings);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	int64 deleted = run_cleanup(&request);
	SPI_finish();
	Datum value = Int64GetDatum(deleted);
	bool is_null = false;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(result, &value, &is_null)));
}
