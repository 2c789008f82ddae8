// Removing expired rows in batches: what CALL session_store.cleanup() and the supervisor share.
#pragma once

#include "store/registry.h"

namespace session_store {

inline constexpr int kMaxCleanupBatch = 100000;

// What a run is about in a partitioned store. Partitions whose sessions have all expired are left
// to be dropped; the schedule leaves the others alone as well, since they are about to be.
enum class CleanupScope : uint8_t { everything, catch_all };

// How far one run of cleanup has come.
struct CleanupProgress {
	CleanupScope scope;
	TimestampTz low_water; // buckets of expiry below this one are done, in the table of the moment
	int64 deleted;
	bool exhausted;   // nothing is left that may be removed now
	bool interrupted; // the last batch found nothing out: it is for another transaction
	// Of a partitioned store: the catch-all comes first, then the partitions, oldest first.
	bool catch_all_is_done;
	TimestampTz done_to; // partitions that end here or earlier are done
};

inline CleanupProgress begin_cleanup(CleanupScope scope) {
	return CleanupProgress{scope, DT_NOBEGIN, 0, false, false, false, DT_NOBEGIN};
}

// What had expired by then may be removed. In a dual phase that is what had expired when all that
// both sides had accepted was copied: a session that was renewed on the other side stays. While the
// mirror does not get there, nothing new is removed.
TimestampTz removable_until(const StoreSettings *settings, TimestampTz now);

// Removes at most `batch_size` rows that expired cleanup_grace before removable_until(), oldest
// first, passing over rows that others have locked, with the rights of the table's owner. The
// caller commits. ERROR when the table lacks the index that finds them: the whole table is never
// read.
void clean_batch(Store *store, int batch_size, CleanupProgress *progress);

// Notes the end of a run in session_store.activity.
void record_cleanup(int32 store_id, int64 deleted);

// Removes some tombstones older than logout_guard, of one store or of all (0). Returns how many;
// less than kTombstoneBatch means that none are left.
inline constexpr int kTombstoneBatch = 2000;
int64 remove_old_tombstones(int32 store_id);

} // namespace session_store
