// Making and taking away stores, and the rights to use them.
//
// The session table is made with the caller's rights and belongs to the caller: nothing in it needs
// the extension but the triggers, which go with it (DEPENDS ON EXTENSION). Only the registry is
// written as the extension's owner.
#include <initializer_list>

#include "postgres/compat.h"
#include "postgres/identity.h"
#include "postgres/pg.h"
#include "store/leftovers.h"
#include "store/plans.h"
#include "store/registry.h"
#include "store/repartition.h"
#include "store/table_ddl.h"
#include "store/tombstones.h"

extern "C" {
#include "commands/event_trigger.h"
#include "tcop/utility.h"
}

namespace session_store {

namespace {

// Functions an application calls; the rest is for those who manage stores.
constexpr const char *kAppFunctions[] = {"upsert", "upsert_bytes", "get", "get_bytes",
	"get_versioned", "get_and_touch", "get_bytes_and_touch", "get_many", "get_many_bytes", "touch",
	"merge", "expire", "destroy", "expire_user", "user_sessions", "user_sessions_bytes", "routing",
	"owner"};

void register_store(
	const char *name, Oid relation, const char *payload, Interval *partition_interval) {
	static const Oid types[] = {NAMEOID, OIDOID, TEXTOID, INTERVALOID};
	NameData store;
	namestrcpy(&store, name);
	Datum values[] = {NameGetDatum(&store), ObjectIdGetDatum(relation),
		CStringGetTextDatum(payload), PointerGetDatum(partition_interval)};
	const char nulls[] = {' ', ' ', ' ', partition_interval == nullptr ? 'n' : ' ', '\0'};
	Identity caller = enter_extension_owner();
	if (SPI_execute_with_args(
			"INSERT INTO session_store.registry (store, relation, payload, partition_interval) "
			"VALUES ($1, $2, $3, $4)",
			lengthof(types), const_cast<Oid *>(types), values, nulls, false, 0) < 0)
		elog(ERROR, "could not register a store: %s", SPI_result_code_string(SPI_result));
	leave_identity(&caller);
}

// Removes the registry's row and all that hangs on it. Needs an SPI connection.
void unregister_store(int32 id) {
	static const Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(id)};
	Identity caller = enter_extension_owner();
	if (SPI_execute_with_args("DELETE FROM session_store.registry WHERE id = $1", 1,
			const_cast<Oid *>(types), values, nullptr, false, 0) < 0)
		elog(ERROR, "could not remove a store: %s", SPI_result_code_string(SPI_result));
	leave_identity(&caller);
	remove_tombstones(id);
}

void require_unused(const char *name) {
	StoreSettings *stores;
	int count = read_all_stores(&stores);
	for (int i = 0; i < count; i++) {
		if (strcmp(NameStr(stores[i].name), name) == 0)
			ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("store \"%s\" already exists", name)));
	}
}

const char *name_argument(FunctionCallInfo fcinfo, int number, const char *what) {
	if (PG_ARGISNULL(number))
		ereport(
			ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", what)));
	const char *name = NameStr(*PG_GETARG_NAME(number));
	if (name[0] == '\0')
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("%s must not be empty", what)));
	return name;
}

// What grant_app and grant_admin give is granted by the extension's owner, who alone can.
void grant_as_extension(const char *what, const char *role) {
	Identity caller = enter_extension_owner();
	execute_ddl(psprintf("GRANT %s TO %s", what, quote_identifier(role)));
	leave_identity(&caller);
}

const char *role_argument(FunctionCallInfo fcinfo, int number) {
	const char *role = name_argument(fcinfo, number, "role");
	(void)get_role_oid(role, false);
	return role;
}

} // namespace

} // namespace session_store

using namespace session_store;

// (store, payload, partition_interval, table_schema)
SESSION_STORE_FUNCTION(session_store_create_store) {
	const char *name = name_argument(fcinfo, 0, "store");
	if (PG_ARGISNULL(1))
		ereport(
			ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("payload must not be null")));
	const char *payload = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (strcmp(payload, "jsonb") != 0 && strcmp(payload, "bytea") != 0)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("payload must be \"jsonb\" or \"bytea\", not \"%s\"", payload)));
	Interval *partition_interval = PG_ARGISNULL(2) ? nullptr : PG_GETARG_INTERVAL_P(2);
	if (partition_interval != nullptr)
		(void)partition_interval_of(partition_interval);
	if (PG_ARGISNULL(3))
		ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_SCHEMA),
				errmsg("no schema has been selected to create the table in"),
				errhint("Give table_schema.")));
	const char *schema = name_argument(fcinfo, 3, "table_schema");
	require_unused(name);
	if (OidIsValid(get_relname_relid(name, get_namespace_oid(schema, false))))
		ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_TABLE),
				errmsg("relation \"%s\" already exists in schema \"%s\"", name, schema),
				errhint("Give the store another name, or give another table_schema.")));
	SPI_connect();
	bool partitioned = partition_interval != nullptr;
	Oid relation = create_table(schema, name, name, session_columns(payload), partitioned);
	create_triggers(relation, partitioned);
	register_store(name, relation, payload, partition_interval);
	if (partitioned)
		make_first_partitions(name);
	SPI_finish();
	PG_RETURN_OID(relation);
}

