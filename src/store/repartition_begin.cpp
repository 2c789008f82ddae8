// CALL session_store.repartition(): beginning one, and going on until it is done.
#include "core/schedule.h"
#include "postgres/identity.h"
#include "postgres/interval.h"
#include "store/layout.h"
#include "store/procedure.h"
#include "store/repartition.h"
#include "store/repartition_state.h"
#include "store/table_ddl.h"
#include "worker/progress.h"

namespace session_store {

namespace {

// How long a call waits for one lock, until it leaves the rest to a later call or the worker.
constexpr int64 kPatience = 5 * USECS_PER_MINUTE;

// What hangs on a table and would not follow its name.
constexpr const char *kObstacles =
	"SELECT what FROM ("
	"SELECT 'row-level security' AS what FROM pg_catalog.pg_class WHERE oid = $1 AND "
	"relrowsecurity "
	"UNION ALL SELECT pg_catalog.format('policy \"%s\"', polname) FROM pg_catalog.pg_policy "
	"WHERE polrelid = $1 "
	"UNION ALL SELECT pg_catalog.format('trigger \"%s\"', tgname) FROM pg_catalog.pg_trigger t "
	"JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid WHERE tgrelid = $1 AND NOT tgisinternal AND "
	"p.pronamespace <> 'session_store'::pg_catalog.regnamespace "
	"UNION ALL SELECT pg_catalog.format('foreign key \"%s\"', conname) "
	"FROM pg_catalog.pg_constraint WHERE contype = 'f' AND (conrelid = $1 OR confrelid = $1) "
	"UNION ALL SELECT pg_catalog.format('%s', pg_catalog.pg_describe_object(classid, objid, 0)) "
	"FROM pg_catalog.pg_depend WHERE refobjid = $1 AND "
	"refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND "
	"classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass "
	"UNION ALL SELECT pg_catalog.format('publication \"%s\"', pubname) "
	"FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication b ON b.oid = r.prpubid "
	"WHERE prrelid = $1 "
	"UNION ALL SELECT pg_catalog.format('child table \"%s\"', inhrelid::pg_catalog.regclass) "
	"FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent "
	"WHERE inhparent = $1 AND c.relkind = 'r' "
	"UNION ALL SELECT pg_catalog.format('unique index \"%s\"', "
	"indexrelid::pg_catalog.regclass) FROM pg_catalog.pg_index "
	"WHERE indrelid = $1 AND indisunique AND NOT indisprimary AND $2) AS obstacles LIMIT 1";

void require_nothing_else(Oid table, bool to_partitions) {
	static const Oid types[] = {OIDOID, BOOLOID};
	Datum values[] = {ObjectIdGetDatum(table), BoolGetDatum(to_partitions)};
	if (SPI_execute_with_args(
			kObstacles, lengthof(types), const_cast<Oid *>(types), values, nullptr, true, 1) < 0)
		elog(ERROR, "could not look for what depends on a table");
	if (SPI_processed > 0)
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("table \"%s\" cannot be repartitioned", get_rel_name(table)),
				errdetail("It has %s, which would not be on the new table.",
					SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
				errhint("Drop it, and make it again afterwards.")));
}

// Indexes that the owner added, but for those of every store.
void copy_indexes(Oid source, Oid target) {
	static const Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(source)};
	const char *sql =
		"SELECT pg_catalog.pg_get_indexdef(indexrelid), pg_catalog.quote_ident(c.relname), "
		"CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END "
		"FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = indexrelid "
		"LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = indrelid AND a.attnum = indkey[0] "
		"WHERE indrelid = $1 AND NOT indisprimary AND indisvalid AND "
		"NOT (indnatts = 1 AND coalesce(a.attname IN ('expire_bucket', 'user_id'), false))";
	if (SPI_execute_with_args(sql, 1, const_cast<Oid *>(types), values, nullptr, true, 0) < 0)
		elog(ERROR, "could not read the indexes of a table");
	SPITupleTable *indexes = SPI_tuptable;
	const char *only = get_rel_relkind(source) == RELKIND_PARTITIONED_TABLE ? "ONLY " : "";
	for (uint64 i = 0; i < indexes->numvals; i++) {
		const char *definition = SPI_getvalue(indexes->vals[i], indexes->tupdesc, 1);
		const char *name = SPI_getvalue(indexes->vals[i], indexes->tupdesc, 2);
		const char *unique = SPI_getvalue(indexes->vals[i], indexes->tupdesc, 3);
		const char *start =
			psprintf("CREATE %sINDEX %s ON %s%s", unique, name, only, qualified_name(source));
		if (strncmp(definition, start, strlen(start)) != 0)
			elog(ERROR, "the definition of index %s is not understood", name);
		execute_ddl(psprintf(
			"CREATE %sINDEX ON %s%s", unique, qualified_name(target), definition + strlen(start)));
	}
}

// The latest finite expiry of a filled table, by the index on expire_bucket.
TimestampTz latest_expiry(Oid table) {
	if (SPI_execute(psprintf("SELECT expire_bucket FROM %s WHERE expire_bucket < 'infinity' "
							 "ORDER BY expire_bucket DESC LIMIT 1",
						qualified_name(table)),
			true, 1) < 0)
		elog(ERROR, "could not look for the latest expiry");
	bool is_null = true;
	Datum bucket = SPI_processed == 0
		? 0
		: SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	return is_null ? DT_NOBEGIN : DatumGetTimestampTz(bucket) + USECS_PER_HOUR;
}

