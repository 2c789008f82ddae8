// A scheduled verification: one process, one sample of one store.
//
// A process of its own, because Redis may be slow: neither the supervisor, which has other stores
// to see to, nor the mirror, which has changes to copy, waits for it. It keeps no transaction open
// while it talks to Redis, ends when it is done, and leaves what it found in a table.
#include "worker/worker.h"

#include "mirror/probe.h"
#include "mirror/verify.h"
#include "worker/shared_state.h"

extern "C" {
#include "storage/ipc.h"
#include "utils/memutils.h"
}

namespace session_store {

namespace {

constexpr const char *kErrorPrefix = "verification: ";

struct Task {
	Verification verification;
	FeedOptions options;
	bool wanted;
	MemoryContext context;
};

void read_task(Task *task, int32 store_id) {
	StoreSettings *store = &task->verification.target.store;
	start_worker_transaction("session_store verification: reading settings");
	task->wanted = read_store(store_id, store) && is_dual(store->phase) &&
		store_is_bound_here(store) && store->has_redis_server;
	if (task->wanted) {
		open_target(&task->verification.target, AccessShareLock);
		MemoryContext old = MemoryContextSwitchTo(task->context);
		task->options = probe_options(store, task->verification.target.owner);
		MemoryContextSwitchTo(old);
	}
	commit_worker_transaction();
	MemoryContextSwitchTo(task->context);
}

void record(const Verification *verification) {
	start_worker_transaction("session_store verification: keeping what it found");
	record_verification(verification);
	commit_worker_transaction();
	if (verification->differences > 0)
		ereport(LOG,
			(errmsg("verification of store \"%s\": " INT64_FORMAT " of " INT64_FORMAT
					" sessions differ",
				NameStr(verification->target.store.name), verification->differences,
				verification->compared)));
}

// Clears what an earlier verification had complained about.
void clear_error(int32 store_id) {
	char error[kReportTextBytes];
	TimestampTz at;
	if (get_background_error(MyDatabaseId, store_id, error, &at) &&
		strncmp(error, kErrorPrefix, strlen(kErrorPrefix)) == 0)
		publish_background_error(MyDatabaseId, store_id, nullptr);
}

void verify_store(int32 store_id) {
	auto *task = static_cast<Task *>(MemoryContextAllocZero(TopMemoryContext, sizeof(Task)));
	task->context = AllocSetContextCreateInternal(
		TopMemoryContext, "session_store verifier", ALLOCSET_DEFAULT_SIZES);
	task->verification.scheduled = true;
	task->verification.tolerance = kVerifyTolerance;
	read_task(task, store_id);
	if (!task->wanted)
		return;
	FeedError error;
	require_probe(connect_probe(&task->options, &error), &error);
	verify_sample(&task->verification, task->verification.target.store.verify_sample_size);
	close_probe();
	// What the mirror has still to copy is no evidence of anything.
	if (!task->verification.lagging || task->verification.differences == 0)
		record(&task->verification);
	clear_error(store_id);
}

} // namespace

} // namespace session_store

void session_store_verifier_main(Datum argument) {
	using namespace session_store;
	const MirrorArguments arguments = mirror_arguments(argument);
	if (!claim_verifier(arguments.database, arguments.store_id))
		return;
	begin_worker(arguments.database);
	volatile bool failed = false;
	PG_TRY();
	{ verify_store(arguments.store_id); }
	PG_CATCH();
	{
		WorkerFailure failure;
		catch_worker_error(&failure);
		close_probe();
		char words[sizeof(failure.message) + 32];
		snprintf(words, sizeof(words), "%s%s", kErrorPrefix, failure.message);
		if (!is_passing(&failure))
			publish_background_error(arguments.database, arguments.store_id, words);
		failed = true;
	}
	PG_END_TRY();
	proc_exit(failed ? 1 : 0);
}
