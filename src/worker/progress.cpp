// Progress in shared memory: a place for each operation that is under way, under one lock.
#include "worker/progress.h"

extern "C" {
#include "storage/ipc.h"
}

namespace session_store {

namespace {

struct ProgressTable {
	Progress places[kMaxProgress];
};

constexpr const char *kNames[] = {"none", "resync", "verify", "repartition", "cleanup"};

ProgressTable *table = nullptr;
LWLock *guard = nullptr;
bool callbacks_registered = false;

void end_all_of_this_process() {
	LWLockAcquire(guard, LW_EXCLUSIVE);
	for (Progress &place : table->places)
		if (place.pid == MyProcPid)
			place = Progress{};
	LWLockRelease(guard);
}

void at_exit(int, Datum) {
	end_all_of_this_process();
}

// A worker whose transaction fails goes on with its work; a backend's call is over.
void at_abort(XactEvent event, void *) {
	if (event == XACT_EVENT_ABORT && MyBackendType == B_BACKEND)
		end_all_of_this_process();
}

void register_callbacks() {
	if (callbacks_registered)
		return;
	before_shmem_exit(at_exit, 0);
	RegisterXactCallback(at_abort, nullptr);
	callbacks_registered = true;
}

bool is_this(const Progress *place, int32 store_id, Operation operation) {
	return place->pid == MyProcPid && place->database == MyDatabaseId &&
		place->store_id == store_id && place->operation == operation;
}

Progress *find_place(int32 store_id, Operation operation) {
	for (Progress &place : table->places)
		if (is_this(&place, store_id, operation))
			return &place;
	return nullptr;
}

Progress *take_place(int32 store_id, Operation operation, TimestampTz now) {
	for (Progress &place : table->places) {
		if (place.pid != 0)
			continue;
		place = Progress{MyProcPid, MyDatabaseId, store_id, operation, 0, -1, now};
		return &place;
	}
	return nullptr;
}

} // namespace

void report_progress(int32 store_id, Operation operation, int64 done, int64 total) {
	if (table == nullptr)
		return;
	register_callbacks();
	const TimestampTz now = GetCurrentTimestamp();
	LWLockAcquire(guard, LW_EXCLUSIVE);
	Progress *place = find_place(store_id, operation);
	if (place == nullptr)
		place = take_place(store_id, operation, now);
	if (place != nullptr) {
		place->done = done;
		place->total = total;
	}
	LWLockRelease(guard);
}

void end_progress(int32 store_id, Operation operation) {
	if (table == nullptr)
		return;
	LWLockAcquire(guard, LW_EXCLUSIVE);
	Progress *place = find_place(store_id, operation);
	if (place != nullptr)
		*place = Progress{};
	LWLockRelease(guard);
}

int read_progress(Oid database, Progress *found) {
	if (table == nullptr)
		return 0;
	int count = 0;
	LWLockAcquire(guard, LW_SHARED);
	for (const Progress &place : table->places)
		if (place.pid != 0 && place.database == database)
			found[count++] = place;
	LWLockRelease(guard);
	return count;
}

const char *operation_name(Operation operation) {
	return kNames[static_cast<int>(operation)];
}

Size progress_memory() {
	return MAXALIGN(sizeof(ProgressTable));
}

void attach_progress(void *memory, bool is_new, LWLock *lock) {
	table = static_cast<ProgressTable *>(memory);
	guard = lock;
	if (is_new)
		memset(table, 0, sizeof(*table));
}

} // namespace session_store
