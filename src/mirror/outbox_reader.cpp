// Reading the outbox.
#include "mirror/outbox_reader.h"

#include "mirror/extension_scan.h"

extern "C" {
#include "access/transam.h"
}

namespace session_store {

namespace {

enum OutboxColumn {
	kSeqColumn = 2,
	kXidColumn,
	kSidHashColumn,
	kSidColumn,
	kPayloadDigestColumn,
	kBaseExpireColumn,
	kEndedColumn
};
constexpr int kXidInIndex = 2;

// Transactions that are so many older than the settled ones are looked up one by one; for nearer
// ones it is cheaper to pass over what is between.
constexpr uint64 kNear = 1000;

uint64 full_xid(TransactionId xid) {
	const FullTransactionId next = ReadNextFullTransactionId();
	uint64 epoch = EpochFromFullTransactionId(next);
	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return epoch << 32 | xid;
}

PassedTransaction *find_passed(OutboxReader *reader, uint64 xid) {
	for (int i = 0; i < reader->passed_count; i++)
		if (reader->passed[i].xid == xid)
			return &reader->passed[i];
	return nullptr;
}

void add_passed(OutboxReader *reader, uint64 xid) {
	if (find_passed(reader, xid) != nullptr)
		return;
	if (reader->passed_count == reader->passed_capacity) {
		const int capacity = Max(reader->passed_capacity * 2, 64);
		const Size size = capacity * sizeof(PassedTransaction);
		reader->passed = static_cast<PassedTransaction *>(reader->passed == nullptr
				? MemoryContextAlloc(TopMemoryContext, size)
				: repalloc(reader->passed, size));
		reader->passed_capacity = capacity;
	}
	reader->passed[reader->passed_count++] = {xid, 0, 0};
}

bool is_under_way(Snapshot snapshot, uint64 xid) {
	if (xid >= full_xid(snapshot->xmax))
		return true;
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		if (full_xid(snapshot->xip[i]) == xid)
			return true;
	return false;
}

// What a read needs.
struct Read {
	OutboxReader *reader;
	ExtensionScan scan;
	int32 store_id;
	int left; // rows that may still be read
	FeedError *error;
};

int64 number_of(ExtensionScan *scan, int column) {
	bool is_null;
	const Datum value = row_value(scan, column, &is_null);
	return column == kSeqColumn ? DatumGetInt32(value) : DatumGetInt64(value);
}

bool mark_row(Read *read) {
	bool is_null;
	const auto *bytes = DatumGetTextPP(row_value(&read->scan, kSidColumn, &is_null));
	const std::string_view sid(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	const OutboxRow row = outbox_row(&read->scan);
	note_known(&read->reader->known, number_of(&read->scan, kSidHashColumn), sid, &row);
	read->left--;
	return feed_mark(sid, read->error);
}

void look_up_from(Read *read, StrategyNumber strategy, uint64 xid) {
	ScanKeyData keys[2];
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(read->store_id));
	ScanKeyInit(&keys[1], kXidInIndex, strategy,
		strategy == BTEqualStrategyNumber ? F_INT8EQ : F_INT8GE,
		Int64GetDatum(static_cast<int64>(xid)));
	look_up(&read->scan, keys);
}

// The rows of one that was under way before and has ended. False when the feed fails.
bool read_passed(Read *read, PassedTransaction *passed) {
	look_up_from(read, BTEqualStrategyNumber, passed->xid);
	while (next_row(&read->scan)) {
		const auto seq = static_cast<int32>(number_of(&read->scan, kSeqColumn));
		if (seq <= passed->seq)
			continue;
		if (read->left <= 0)
			return true;
		if (!mark_row(read))
			return false;
		passed->seq = seq;
	}
	passed->read_at = GetCurrentTimestamp();
	return true;
}

bool read_all_passed(Read *read) {
	OutboxReader *reader = read->reader;
	reader->passed_behind = false;
	for (int i = 0; i < reader->passed_count; i++) {
		PassedTransaction *passed = &reader->passed[i];
		if (passed->read_at != 0 || is_under_way(read->scan.snapshot, passed->xid))
			continue;
		if (read->left > 0 && !read_passed(read, passed))
			return false;
		reader->passed_behind |= passed->read_at == 0;
	}
	return true;
}

// Those under way from `from` up to and without `to` will be read when they have ended.
void pass(OutboxReader *reader, Snapshot snapshot, uint64 from, uint64 to) {
	for (uint32 i = 0; i < snapshot->xcnt; i++) {
		const uint64 xid = full_xid(snapshot->xip[i]);
		if (xid >= from && xid < to)
			add_passed(reader, xid);
	}
}

bool read_new(Read *read) {
	OutboxReader *reader = read->reader;
	const uint64 from = reader->next_xid;
	uint64 xid = reader->next_xid;
	int32 seq = reader->next_seq;
	look_up_from(read, BTGreaterEqualStrategyNumber, from);
	reader->behind = read->left <= 0;
	while (!reader->behind && next_row(&read->scan)) {
		const auto row_xid = static_cast<uint64>(number_of(&read->scan, kXidColumn));
		const auto row_seq = static_cast<int32>(number_of(&read->scan, kSeqColumn));
		if (row_xid == from && row_seq <= reader->next_seq)
			continue;
		if (!mark_row(read))
			return false;
		xid = row_xid;
		seq = row_seq;
		reader->behind = read->left <= 0;
	}
	if (!reader->behind) {
		xid = full_xid(read->scan.snapshot->xmax);
		seq = 0;
	}
	pass(reader, read->scan.snapshot, from, xid);
	reader->next_xid = xid;
	reader->next_seq = seq;
	return true;
}

} // namespace

OutboxRow outbox_row(ExtensionScan *scan) {
	bool no_digest;
	bool no_base;
	bool is_null;
	OutboxRow row = {};
	row.position = scan->slot->tts_tid;
	row.xid = static_cast<uint64>(number_of(scan, kXidColumn));
	row.seq = static_cast<int32>(number_of(scan, kSeqColumn));
	row.digest = DatumGetInt64(row_value(scan, kPayloadDigestColumn, &no_digest));
	row.has_digest = !no_digest;
	row.base_expire = DatumGetTimestampTz(row_value(scan, kBaseExpireColumn, &no_base));
	row.has_base = !no_base;
	row.ended = DatumGetBool(row_value(scan, kEndedColumn, &is_null));
	return row;
}

void reset_outbox_reader(OutboxReader *reader) {
	PassedTransaction *passed = reader->passed;
	const int capacity = reader->passed_capacity;
	KnownOutbox known = reader->known;
	clear_known(&known);
	*reader = {};
	reader->passed = passed;
	reader->passed_capacity = capacity;
	reader->known = known;
	reader->behind = true;
}

bool read_outbox(OutboxReader *reader, int32 store_id, int limit, FeedError *error) {
	const TimestampTz now = GetCurrentTimestamp();
	Read read = {reader, open_extension_scan("outbox", "outbox_pkey", 2), store_id, limit, error};
	check_outbox_file(reader, read.scan.table);
	const bool done = read_all_passed(&read) && read_new(&read);
	close_extension_scan(&read.scan);
	if (!done) {
		reset_outbox_reader(reader);
		return false;
	}
	if (!reader->behind)
		reader->read_at = now;
	return true;
}

void note_settled(OutboxReader *reader, TimestampTz time) {
	int kept = 0;
	for (int i = 0; i < reader->passed_count; i++) {
		const PassedTransaction *passed = &reader->passed[i];
		if (passed->read_at == 0 || passed->read_at >= time)
			reader->passed[kept++] = *passed;
	}
	reader->passed_count = kept;
	if (reader->settles_at != 0 && reader->settles_at >= time)
		return;
	if (reader->settles_at != 0) {
		reader->settled_xid = reader->settles_xid;
		reader->settled_since = reader->settles_since;
	}
	reader->settles_xid = reader->next_xid;
	reader->settles_since = reader->read_at;
	reader->settles_at = GetCurrentTimestamp();
}

OutboxRange unsettled_range(const OutboxReader *reader) {
	OutboxRange range = {reader->settled_xid, nullptr, 0};
	range.others = static_cast<uint64 *>(palloc((reader->passed_count + 1) * sizeof(uint64)));
	for (int i = 0; i < reader->passed_count; i++) {
		const uint64 xid = reader->passed[i].xid;
		if (xid >= range.from)
			continue;
		if (reader->settled_xid - xid < kNear)
			range.from = xid;
		else
			range.others[range.count++] = xid;
	}
	return range;
}

void check_outbox_file(OutboxReader *reader, Relation outbox) {
	const Oid file = outbox->rd_rel->relfilenode;
	if (reader->file != 0 && reader->file != file)
		reset_outbox_reader(reader);
	reader->file = file;
}

bool has_read(const OutboxReader *reader, uint64 xid) {
	if (reader->passed_behind || xid >= reader->next_xid)
		return false;
	for (int i = 0; i < reader->passed_count; i++)
		if (reader->passed[i].xid == xid)
			return reader->passed[i].read_at != 0;
	return true;
}

} // namespace session_store
