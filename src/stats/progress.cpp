// What session_store.progress is made of: work under way in this database.
#include "worker/progress.h"

#include "postgres/compat.h"
#include "store/registry.h"
#include "worker/shared_state.h"

extern "C" {
#include "utils/tuplestore.h"
}

namespace session_store {

namespace {

void put(ReturnSetInfo *result, const Progress *progress) {
	Datum values[] = {Int32GetDatum(progress->store_id),
		CStringGetTextDatum(operation_name(progress->operation)), Int32GetDatum(progress->pid),
		Int64GetDatum(progress->done), Int64GetDatum(progress->total),
		TimestampTzGetDatum(progress->started_at)};
	bool nulls[] = {false, false, false, false, progress->total < 0, false};
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

// The comparison that the store's mirror is at.
void put_resync(ReturnSetInfo *result, const StoreSettings *store) {
	MirrorReport report;
	pid_t pid;
	if (!is_dual(store->phase) || !get_mirror_report(MyDatabaseId, store->id, &report, &pid) ||
		pid == 0 || report.comparison_started_at == 0 || report.comparison_ended_at != 0)
		return;
	const Progress progress = {pid, MyDatabaseId, store->id, Operation::resync,
		report.comparison_done, report.comparison_total, report.comparison_started_at};
	put(result, &progress);
}

} // namespace

} // namespace session_store

SESSION_STORE_FUNCTION(session_store_progress_reports) {
	using namespace session_store;
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	if (!shared_state_available())
		PG_RETURN_NULL();
	auto *found = static_cast<Progress *>(palloc(kMaxProgress * sizeof(Progress)));
	const int under_way = read_progress(MyDatabaseId, found);
	StoreSettings *stores;
	const int count = read_all_stores(&stores);
	for (int i = 0; i < count; i++) {
		if (!owns_relation(stores[i].relation, GetUserId()))
			continue;
		put_resync(result, &stores[i]);
		for (int j = 0; j < under_way; j++)
			if (found[j].store_id == stores[i].id)
				put(result, &found[j]);
	}
	PG_RETURN_NULL();
}
