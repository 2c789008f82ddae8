// How far long work of any process has come, for session_store.progress.
#pragma once

#include "postgres/pg.h"

extern "C" {
#include "storage/lwlock.h"
}

namespace session_store {

enum class Operation : uint8_t { none, resync, verify, repartition, cleanup };

inline constexpr int kMaxProgress = 128;

struct Progress {
	pid_t pid; // 0: free
	Oid database;
	int32 store_id;
	Operation operation;
	int64 done;
	int64 total; // -1: unknown
	TimestampTz started_at;
};

// Says how far this process has come with one operation on one store; begins with the first call.
// Does nothing where the library is not preloaded, or when there is no place left.
void report_progress(int32 store_id, Operation operation, int64 done, int64 total);
// The end; also comes with the end of the process, and for a backend with an error.
void end_progress(int32 store_id, Operation operation);

// Copies what is going on in a database; `found` has room for kMaxProgress.
int read_progress(Oid database, Progress *found);

const char *operation_name(Operation operation);

// For shared_state.cpp, where memory and lock are asked for.
Size progress_memory();
void attach_progress(void *memory, bool is_new, LWLock *lock);

} // namespace session_store
