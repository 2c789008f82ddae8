// Looking a key up in a unique B-tree, without an index scan.
//
// The rules are those of nbtree: _bt_search() gives the leaf page read-locked; the page stays
// pinned until the rows are read, so that no VACUUM gives their places to others. Entries marked
// dead are passed over but, as in an index scan, not in a transaction that began on a standby. We
// mark none: a key with more than a few entries is left to the scan, which does.
#include "store/unique_lookup.h"

#include "postgres/compat.h"

extern "C" {
#include "access/relscan.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_opfamily.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
}

namespace session_store {

namespace {

constexpr int kMaxEntries = 4;

// The entries of one key on a leaf page.
struct Entries {
	ItemPointerData places[kMaxEntries];
	int count;
	bool complete; // no other entry can be anywhere
};

// bttextcmp for the collation "C".
Datum compare_texts(FunctionCallInfo fcinfo) {
	text *left = PG_GETARG_TEXT_PP(0);
	auto *right = reinterpret_cast<text *>(PG_GETARG_POINTER(1));
	int left_length = VARSIZE_ANY_EXHDR(left);
	int right_length = VARSIZE_ANY_EXHDR(right);
	int order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right), Min(left_length, right_length));
	if (order == 0)
		order = left_length - right_length;
	PG_FREE_IF_COPY(left, 0);
	PG_RETURN_INT32(order < 0 ? -1 : order > 0);
}

bool compares_bytes(Relation index) {
	return index->rd_indcollation[0] == C_COLLATION_OID &&
		index->rd_opfamily[0] == TEXT_BTREE_FAM_OID && index->rd_opcintype[0] == TEXTOID;
}

bool add_entry(Entries *entries, const ItemPointerData *place) {
	if (entries->count == kMaxEntries)
		return false;
	entries->places[entries->count++] = *place;
	return true;
}

bool add_entries_of(Entries *entries, IndexTuple tuple) {
	if (!BTreeTupleIsPosting(tuple))
		return add_entry(entries, &tuple->t_tid);
	for (int i = 0; i < BTreeTupleGetNPosting(tuple); i++) {
		if (!add_entry(entries, BTreeTupleGetPostingN(tuple, i)))
			return false;
	}
	return true;
}

// The first entry of the page that is not less than the key; past the last when there is none.
OffsetNumber first_entry(const UniqueLookup *lookup, Page page, BTPageOpaque opaque) {
	OffsetNumber low = P_FIRSTDATAKEY(opaque);
	OffsetNumber high = OffsetNumberNext(PageGetMaxOffsetNumber(page));
	while (low < high) {
		OffsetNumber middle = low + (high - low) / 2;
		if (_bt_compare(lookup->index, lookup->key, page, middle) > 0)
			low = OffsetNumberNext(middle);
		else
			high = middle;
	}
	return low;
}

// Reads the key's entries of a locked leaf page.
void read_entries(const UniqueLookup *lookup, Page page, Entries *entries) {
	BTPageOpaque opaque = BTPageGetOpaque(page);
	OffsetNumber last = PageGetMaxOffsetNumber(page);
	bool skip_dead = !TransactionStartedDuringRecovery();
	entries->count = 0;
	entries->complete = false;
	OffsetNumber offset = first_entry(lookup, page, opaque);
	for (; offset <= last; offset = OffsetNumberNext(offset)) {
		if (_bt_compare(lookup->index, lookup->key, page, offset) != 0) {
			entries->complete = true;
			return;
		}
		ItemId item = PageGetItemId(page, offset);
		if (skip_dead && ItemIdIsDead(item))
			continue;
		if (!add_entries_of(entries, reinterpret_cast<IndexTuple>(PageGetItem(page, item))))
			return;
	}
	// A page's upper bound may have the key too, and then so may the next page.
	entries->complete =
		P_RIGHTMOST(opaque) || _bt_compare(lookup->index, lookup->key, page, P_HIKEY) < 0;
}

bool shows_rows(Snapshot snapshot) {
	return IsMVCCSnapshot(snapshot) || snapshot->snapshot_type == SNAPSHOT_DIRTY;
}

bool fetch_visible(
	const UniqueLookup *lookup, Entries *entries, Snapshot snapshot, TupleTableSlot *slot) {
	for (int i = 0; i < entries->count; i++) {
		bool call_again = false;
		if (table_index_fetch_tuple(
				lookup->fetch, &entries->places[i], snapshot, slot, &call_again, nullptr)) {
			pgstat_count_heap_fetch(lookup->index);
			return true;
		}
	}
	return false;
}

} // namespace

UniqueLookup begin_lookup(Relation table, Relation index, Snapshot snapshot) {
	UniqueLookup lookup = {};
	lookup.table = table;
	lookup.index = index;
	bool leaves_locks = IsolationIsSerializable() && IsMVCCSnapshot(snapshot);
	if (kHasLeafSearch && !leaves_locks && shows_rows(snapshot) && compares_bytes(index)) {
		lookup.key = _bt_mkscankey(index, nullptr);
		ScanKey column = &lookup.key->scankeys[0];
		column->sk_flags &= ~SK_ISNULL;
		column->sk_func.fn_addr = compare_texts;
		lookup.key->keysz = 1;
		lookup.key->anynullkeys = false;
		lookup.fetch = table_index_fetch_begin(table);
	}
	return lookup;
}

Lookup look_up(UniqueLookup *lookup, text *key, Snapshot snapshot, TupleTableSlot *slot) {
	if (lookup->key == nullptr)
		return Lookup::undecided;
	ExecClearTuple(slot);
	lookup->key->scankeys[0].sk_argument = PointerGetDatum(key);
	Buffer leaf = search_leaf(lookup->table, lookup->index, lookup->key, snapshot);
	pgstat_count_index_scan(lookup->index);
	if (!BufferIsValid(leaf))
		return Lookup::absent; // the index is empty
	Entries entries;
	read_entries(lookup, BufferGetPage(leaf), &entries);
	_bt_unlockbuf(lookup->index, leaf);
	bool found = fetch_visible(lookup, &entries, snapshot, slot);
	ReleaseBuffer(leaf);
	pgstat_count_index_tuples(lookup->index, entries.count);
	if (found)
		return Lookup::found;
	return entries.complete ? Lookup::absent : Lookup::undecided;
}

void end_lookup(UniqueLookup *lookup) {
	if (lookup->key == nullptr)
		return;
	table_index_fetch_end(lookup->fetch);
	pfree(lookup->key);
}

} // namespace session_store
