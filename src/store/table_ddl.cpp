// The statements that make a store's table and its partitions.
//
// A partitioned table has no primary key, since that would have to hold expire, and every touch
// would then write all indexes; each partition has one on sid. That a sid is in one partition only
// is kept by the row trigger and the functions (store/one_row.h).
#include "store/table_ddl.h"

#include "postgres/guard.h"
#include "postgres/interval.h"
#include "postgres/pg.h"

extern "C" {
#include "commands/defrem.h"
}

namespace session_store {

namespace {

// Room for HOT updates of nearly every row, and a vacuum that keeps up with them.
constexpr const char *kStorageOptions =
	"fillfactor = 80, vacuum_truncate = false, toast.vacuum_truncate = false, "
	"autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, "
	"autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05, "
	"autovacuum_vacuum_cost_delay = 1";

// The defaults use functions of pg_catalog only, so that the table works without the extension.
// expire_bucket is the hour of expire, under the only index over expiry, which most touches leave
// alone. The row trigger keeps it, not a generated column: PostgreSQL parses the expression of a
// generated column or a CHECK anew for each statement, a sixth of the cost of an upsert. A row
// written past the trigger gets the first bucket, where cleanup looks at its expire every time.
// What a touch changes stands side by side: WAL holds the bytes from the first change to the last.
#ifdef USE_LZ4
#define COMPRESSION_OF_PAYLOAD " COMPRESSION lz4"
#else
#define COMPRESSION_OF_PAYLOAD ""
#endif
constexpr const char *kSessionColumns =
	"sid text COLLATE pg_catalog.\"C\" NOT NULL, "
	"sess %s" COMPRESSION_OF_PAYLOAD " NOT NULL, "
	"user_id text, "
	"created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(), "
	"updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(), "
	"expire timestamptz(3) NOT NULL, "
	"version bigint NOT NULL DEFAULT "
	"(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::bigint, "
	"expire_bucket timestamptz NOT NULL DEFAULT '-infinity'";

// Parts of the names of partitions, and bounds as literals.
struct RangeText {
	char name[64];
	char from[64];
	char to[64];
};

RangeText range_text(core::PartitionRange range) {
	RangeText text;
	CppError error;
	if (!run_cpp(&error, [&] {
			strlcpy(text.name, core::range_name(range).c_str(), sizeof(text.name));
			strlcpy(text.from, core::bound_literal(range.from).c_str(), sizeof(text.from));
			strlcpy(text.to, core::bound_literal(range.to).c_str(), sizeof(text.to));
		}))
		report_cpp_error(&error);
	return text;
}

char *in_schema_of(Oid table, const char *name) {
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), name);
}

char *partition_name(Oid table, const char *base, const char *suffix) {
	return in_schema_of(table, choose_name(table, base, suffix));
}

} // namespace

void execute_ddl(const char *statement) {
	if (SPI_execute(statement, false, 0) < 0)
		elog(ERROR, "could not run a statement: %s", SPI_result_code_string(SPI_result));
}

char *qualified_name(Oid relation) {
	return quote_qualified_identifier(
		get_namespace_name(get_rel_namespace(relation)), get_rel_name(relation));
}

char *session_columns(const char *payload) {
	return psprintf(kSessionColumns, payload);
}

char *columns_like(Oid table) {
	return psprintf("LIKE %s INCLUDING ALL EXCLUDING INDEXES", qualified_name(table));
}

char *choose_name(Oid table, const char *base, const char *suffix) {
	return ChooseRelationName(base, nullptr, suffix, get_rel_namespace(table), false);
}

char *copied_columns(Relation table) {
	StringInfoData names;
	initStringInfo(&names);
	TupleDesc descriptor = RelationGetDescr(table);
	for (int i = 0; i < descriptor->natts; i++) {
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);
		if (!attribute->attisdropped && attribute->attgenerated == '\0')
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
				quote_identifier(NameStr(attribute->attname)));
	}
	return names.data;
}

