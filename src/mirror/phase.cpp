// set_phase: moves a store between its phases, and binds it to this cluster and database.
//
// The phase is one column of the registry; what it means to writers is the row trigger's and what
// it means to the mirror the supervisor's business, both of which see it once it is committed.
// Redis and the mirror are asked before the registry's row is locked, since either may be slow; two
// calls at once then follow each other, and the second finds that the first changed the phase.
#include "mirror/phase.h"

#include "postgres/identity.h"
#include "worker/shared_state.h"
#include "worker/worker.h"

extern "C" {
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "tcop/utility.h"
}

namespace session_store {

namespace {

constexpr const char *kPhaseHint =
	"The phases are redis_only, dual_redis_primary, dual_pg_primary and pg_only.";

Phase parse_phase_argument(const char *name) {
	Phase phase;
	if (!parse_phase(name, &phase))
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown phase \"%s\"", name),
				errhint("%s", kPhaseHint)));
	return phase;
}

// The percentage after the change.
int32 percent_argument(FunctionCallInfo fcinfo, int number, const PhaseChange *change) {
	if (PG_ARGISNULL(number))
		return change->to == Phase::dual_redis_primary && change->store.phase == change->to
			? change->store.rollout_percent
			: 0;
	const int32 percent = PG_GETARG_INT32(number);
	if (percent < 0 || percent > 100)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("rollout_percent must be between 0 and 100")));
	if (percent != 0 && change->to != Phase::dual_redis_primary)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("phase %s has no rollout_percent", phase_name(change->to)),
				errhint("Only in dual_redis_primary PostgreSQL owns a share of the sessions.")));
	return percent;
}

void execute(
	const char *sql, int count, Oid *types, Datum *values, const char *nulls, int expected) {
	const int result = SPI_execute_with_args(sql, count, types, values, nulls, false, 0);
	if (result != expected)
		elog(ERROR, "%s: %s", sql, SPI_result_code_string(result));
}

// Locks the store's row in the registry against another set_phase, and sees that nobody was faster.
void lock_store(PhaseChange *change) {
	const int32 id = change->store.id;
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(id)};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	execute("SELECT 1 FROM session_store.registry WHERE id = $1 FOR UPDATE", 1, types, values,
		nullptr, SPI_OK_SELECT);
	SPI_finish();
	leave_identity(&saved);
	const Phase phase = change->store.phase;
	const int32 percent = change->store.rollout_percent;
	if (!read_store(id, &change->store))
		ereport(
			ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("the store was dropped meanwhile")));
	if (change->store.phase != phase || change->store.rollout_percent != percent)
		ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg(
					"the phase of store \"%s\" was changed meanwhile", NameStr(change->store.name)),
				errhint("Call session_store.set_phase() again if it is still wanted.")));
}

// Counts as the table's owner, whose triggers and policies are nobody else's business.
void count_live_sessions(PhaseChange *change) {
	Relation table = table_open(change->store.relation, AccessShareLock);
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

bool changes_anything(const PhaseChange *change) {
	return change->store.phase != change->to || change->store.rollout_percent != change->percent;
}

// What an earlier dual phase has left behind says nothing about the one that begins.
void begin_dual(const PhaseChange *change) {
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(change->store.id)};
	execute("INSERT INTO session_store.mirror_state (store_id, owner_replaces)"
			" VALUES ($1, true) ON CONFLICT (store_id) DO UPDATE SET owner_replaces = true",
		1, types, values, nullptr, SPI_OK_INSERT);
	execute("DELETE FROM session_store.verifications WHERE store_id = $1", 1, types, values,
		nullptr, SPI_OK_DELETE);
	if (OidIsValid(extension_table("kept_evictions")))
		execute("DELETE FROM session_store.kept_evictions WHERE store_id = $1", 1, types, values,
			nullptr, SPI_OK_DELETE);
}

void write_phase(const PhaseChange *change) {
	Oid types[] = {INT4OID, TEXTOID, INT8OID, OIDOID, BOOLOID, INT4OID};
	Datum values[] = {Int32GetDatum(change->store.id), CStringGetTextDatum(phase_name(change->to)),
		Int64GetDatum(static_cast<int64>(GetSystemIdentifier())), ObjectIdGetDatum(MyDatabaseId),
		BoolGetDatum(changes_anything(change)), Int32GetDatum(change->percent)};
	execute("UPDATE session_store.registry SET phase = $2, rollout_percent = $6, bound_system = $3,"
			" bound_database = $4,"
			" phase_changed_at = CASE WHEN $5 THEN clock_timestamp() ELSE phase_changed_at END"
			" WHERE id = $1",
		6, types, values, nullptr, SPI_OK_UPDATE);
	if (enters_dual(change))
		begin_dual(change);
}

void record_change(const PhaseChange *change, const char *user) {
	Oid types[] = {NAMEOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID, BOOLOID};
	Datum values[] = {NameGetDatum(&change->store.name), CStringGetTextDatum(user),
		CStringGetTextDatum(phase_name(change->store.phase)),
		CStringGetTextDatum(phase_name(change->to)), Int32GetDatum(change->store.rollout_percent),
		Int32GetDatum(change->percent), BoolGetDatum(change->force)};
	execute("INSERT INTO session_store.phase_changes (store, changed_by, from_phase, to_phase,"
			" from_rollout_percent, to_rollout_percent, forced)"
			" VALUES ($1, $2::name, $3, $4, $5, $6, $7)",
		7, types, values, nullptr, SPI_OK_INSERT);
}

Oid owner_of_table(Store *store) {
	Relation table = open_store_table(store, AccessShareLock);
	const Oid owner = table->rd_rel->relowner;
	table_close(table, NoLock);
	return owner;
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
	PreventCommandIfReadOnly("session_store.set_phase()");
	PhaseChange change = {};
	Store *store = find_store(NameStr(*PG_GETARG_NAME(0)));
	require_store_owner(store);
	change.store = store->settings;
	change.owner = owner_of_table(store);
	change.to = parse_phase_argument(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	change.percent = percent_argument(fcinfo, 2, &change);
	change.force = PG_GETARG_BOOL(3);
	const char *user = GetUserNameFromId(GetUserId(), false);

	look_before_change(&change);
	lock_store(&change);
	count_live_sessions(&change);
	check_change(&change);

	const Identity saved = enter_extension_owner();
	SPI_connect();
	write_phase(&change);
	if (changes_anything(&change))
		record_change(&change, user);
	SPI_finish();
	leave_identity(&saved);

	if (is_dual(change.to))
		warn_without_mirror();
	PG_RETURN_VOID();
}