// (store, keep_table)
SESSION_STORE_FUNCTION(session_store_drop_store) {
	// A standby would refuse the lock instead, with another SQLSTATE.
	PreventCommandIfReadOnly("session_store.drop_store()");
	Store *store = find_store(name_argument(fcinfo, 0, "store"));
	bool keep_table = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	Relation table = open_store_table(store, AccessExclusiveLock);
	require_store_owner(store);
	bool partitioned = store->is_partitioned;
	const Oid relation = RelationGetRelid(table);
	table_close(table, NoLock);
	const char *name = quoted_table(store);
	int32 id = store->settings.id;
	SPI_connect();
	abandon_repartition(store);
	if (keep_table) {
		execute_ddl(psprintf("DROP TRIGGER IF EXISTS session_store ON %s", name));
		if (!partitioned)
			execute_ddl(psprintf("DROP TRIGGER IF EXISTS session_store_guard ON %s", name));
		drop_leftovers(relation);
		unregister_store(id);
	} else {
		execute_ddl(psprintf("DROP TABLE %s", name)); // on_drop does the rest
	}
	SPI_finish();
	PG_RETURN_VOID();
}

// Event trigger on sql_drop: a store goes with its table.
SESSION_STORE_FUNCTION(session_store_on_drop) {
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		elog(ERROR, "on_drop: not called as an event trigger");
	if (!OidIsValid(registry_relation()))
		PG_RETURN_NULL(); // the extension itself is being dropped
	SPI_connect();
	if (SPI_execute(
			"SELECT objid FROM pg_catalog.pg_event_trigger_dropped_objects() "
			"WHERE classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass "
			"AND object_type OPERATOR(pg_catalog.=) 'table'",
			true, 0) < 0)
		elog(ERROR, "could not list the dropped tables");
	uint64 dropped = SPI_processed;
	SPITupleTable *tables = SPI_tuptable;
	StoreSettings *stores;
	int count = dropped > 0 ? read_all_stores(&stores) : 0;
	for (uint64 i = 0; i < dropped; i++) {
		bool is_null;
		Oid relation =
			DatumGetObjectId(SPI_getbinval(tables->vals[i], tables->tupdesc, 1, &is_null));
		for (int j = 0; j < count; j++) {
			if (stores[j].relation == relation)
				unregister_store(stores[j].id);
		}
	}
	SPI_finish();
	PG_RETURN_NULL();
}

// (role, store)
SESSION_STORE_FUNCTION(session_store_grant_app) {
	const char *role = role_argument(fcinfo, 0);
	Store *store = find_store(name_argument(fcinfo, 1, "store"));
	Relation table = open_store_table(store, AccessShareLock);
	require_store_owner(store);
	table_close(table, NoLock);
	const char *grantee = quote_identifier(role);
	SPI_connect();
	execute_ddl(
		psprintf("GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s", quoted_table(store), grantee));
	Oid schema = get_rel_namespace(store->settings.relation);
	// A schema of somebody else's may be open to the role already; its owner says so, not we.
	if (!may_use_schema(schema, get_role_oid(role, false)))
		execute_ddl(psprintf("GRANT USAGE ON SCHEMA %s TO %s",
			quote_identifier(get_namespace_name(schema)), grantee));
	grant_as_extension("USAGE ON SCHEMA session_store", role);
	for (const char *function : kAppFunctions)
		grant_as_extension(psprintf("EXECUTE ON FUNCTION session_store.%s", function), role);
	SPI_finish();
	PG_RETURN_VOID();
}

// (role)
SESSION_STORE_FUNCTION(session_store_grant_admin) {
	const char *role = role_argument(fcinfo, 0);
	if (!has_privs_of_role(GetUserId(), extension_owner()))
		ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("permission denied to make a role an administrator of stores"),
				errhint("Call it as the owner of the extension or as a superuser.")));
	SPI_connect();
	grant_as_extension("USAGE ON SCHEMA session_store", role);
	grant_as_extension("EXECUTE ON ALL ROUTINES IN SCHEMA session_store", role);
	grant_as_extension("USAGE ON FOREIGN DATA WRAPPER session_store_redis", role);
	grant_as_extension("SELECT ON session_store.stores, session_store.phase_history, "
					   "session_store.rejects, session_store.status, session_store.stat_mirror, "
					   "session_store.progress",
		role);
	grant_as_extension(
		"UPDATE (default_ttl, touch_granularity, logout_guard, user_id_path, "
		"partitions_ahead, cleanup_interval, cleanup_batch_size, cleanup_max_duration, "
		"cleanup_delay, cleanup_grace, redis_server, redis_prefix, verify_interval, "
		"verify_sample_size, max_delete_percent, on_eviction) ON session_store.stores",
		role);
	SPI_finish();
	PG_RETURN_VOID();
}