Oid create_table(
	const char *schema, const char *name, const char *base, const char *columns, bool partitioned) {
	const char *table = quote_qualified_identifier(schema, name);
	if (partitioned)
		execute_ddl(psprintf("CREATE TABLE %s (%s) PARTITION BY RANGE (expire)", table, columns));
	else
		execute_ddl(psprintf(
			"CREATE TABLE %s (%s, PRIMARY KEY (sid)) WITH (%s)", table, columns, kStorageOptions));
	Oid relation = get_relname_relid(name, get_namespace_oid(schema, false));
	execute_ddl(psprintf("CREATE INDEX ON %s (expire_bucket)", table));
	execute_ddl(psprintf("CREATE INDEX ON %s (user_id) WHERE user_id IS NOT NULL", table));
	if (partitioned)
		execute_ddl(
			psprintf("CREATE TABLE %s PARTITION OF %s (PRIMARY KEY (sid)) DEFAULT WITH (%s)",
				partition_name(relation, base, "catch_all"), table, kStorageOptions));
	return relation;
}

// With the whole sid locked, no partition needs the second look that the guard takes at an insert.
void create_triggers(Oid table, bool partitioned) {
	const char *name = qualified_name(table);
	execute_ddl(psprintf("CREATE TRIGGER session_store BEFORE INSERT OR UPDATE OR DELETE ON %s "
						 "FOR EACH ROW EXECUTE FUNCTION session_store.row_trigger()",
		name));
	execute_ddl(
		psprintf("ALTER TRIGGER session_store ON %s DEPENDS ON EXTENSION session_store", name));
	if (partitioned)
		return;
	execute_ddl(psprintf("CREATE TRIGGER session_store_guard AFTER INSERT ON %s "
						 "FOR EACH ROW EXECUTE FUNCTION session_store.row_trigger()",
		name));
	execute_ddl(psprintf(
		"ALTER TRIGGER session_store_guard ON %s DEPENDS ON EXTENSION session_store", name));
}

void create_partition(Oid table, const char *base, core::PartitionRange range) {
	RangeText text = range_text(range);
	execute_ddl(psprintf("CREATE TABLE %s PARTITION OF %s (PRIMARY KEY (sid)) "
						 "FOR VALUES FROM ('%s') TO ('%s') WITH (%s)",
		partition_name(table, base, text.name), qualified_name(table), text.from, text.to,
		kStorageOptions));
}

Oid create_detached_partition(Oid table, core::PartitionRange range) {
	const char *name = choose_name(table, get_rel_name(table), range_text(range).name);
	execute_ddl(psprintf("CREATE TABLE %s (LIKE %s INCLUDING ALL, PRIMARY KEY (sid)) WITH (%s)",
		in_schema_of(table, name), qualified_name(table), kStorageOptions));
	return get_relname_relid(name, get_rel_namespace(table));
}

void attach_partition(Oid table, Oid partition, core::PartitionRange range) {
	RangeText text = range_text(range);
	execute_ddl(psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
		qualified_name(table), qualified_name(partition), text.from, text.to));
}

core::PartitionInterval partition_interval_of(const Interval *interval) {
	core::PartitionInterval result = {0, is_calendar_month(interval)};
	if ((!result.is_month && !interval_to_microseconds(interval, &result.length)) ||
		!core::is_valid(result))
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("partition_interval must be whole minutes between 1 hour and 1 month")));
	return result;
}

core::PartitionRule partition_rule(const StoreSettings *settings) {
	return {{settings->partition_interval, settings->partition_is_month},
		settings->partitions_ahead, settings->default_ttl, settings->cleanup_grace};
}

void warn_of_many_partitions(const char *store, const core::PartitionRule *rule) {
	TimestampTz now = GetCurrentTimestamp();
	int64 count = core::live_partitions(*rule, now);
	if (count <= core::kMostLivePartitions)
		return;
	ereport(WARNING,
		(errmsg("store \"%s\" would have " INT64_FORMAT " live partitions", store, count),
			errdetail("Each lookup of a session tries them one by one; beyond %d of them sessions "
					  "wait in the catch-all.",
				core::kMostLivePartitions),
			errhint("Partitions of %s would fit: call session_store.repartition().",
				core::better_interval(*rule, now))));
}

} // namespace session_store