// As far as the sessions that are there, so that few of them go to the catch-all.
void create_partitions(
	Oid target, const char *base, const core::PartitionRule *rule, TimestampTz latest) {
	const TimestampTz now = GetCurrentTimestamp();
	const TimestampTz needed = core::horizon(*rule, now);
	TimestampTz from = core::range_of(now, rule->interval).from;
	for (int i = 0; i < core::kMostLivePartitions && from < Max(needed, latest); i++) {
		const core::PartitionRange range = core::range_of(from, rule->interval);
		create_partition(target, base, range);
		from = range.to;
	}
}

int64 estimated_rows(Oid table) {
	static const Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(table)};
	if (SPI_execute_with_args(
			"SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_catalog.pg_class c "
			"WHERE c.oid = $1 OR c.oid IN (SELECT inhrelid FROM pg_catalog.pg_inherits "
			"WHERE inhparent = $1)",
			1, const_cast<Oid *>(types), values, nullptr, true, 1) < 0)
		elog(ERROR, "could not estimate a table");
	bool is_null;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
}

// Whether the store has the layout that was asked for.
bool has_layout(Store *store, const Interval *interval) {
	Relation table = open_store_table(store, AccessShareLock);
	bool is_partitioned = store->is_partitioned;
	table_close(table, NoLock);
	if (interval == nullptr || !is_partitioned)
		return interval == nullptr && !is_partitioned;
	const core::PartitionInterval wanted = partition_interval_of(interval);
	return wanted.is_month == store->settings.partition_is_month &&
		(wanted.is_month || wanted.length == store->settings.partition_interval);
}

enum class Turn : uint8_t { begun, step, finished };

// Begins it, or says that there is a step to take, or nothing any more.
Turn look(Store *store, Interval *interval) {
	bool same;
	if (repartition_is_under_way(store, interval, &same)) {
		if (!same)
			ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
					errmsg("store \"%s\" is being repartitioned already", NameStr(store->name)),
					errhint("Wait for it, or call repartition() with the interval of that one to "
							"go on with it.")));
		return Turn::step;
	}
	if (has_layout(store, interval))
		return Turn::finished;
	begin_repartition(store, interval);
	return Turn::begun;
}

// False when somebody was in the way for too long.
bool run_repartition(const char *name, Interval *interval) {
	unsigned failures = 0;
	TimestampTz until = GetCurrentTimestamp() + kPatience;
	for (;;) {
		next_transaction();
		Store *store = own_store(name);
		Turn turn = look(store, interval);
		if (turn == Turn::finished)
			return true;
		if (turn == Turn::begun)
			continue;
		const core::LockTry attempt = core::lock_try(failures);
		PartitionWork work;
		if (repartition_step(store, static_cast<int>(attempt.wait.count()), &work) !=
			StepResult::in_the_way) {
			failures = 0;
			next_transaction();
			wait_microseconds(work.rest);
			until = GetCurrentTimestamp() + kPatience;
			continue;
		}
		failures++;
		if (GetCurrentTimestamp() > until)
			return false;
		next_transaction();
		wait_microseconds(attempt.pause.count() * 1000);
	}
}

} // namespace

void begin_repartition(Store *store, Interval *interval) {
	Relation table = open_store_table(store, AccessShareLock);
	const Oid source = RelationGetRelid(table);
	Identity caller = enter_owner(table->rd_rel->relowner);
	table_close(table, NoLock);
	const bool partitioned = interval != nullptr;
	require_nothing_else(source, partitioned);
	const char *schema = get_namespace_name(get_rel_namespace(source));
	const char *base = get_rel_name(source);
	Oid target = create_table(
		schema, choose_name(source, base, "new"), base, columns_like(source), partitioned);
	copy_indexes(source, target);
	create_triggers(target, partitioned);
	if (partitioned) {
		core::PartitionRule rule = partition_rule(&store->settings);
		rule.interval = partition_interval_of(interval);
		warn_of_many_partitions(NameStr(store->name), &rule);
		create_partitions(target, base, &rule, latest_expiry(source));
	}
	note_repartition(store, target, interval, estimated_rows(source));
	leave_identity(&caller);
}

} // namespace session_store

using namespace session_store;

// (store, partition_interval)
SESSION_STORE_FUNCTION(session_store_repartition) {
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("store must not be null")));
	NameData name = *PG_GETARG_NAME(0);
	Interval *interval = PG_ARGISNULL(1) ? nullptr : PG_GETARG_INTERVAL_P(1);
	if (interval != nullptr)
		(void)partition_interval_of(interval);
	const int32 store_id = own_store(NameStr(name))->settings.id;
	require_commits(fcinfo, "repartition");
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	bool done = run_repartition(NameStr(name), interval);
	SPI_finish();
	end_progress(store_id, Operation::repartition);
	if (!done)
		ereport(WARNING,
			(errmsg("repartitioning store \"%s\" is not finished", NameStr(name)),
				errdetail("Its table is in use."),
				errhint("The worker goes on; or call it again.")));
	PG_RETURN_VOID();
}
