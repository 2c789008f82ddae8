// set_phase: moves a store between its phases, and binds it to this cluster and database.
//
// The phase is one column of the registry; what it means to writers is the row trigger's and what
// it means to the mirror the supervisor's business, both of which see it once it is committed.
// Counts are taken under a lock on the registry row, so that two calls at once follow each other.
#include "mirror/redis_options.h"
#include "postgres/identity.h"
#include "postgres/pg.h"
#include "store/registry.h"
#include "worker/shared_state.h"
#include "worker/worker.h"

extern "C" {
#include "access/xlog.h"
#include "commands/dbcommands.h"
}

namespace session_store {

namespace {

constexpr const char *kPhaseHint =
	"The phases are redis_only, dual_redis_primary, dual_pg_primary and pg_only.";

// A call of set_phase, and what it found.
struct PhaseChange {
	StoreSettings store;
	Oid owner;
	Phase to;
	bool force;
	int64 live; // live sessions in PostgreSQL
};

Phase parse_phase_argument(const char *name) {
	Phase phase;
	if (!parse_phase(name, &phase))
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown phase \"%s\"", name),
				errhint("%s", kPhaseHint)));
	if (phase == Phase::dual_pg_primary)
		ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("phase %s is not supported yet", name),
				errhint("Copying changes from PostgreSQL to Redis comes with a later version; go "
						"from dual_redis_primary to pg_only with force => true.")));
	return phase;
}

void check_rollout_argument(bool is_null, int32 percent) {
	if (is_null || percent == 0)
		return;
	if (percent < 0 || percent > 100)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("rollout_percent must be between 0 and 100")));
	ereport(ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("a rollout_percent other than 0 is not supported yet"),
			errhint("Redis owns every session in phase dual_redis_primary.")));
}

void execute(
	const char *sql, int count, Oid *types, Datum *values, const char *nulls, int expected) {
	const int result = SPI_execute_with_args(sql, count, types, values, nulls, false, 0);
	if (result != expected)
		elog(ERROR, "%s: %s", sql, SPI_result_code_string(result));
}

// Locks the store's row in the registry against another set_phase and reads it again.
void lock_store(int32 id, PhaseChange *change) {
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(id)};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	execute("SELECT 1 FROM session_store.registry WHERE id = $1 FOR UPDATE", 1, types, values,
		nullptr, SPI_OK_SELECT);
	SPI_finish();
	leave_identity(&saved);
	if (!read_store(id, &change->store))
		ereport(
			ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("the store was dropped meanwhile")));
}

// Counts as the table's owner, whose triggers and policies are nobody else's business.
void count_live_sessions(PhaseChange *change) {
	Relation table = table_open(change->store.relation, AccessShareLock);
	change->owner = table->rd_rel->relowner;
	const char *schema = get_namespace_name(RelationGetNamespace(table));
	const char *name = quote_qualified_identifier(schema, RelationGetRelationName(table));
	const Identity saved = enter_owner(change->owner);
	SPI_connect();
	execute(psprintf("SELECT count(*) FROM %s WHERE expire > clock_timestamp()", name), 0, nullptr,
		nullptr, nullptr, SPI_OK_SELECT);
	bool is_null;
	change->live =
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
	SPI_finish();
	leave_identity(&saved);
	table_close(table, AccessShareLock);
}

bool mirror_is_in_sync(int32 store_id) {
	MirrorReport report;
	pid_t pid;
	return shared_state_available() && get_mirror_report(MyDatabaseId, store_id, &report, &pid) &&
		pid != 0 && report.state == MirrorState::in_sync;
}

void require_server(const PhaseChange *change) {
	if (!change->store.has_redis_server)
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("store \"%s\" has no redis_server", NameStr(change->store.name)),
				errhint(
					"Name one: UPDATE session_store.stores SET redis_server = ... WHERE store = "
					"'%s'.",
					NameStr(change->store.name))));
	RedisOptions options;
	load_redis_options(NameStr(change->store.redis_server), change->owner, &options);
	forget_password(&options);
	check_redis_settings(&change->store, change->owner);
}

// Redis' state replaces what PostgreSQL holds.
void check_entering_dual(const PhaseChange *change) {
	require_server(change);
	if (change->live == 0)
		return;
	if (!change->force)
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("what Redis holds would replace the live sessions of store \"%s\"",
					NameStr(change->store.name)),
				errdetail("Live sessions in PostgreSQL: " INT64_FORMAT ".", change->live),
				errhint("Call session_store.set_phase() with force => true to let Redis overwrite "
						"and delete them.")));
	ereport(NOTICE,
		(errmsg("what Redis holds replaces the live sessions of store \"%s\"",
			 NameStr(change->store.name)),
			errdetail("Live sessions in PostgreSQL: " INT64_FORMAT ".", change->live)));
}

