// Removing expired sessions without a statement: what a batch of cleanup does.
//
// A statement that passes over locked rows locks each row, with a WAL record of its own, then finds
// it again, fires the trigger, which has nothing to do for an expired row, and deletes it. None of
// that is needed where the only trigger is ours.
#pragma once

#include "store/registry.h"

namespace session_store {

// Rows that expired by a time, from a bucket of expiry on.
struct ExpiredRows {
	AttrNumber expire;
	AttrNumber bucket;
	TimestampTz from; // the first bucket
	TimestampTz until;
	int limit; // of rows that are deleted
};

struct DeletedRows {
	int64 count;
	TimestampTz last_bucket; // of the last one, while there is any
};

// Deletes them, oldest first, passing over what others have locked or changed, by a B-tree whose
// first column is the bucket. False, and nothing changed, when that cannot be done this way: the
// table has triggers or rules of its user's, or the caller is not free to delete from it. The
// caller then runs the statement.
bool delete_expired_directly(Relation table, Oid bucket_index, int32 store_id, AttrNumber sid,
	const ExpiredRows *rows, DeletedRows *deleted);

} // namespace session_store
