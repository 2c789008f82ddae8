// What session_store.status and stat_mirror are made of: reports from shared memory, and the number
// of live sessions. Both only for those who have the rights of the table's owner.
#include "stats/status.h"

#include "postgres/compat.h"
#include "postgres/identity.h"

extern "C" {
#include "nodes/plannodes.h"
#include "utils/plancache.h"
#include "utils/tuplestore.h"
}

namespace session_store {

namespace {

// Counting more would make looking at the status cost more than what it tells.
constexpr int64 kMaxCounted = 100000;

// In the order of the columns of session_store.mirror_reports().
enum ReportColumn {
	kStoreId,
	kPid,
	kState,
	kWords,
	kLagKeys,
	kLagMilliseconds,
	kRedisSessions,
	kRejectsOverLimit,
	kLastError,
	kApplied,
	kUnchanged,
	kHints,
	kGaps,
	kReconnects,
	kComparisons,
	kComparisonDone,
	kComparisonTotal,
	kComparisonStarted,
	kComparisonEnded,
	kFeed,
	kOutboxKeys,
	kOutboxMilliseconds,
	kPushed,
	kPushConflicts,
	kClockDifference,
	kHeldPostgres,
	kHeldRedis,
	kEvictionsKept,
	kReportColumns,
};

struct ReportRow {
	Datum values[kReportColumns];
	bool nulls[kReportColumns];
};

void set(ReportRow *row, ReportColumn column, Datum value) {
	row->values[column] = value;
	row->nulls[column] = false;
}

void set_counters(ReportRow *row, const MirrorReport *report) {
	set(row, kLagKeys, Int64GetDatum(report->lag_keys));
	set(row, kLagMilliseconds, Int64GetDatum(report->lag_milliseconds));
	if (report->redis_sessions >= 0)
		set(row, kRedisSessions, Int64GetDatum(report->redis_sessions));
	set(row, kRejectsOverLimit, Int64GetDatum(report->rejects_over_limit));
	set(row, kApplied, Int64GetDatum(report->applied));
	set(row, kUnchanged, Int64GetDatum(report->unchanged));
	set(row, kHints, Int64GetDatum(report->hints));
	set(row, kGaps, Int64GetDatum(report->gaps));
	set(row, kReconnects, Int64GetDatum(report->reconnects));
	set(row, kComparisons, Int64GetDatum(report->comparisons));
	set(row, kComparisonDone, Int64GetDatum(report->comparison_done));
	set(row, kComparisonTotal, Int64GetDatum(report->comparison_total));
	if (report->comparison_started_at != 0)
		set(row, kComparisonStarted, TimestampTzGetDatum(report->comparison_started_at));
	if (report->comparison_ended_at != 0)
		set(row, kComparisonEnded, TimestampTzGetDatum(report->comparison_ended_at));
	if (report->mode[0] != '\0')
		set(row, kFeed, CStringGetTextDatum(report->mode));
	set(row, kOutboxKeys, Int64GetDatum(report->outbox_keys));
	set(row, kOutboxMilliseconds, Int64GetDatum(report->outbox_oldest_ms));
	set(row, kPushed, Int64GetDatum(report->pushed));
	set(row, kPushConflicts, Int64GetDatum(report->push_conflicts));
	if (report->clock_known)
		set(row, kClockDifference, Int64GetDatum(report->clock_difference_ms));
	set(row, kHeldPostgres, Int64GetDatum(report->held_postgres));
	set(row, kHeldRedis, Int64GetDatum(report->held_redis));
	set(row, kEvictionsKept, Int64GetDatum(report->evictions_kept));
}

// The later one of what the mirror and what the supervisor met.
void set_last_error(ReportRow *row, int32 store_id, const MirrorReport *report) {
	char background[kReportTextBytes];
	TimestampTz at;
	const char *error =
		report != nullptr && report->last_error[0] != '\0' ? report->last_error : nullptr;
	if (get_background_error(MyDatabaseId, store_id, background, &at) &&
		(error == nullptr || at > report->last_error_at))
		error = background;
	if (error != nullptr)
		set(row, kLastError, CStringGetTextDatum(error));
}

void fill_row(ReportRow *row, const StoreSettings *store) {
	memset(row->nulls, true, sizeof(row->nulls));
	set(row, kStoreId, Int32GetDatum(store->id));
	MirrorReport report;
	pid_t pid = 0;
	bool reported = shared_state_available() && is_dual(store->phase) &&
		get_mirror_report(MyDatabaseId, store->id, &report, &pid);
	set(row, kWords, CStringGetTextDatum(mirror_in_words(store, reported ? &report : nullptr)));
	if (reported) {
		set(row, kState, CStringGetTextDatum(mirror_state_name(report.state)));
		set_counters(row, &report);
	}
	if (pid != 0)
		set(row, kPid, Int32GetDatum(pid));
	if (shared_state_available())
		set_last_error(row, store->id, reported ? &report : nullptr);
}

const char *table_in_sql(Relation table) {
	const char *name = quote_qualified_identifier(
		get_namespace_name(RelationGetNamespace(table)), RelationGetRelationName(table));
	return psprintf(table->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "%s" : "ONLY %s", name);
}

const char *live_rows_of(Relation table) {
	return psprintf("SELECT 1 FROM %s WHERE expire > %s::pg_catalog.timestamptz",
		table_in_sql(table), quote_literal_cstr(timestamptz_to_str(GetCurrentTimestamp())));
}

int64 count_live_rows(const char *rows) {
	const char *query =
		psprintf("SELECT count(*) FROM (%s LIMIT " INT64_FORMAT ") AS live", rows, kMaxCounted + 1);
	if (SPI_execute(query, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not count sessions");
	bool is_null;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
}

// How many rows the planner expects.
int64 estimate_live_rows(const char *rows) {
	SPIPlanPtr plan = SPI_prepare(rows, 0, nullptr);
	if (plan == nullptr)
		elog(ERROR, "could not plan a count: %s", SPI_result_code_string(SPI_result));
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);
	if (cached == nullptr)
		elog(ERROR, "could not plan a count");
	double expected = linitial_node(PlannedStmt, cached->stmt_list)->planTree->plan_rows;
	ReleaseCachedPlan(cached, nullptr);
	SPI_freeplan(plan);
	return static_cast<int64>(Min(expected, static_cast<double>(PG_INT32_MAX)));
}

} // namespace

} // namespace session_store

SESSION_STORE_FUNCTION(session_store_mirror_reports) {
	using namespace session_store;
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	StoreSettings *stores;
	int count = read_all_stores(&stores);
	for (int i = 0; i < count; i++) {
		if (!owns_relation(stores[i].relation, GetUserId()))
			continue;
		ReportRow row;
		fill_row(&row, &stores[i]);
		tuplestore_putvalues(result->setResult, result->setDesc, row.values, row.nulls);
	}
	PG_RETURN_NULL();
}

// Runs as the table's owner, so that nothing somebody put on the table runs with the rights of who
// looks at the status.
SESSION_STORE_FUNCTION(session_store_live_sessions) {
	using namespace session_store;
	Oid oid = PG_GETARG_OID(0);
	Relation table = try_table_open(oid, AccessShareLock);
	if (table == nullptr)
		PG_RETURN_NULL();
	if (!owns_relation(oid, GetUserId()))
		ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("must be owner of table \"%s\"", RelationGetRelationName(table))));
	SPI_connect();
	Identity caller = enter_owner(table->rd_rel->relowner);
	const char *rows = live_rows_of(table);
	int64 sessions = count_live_rows(rows);
	if (sessions > kMaxCounted)
		sessions = Max(estimate_live_rows(rows), sessions);
	leave_identity(&caller);
	SPI_finish();
	table_close(table, AccessShareLock);
	PG_RETURN_INT64(sessions);
}