// Redis' sessions that were not copied would be logged out.
void check_leaving_dual_for_postgres(const PhaseChange *change) {
	if (change->force)
		return;
	const char *name = NameStr(change->store.name);
	if (!mirror_is_in_sync(change->store.id))
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("the mirror of store \"%s\" is not in sync", name),
				errhint("Wait until session_store.status says that it is, or call "
						"session_store.set_phase() with force => true and lose what was not "
						"copied.")));
	if (change->live > 0)
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("store \"%s\" cannot go from %s to %s in one step", name,
					phase_name(change->store.phase), phase_name(change->to)),
				errhint("The step between, dual_pg_primary, comes with a later version: until then "
						"call session_store.set_phase() with force => true.")));
}

void check_change(const PhaseChange *change) {
	const Phase from = change->store.phase;
	if (from == change->to) {
		if (is_dual(change->to))
			require_server(change);
	} else if (is_dual(change->to)) {
		check_entering_dual(change);
	} else if (is_dual(from)) {
		if (change->to == Phase::pg_only)
			check_leaving_dual_for_postgres(change);
	} else if (change->live > 0) {
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("store \"%s\" holds live sessions and cannot go from %s to %s in one step",
					NameStr(change->store.name), phase_name(from), phase_name(change->to)),
				errhint("Go through phase dual_redis_primary.")));
	}
}

void write_phase(const PhaseChange *change) {
	const bool moves = change->store.phase != change->to;
	Oid types[] = {INT4OID, TEXTOID, INT8OID, OIDOID, BOOLOID};
	Datum values[] = {Int32GetDatum(change->store.id), CStringGetTextDatum(phase_name(change->to)),
		Int64GetDatum(static_cast<int64>(GetSystemIdentifier())), ObjectIdGetDatum(MyDatabaseId),
		BoolGetDatum(moves)};
	execute("UPDATE session_store.registry SET phase = $2, rollout_percent = 0, bound_system = $3,"
			" bound_database = $4,"
			" phase_changed_at = CASE WHEN $5 THEN clock_timestamp() ELSE phase_changed_at END"
			" WHERE id = $1",
		5, types, values, nullptr, SPI_OK_UPDATE);
	if (moves && is_dual(change->to))
		execute("INSERT INTO session_store.mirror_state (store_id, owner_replaces)"
				" VALUES ($1, true) ON CONFLICT (store_id) DO UPDATE SET owner_replaces = true",
			1, types, values, nullptr, SPI_OK_INSERT);
}

void record_change(const PhaseChange *change, const char *user) {
	Oid types[] = {NAMEOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, BOOLOID};
	Datum values[] = {NameGetDatum(&change->store.name), CStringGetTextDatum(user),
		CStringGetTextDatum(phase_name(change->store.phase)),
		CStringGetTextDatum(phase_name(change->to)), Int32GetDatum(change->store.rollout_percent),
		BoolGetDatum(change->force)};
	execute("INSERT INTO session_store.phase_changes (store, changed_by, from_phase, to_phase,"
			" from_rollout_percent, to_rollout_percent, forced)"
			" VALUES ($1, $2::name, $3, $4, $5, 0, $6)",
		6, types, values, nullptr, SPI_OK_INSERT);
}

void warn_without_mirror() {
	if (!shared_state_available())
		ereport(WARNING,
			(errmsg("no mirror will run, since session_store was not preloaded"),
				errhint("Put session_store into shared_preload_libraries and restart the "
						"server.")));
	else if (!database_is_listed(get_database_name(MyDatabaseId)))
		ereport(WARNING,
			(errmsg("no mirror will run in this database"),
				errhint("Add it to session_store.databases and reload the configuration.")));
}

void refuse_nulls(FunctionCallInfo fcinfo) {
	static constexpr const char *kNames[] = {"store", "phase", nullptr, "force"};
	for (int i = 0; i < 4; i++)
		if (kNames[i] != nullptr && PG_ARGISNULL(i))
			ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("%s must not be null", kNames[i])));
}

} // namespace

} // namespace session_store

SESSION_STORE_FUNCTION(session_store_set_phase) {
	using namespace session_store;
	refuse_nulls(fcinfo);
	PhaseChange change = {};
	const Store *store = find_store(NameStr(*PG_GETARG_NAME(0)));
	require_store_owner(store);
	change.to = parse_phase_argument(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	check_rollout_argument(PG_ARGISNULL(2), PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2));
	change.force = PG_GETARG_BOOL(3);
	const char *user = GetUserNameFromId(GetUserId(), false);

	lock_store(store->settings.id, &change);
	count_live_sessions(&change);
	check_change(&change);

	const Identity saved = enter_extension_owner();
	SPI_connect();
	write_phase(&change);
	if (change.store.phase != change.to)
		record_change(&change, user);
	SPI_finish();
	leave_identity(&saved);

	if (is_dual(change.to))
		warn_without_mirror();
	PG_RETURN_VOID();
}
