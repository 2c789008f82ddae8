// check_redis: what would go wrong with a store's Redis, for a person.
#include "mirror/latch_waiter.h"
#include "mirror/probe.h"

extern "C" {
#include "storage/fd.h"
#include "utils/tuplestore.h"
}

namespace session_store {

namespace {

constexpr int kConnections = 2;

void forget_findings(void *) {
	probe_close();
}

void put_findings(ReturnSetInfo *result) {
	const ProbeFinding *findings;
	const int count = probe_findings(&findings);
	for (int i = 0; i < count; i++) {
		Datum values[] = {CStringGetTextDatum(findings[i].item), BoolGetDatum(findings[i].ok),
			CStringGetTextDatum(findings[i].detail)};
		bool nulls[lengthof(values)] = {};
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

} // namespace

} // namespace session_store

using namespace session_store;

// (store)
SESSION_STORE_FUNCTION(session_store_check_redis) {
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("store must not be null")));
	Store *store = find_store(NameStr(*PG_GETARG_NAME(0)));
	require_store_owner(store);
	Relation table = open_store_table(store, AccessShareLock);
	const Oid owner = table->rd_rel->relowner;
	table_close(table, NoLock);
	const StoreSettings settings = store->settings;
	InitMaterializedSRF(fcinfo, 0);
	FeedOptions options = probe_options(&settings, owner);
	auto *callback = static_cast<MemoryContextCallback *>(palloc0(sizeof(MemoryContextCallback)));
	callback->func = forget_findings;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	FeedError error;
	const bool done =
		probe_check(&options, settings.on_eviction == OnEviction::keep, latch_waiter(), &error);
	for (int i = 0; i < kConnections; i++)
		ReleaseExternalFD();
	forget_probe_password(&options);
	require_probe(done, &error);
	put_findings(reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo));
	probe_close();
	PG_RETURN_NULL();
}
