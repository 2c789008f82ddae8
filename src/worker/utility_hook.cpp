// Makes workers leave a database before it is dropped, renamed, moved or copied.
//
// PostgreSQL refuses those commands while anybody else is connected to the database, and our
// workers would always be. The block lasts to the end of the transaction: until then the command
// holds the lock that a new worker would wait for, only to find its database gone.
#include "worker/shared_state.h"
#include "worker/worker.h"

extern "C" {
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/wait_event.h"
}

namespace session_store {

namespace {

constexpr const char *kDefaultTemplate = "template1";
constexpr int kLongestWaitMs = 5000;
constexpr int kPollMs = 5;

ProcessUtility_hook_type previous_hook = nullptr;

bool owns_database(Oid database) {
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, GetUserId());
#else
	return pg_database_ownercheck(database, GetUserId());
#endif
}

bool may_create_databases() {
	if (superuser())
		return true;
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	bool result = reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return result;
}

bool is_template(Oid database) {
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (!HeapTupleIsValid(tuple))
		return false;
	bool result = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

// The value of a text option, or null when it is not given.
const char *option(List *options, const char *name) {
	ListCell *cell;
	foreach (cell, options) {
		auto *element = lfirst_node(DefElem, cell);
		if (strcmp(element->defname, name) == 0 && element->arg != nullptr)
			return defGetString(element);
	}
	return nullptr;
}

// The database that nobody may be connected to, as far as the user may do such a thing to it: one
// who may not gets his error from PostgreSQL, and stops no worker with it.
Oid database_to_leave(Node *statement) {
	const char *name = nullptr;
	bool copied = false;
	if (IsA(statement, DropdbStmt)) {
		name = castNode(DropdbStmt, statement)->dbname;
	} else if (IsA(statement, RenameStmt)) {
		auto *rename = castNode(RenameStmt, statement);
		name = rename->renameType == OBJECT_DATABASE ? rename->subname : nullptr;
	} else if (IsA(statement, AlterDatabaseStmt)) {
		auto *alter = castNode(AlterDatabaseStmt, statement);
		name = option(alter->options, "tablespace") != nullptr ? alter->dbname : nullptr;
	} else if (IsA(statement, CreatedbStmt)) {
		name = option(castNode(CreatedbStmt, statement)->options, "template");
		if (name == nullptr)
			name = kDefaultTemplate;
		copied = true;
	}
	Oid database = name == nullptr ? InvalidOid : get_database_oid(name, true);
	if (!OidIsValid(database))
		return InvalidOid;
	if (owns_database(database) || (copied && is_template(database) && may_create_databases()))
		return database;
	return InvalidOid;
}

bool any_runs(const pid_t *pids, int count) {
	for (int i = 0; i < count; i++) {
		if (BackendPidGetProc(pids[i]) != nullptr)
			return true;
	}
	return false;
}

// Returns when the workers are gone, or have taken too long: then the command itself says what is
// in its way.
void make_workers_leave(Oid database) {
	block_database(database);
	pid_t pids[kMaxWorkerPids];
	int count = stop_workers(database, pids);
	TimestampTz start = GetCurrentTimestamp();
	while (any_runs(pids, count) &&
		!TimestampDifferenceExceeds(start, GetCurrentTimestamp(), kLongestWaitMs)) {
		(void)WaitLatch(
			MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kPollMs, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void process_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
	ProcessUtilityContext context, ParamListInfo parameters, QueryEnvironment *environment,
	DestReceiver *destination, QueryCompletion *completion) {
	Oid database = database_to_leave(statement->utilityStmt);
	if (OidIsValid(database))
		make_workers_leave(database);
	auto *next = previous_hook != nullptr ? previous_hook : standard_ProcessUtility;
	next(statement, query, read_only_tree, context, parameters, environment, destination,
		completion);
}

void at_transaction_end(XactEvent event, void *) {
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		unblock_databases();
}

} // namespace

void install_utility_hook() {
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(at_transaction_end, nullptr);
}

} // namespace session_store
