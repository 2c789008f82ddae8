// Removing expired rows in batches: what CALL session_store.cleanup() and the supervisor share.
#pragma once

#include "store/registry.h"

namespace session_store {

inline constexpr int kMaxCleanupBatch = 100000;

// How far one run of cleanup has come.
struct CleanupProgress {
	TimestampTz low_water; // buckets of expiry below this one are done
	int64 deleted;
	bool exhausted; // nothing is left that may be removed now
};

inline CleanupProgress begin_cleanup() {
	return CleanupProgress{DT_NOBEGIN, 0, false};
}

// Removes at most `batch_size` rows that expired at least cleanup_grace ago, oldest first, passing
// over rows that others have locked, with the rights of the table's owner. The caller commits.
// ERROR when the table lacks the index that finds them: the whole table is never read.
void clean_batch(Store *store, int batch_size, CleanupProgress *progress);

// Notes the end of a run in session_store.activity.
void record_cleanup(int32 store_id, int64 deleted);

// Removes some tombstones older than logout_guard, of one store or of all (0). Returns how many;
// less than kTombstoneBatch means that none are left.
inline constexpr int kTombstoneBatch = 2000;
int64 remove_old_tombstones(int32 store_id);

} // namespace session_store
