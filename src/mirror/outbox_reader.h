// Reading the outbox of a store as it grows.
//
// By snapshots, as PgQ does: what one snapshot did not see yet is known by the transactions that
// were under way, so that reading never meets again what was read, however much of it is dead and
// kept by an old snapshot of somebody's.
#pragma once

#include "mirror/extension_scan.h"
#include "mirror/feed_link.h"
#include "mirror/known_outbox.h"
#include "postgres/pg.h"

namespace session_store {

// A transaction that was under way when reading passed it.
struct PassedTransaction {
	uint64 xid;
	int32 seq;           // its rows up to here have been read
	TimestampTz read_at; // when the last of them was; 0: it has not ended, or not been read yet
};

struct OutboxReader {
	uint64 next_xid; // rows of this transaction after next_seq, and of all later ones, come next
	int32 next_seq;
	PassedTransaction *passed; // but for these
	int passed_count;
	int passed_capacity;
	bool passed_behind;        // of these some have ended and were not read to their end
	bool behind;               // there is more than was read
	TimestampTz read_at;       // what was committed before this has been read
	uint64 settled_xid;        // rows of earlier transactions, but for `passed`, have been copied,
	TimestampTz settled_since; // and what was committed before this
	uint64 settles_xid; // this, once all that was made dirty before settles_at has been copied
	TimestampTz settles_since;
	TimestampTz settles_at; // 0: nothing is awaited
	KnownOutbox known;
	Oid file; // of the table, in which what is known has its places; 0: nothing is known
};

// Of the row that the scan stands on.
OutboxRow outbox_row(ExtensionScan *scan);

// Starts from the beginning: what had been made dirty may be lost.
void reset_outbox_reader(OutboxReader *reader);
// Reads what is new and makes its sids dirty, about `limit` rows at most. Within a transaction.
// False when the feed fails.
bool read_outbox(OutboxReader *reader, int32 store_id, int limit, FeedError *error);
// All that was made dirty before that time has been copied.
void note_settled(OutboxReader *reader, TimestampTz time);

// Whether all that was committed before that time has been copied.
inline bool outbox_settled_since(const OutboxReader *reader, TimestampTz time) {
	return reader->settled_since >= time;
}

// Where the rows of a sid may be that are not copied yet: in transactions from `from` on, and in
// the `count` others. What is allocated is in the current memory context.
struct OutboxRange {
	uint64 from;
	uint64 *others;
	int count;
};
OutboxRange unsettled_range(const OutboxReader *reader);

// Starts from the beginning where the open outbox is in another file than what was read: it was
// rewritten or truncated, and what is known of it is elsewhere, or gone.
void check_outbox_file(OutboxReader *reader, Relation outbox);

// Whether all rows of that transaction, and of those it had to wait for, have been read.
bool has_read(const OutboxReader *reader, uint64 xid);

} // namespace session_store
