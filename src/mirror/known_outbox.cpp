// A hash table in a memory context of its own.
#include "mirror/known_outbox.h"

extern "C" {
#include "utils/hsearch.h"
}

namespace session_store {

namespace {

constexpr int kFirstSids = 1024;
constexpr int kMostRows = 32; // of a sid

void make_table(KnownOutbox *known) {
	if (known->context == nullptr)
		known->context = AllocSetContextCreateInternal(
			TopMemoryContext, "session_store outbox", ALLOCSET_DEFAULT_SIZES);
	HASHCTL control = {};
	control.keysize = sizeof(int64);
	control.entrysize = sizeof(KnownRows);
	control.hcxt = known->context;
	known->sids = hash_create("session_store outbox", kFirstSids, &control,
		static_cast<int>(HASH_ELEM) | static_cast<int>(HASH_BLOBS) |
			static_cast<int>(HASH_CONTEXT));
}

KnownRows *find_entry(const KnownOutbox *known, int64 sid_hash, HASHACTION action, bool *found) {
	return static_cast<KnownRows *>(hash_search(known->sids, &sid_hash, action, found));
}

void add_row(KnownOutbox *known, KnownRows *rows, const OutboxRow *row) {
	if (rows->count == rows->capacity) {
		const int capacity = rows->capacity == 0 ? 1 : rows->capacity * 2;
		const Size size = capacity * sizeof(OutboxRow);
		rows->rows = static_cast<OutboxRow *>(rows->rows == nullptr
				? MemoryContextAlloc(known->context, size)
				: repalloc(rows->rows, size));
		rows->capacity = capacity;
	}
	rows->rows[rows->count++] = *row;
}

} // namespace

void clear_known(KnownOutbox *known) {
	known->sids = nullptr;
	if (known->context != nullptr)
		MemoryContextReset(known->context);
}

void note_known(KnownOutbox *known, int64 sid_hash, std::string_view sid, const OutboxRow *row) {
	if (known->sids == nullptr)
		make_table(known);
	bool found;
	KnownRows *rows = find_entry(known, sid_hash, HASH_ENTER, &found);
	if (!found) {
		*rows = {};
		rows->sid_hash = sid_hash;
		auto *bytes = static_cast<char *>(MemoryContextAlloc(known->context, sid.size()));
		memcpy(bytes, sid.data(), sid.size());
		rows->sid = {bytes, sid.size()};
	} else if (rows->sid != sid) {
		rows->shared = true;
		return;
	}
	rows->crowded |= rows->count == kMostRows;
	if (rows->crowded)
		return;
	add_row(known, rows, row);
	rows->newest_xid = Max(rows->newest_xid, row->xid);
	rows->ended |= row->ended;
}

const KnownRows *find_known(const KnownOutbox *known, int64 sid_hash, std::string_view sid) {
	if (known->sids == nullptr)
		return nullptr;
	const KnownRows *rows = find_entry(known, sid_hash, HASH_FIND, nullptr);
	return rows != nullptr && !rows->shared && !rows->crowded && rows->sid == sid ? rows : nullptr;
}

void forget_known(KnownOutbox *known, int64 sid_hash, std::string_view sid) {
	if (known->sids == nullptr)
		return;
	KnownRows *rows = find_entry(known, sid_hash, HASH_FIND, nullptr);
	// Of two sids with one hash the other may still have some.
	if (rows == nullptr || rows->shared || rows->sid != sid)
		return;
	pfree(const_cast<char *>(rows->sid.data()));
	if (rows->rows != nullptr)
		pfree(rows->rows);
	(void)find_entry(known, sid_hash, HASH_REMOVE, nullptr);
}

} // namespace session_store
