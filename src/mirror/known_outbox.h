// The rows of the outbox that have been read and not been removed yet, by sid.
//
// Reading the outbox meets them all, so that most need not be looked up again, which takes longer
// than anything else that is done about a session that goes to Redis. What is known of a sid is all
// there is when its row in the table is as the transaction left it that wrote the newest known row.
#pragma once

#include <string_view>

#include "postgres/pg.h"

namespace session_store {

// One row of the outbox; see sql/install/45_outbox.sql.
struct OutboxRow {
	ItemPointerData position;
	uint64 xid; // with seq, the key of the row in its store
	int32 seq;
	bool has_digest;
	int64 digest;
	bool has_base;
	TimestampTz base_expire;
	bool ended;
};

// What is known of one sid.
struct KnownRows {
	int64 sid_hash; // the key of the table
	std::string_view sid;
	OutboxRow *rows;
	int count;
	int capacity;
	uint64 newest_xid;
	bool ended;   // one of them says so
	bool shared;  // another sid has this hash: both are looked up
	bool crowded; // there are more rows than are kept: they are looked up
};

// Of one store. All zeros: nothing is known.
struct KnownOutbox {
	MemoryContext context; // holds all of it
	HTAB *sids;
};

void clear_known(KnownOutbox *known);
void note_known(KnownOutbox *known, int64 sid_hash, std::string_view sid, const OutboxRow *row);
// Null when nothing is known of the sid, or not for sure.
const KnownRows *find_known(const KnownOutbox *known, int64 sid_hash, std::string_view sid);
// All rows of the sid were removed, and that is committed.
void forget_known(KnownOutbox *known, int64 sid_hash, std::string_view sid);

} // namespace session_store
