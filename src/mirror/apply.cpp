// Applying what both sides hold.
//
// One transaction for a part of the batch: judge each value of Redis, look up what is pending, read
// the rows, decide; lock in sid order the rows that are to change (those that nobody has: the
// application never waits for us nor we for it), look at the outbox and the row again, write what
// differs. What is pending is looked up before the rows are read: a row may then be newer than what
// is known of it, never older. The rows are read without a lock first, so that a comparison that
// finds nothing to do writes nothing. An error rolls the batch back and tries its halves.
//
// What goes to Redis is sent after the commit, and Redis works on it while the next part is
// applied. Until Redis has taken it its rows stay in the outbox, so that a crash in between repeats
// the push and loses nothing. They are removed once for all parts.
#include "mirror/apply.h"

#include <algorithm>

#include "mirror/judge.h"
#include "mirror/pending.h"
#include "mirror/push.h"
#include "mirror/rejects.h"
#include "mirror/rows.h"
#include "postgres/identity.h"
#include "postgres/yield.h"
#include "store/outbox.h"
#include "worker/worker.h"

namespace session_store {

namespace {

// Rows of one transaction, at most. What they push fits into a socket's buffer: what is left over
// would be sent after the next part only, and Redis would have nothing to do until then.
constexpr int kPart = 128;
constexpr int kSmallestPart = 64;

constexpr const char *kActivity = "session_store mirror: applying";
constexpr const char *kSettling = "session_store mirror: settling the outbox";

// One batch under way. In the batch's memory, which outlives the transactions.
struct Batch {
	const ApplyContext *context;
	const StoreSettings *store;
	MirrorRow *rows; // by sid, those without a valid one last
	char **forced;   // by row: why it must be rejected, found out by an error
	ApplyResult *result;
	bool locking_table; // the table's lock was being waited for
	bool carefully;     // something failed: the way that tells best what it is
	size_t push_bytes;  // of the pushes so far
	MirrorRow **pushes; // what was sent to Redis, in this order
	int push_count;
};

// Rows that share something, chosen from those of a transaction.
struct Chosen {
	MirrorRow **rows;
	int count;
};

template <typename Predicate>
Chosen choose(MirrorRow **rows, int count, Predicate &&belongs) {
	Chosen chosen = {static_cast<MirrorRow **>(palloc(count * sizeof(MirrorRow *))), 0};
	for (int i = 0; i < count; i++)
		if (belongs(rows[i]))
			chosen.rows[chosen.count++] = rows[i];
	return chosen;
}

bool is_value(const MirrorRow *row) {
	return row->judged.state == core::RedisState::value;
}

bool writes_postgres(const MirrorRow *row) {
	return row->decision.action == core::Action::write &&
		(row->decision.payload == core::Direction::to_postgres ||
			row->decision.expiry == core::Direction::to_postgres);
}

bool removes_row(const MirrorRow *row) {
	return row->in_table &&
		(row->decision.action == core::Action::delete_postgres ||
			row->decision.action == core::Action::reject);
}

bool changes_row(const MirrorRow *row) {
	return (writes_postgres(row) && row->in_table) || removes_row(row);
}

bool inserts_row(const MirrorRow *row) {
	return writes_postgres(row) && !row->in_table;
}

bool leads_nowhere(const MirrorRow *row) {
	return row->decision.action == core::Action::retry;
}

void decide(Batch *batch, MirrorRow *row, TimestampTz now) {
	decide_row(batch->store, &batch->context->stance, batch->carefully ? Look::first : Look::never,
		row, now);
}

// The rows, and what is pending of them. What reading the outbox has shown of a sid counts when the
// row proves to be as the newest of that left it. Else what is pending is looked up before the row
// is read, again if need be.
void read_sides(Batch *batch, MirrorRow **rows, int count) {
	const MirrorTarget *target = batch->context->target;
	OutboxReader *outbox = batch->context->outbox;
	const int32 id = batch->store->id;
	MemoryContext kept = batch->context->kept;
	Relation table = table_open(extension_table("outbox"), AccessShareLock);
	check_outbox_file(outbox, table);
	table_close(table, NoLock);
	Chosen known = {static_cast<MirrorRow **>(palloc(count * sizeof(MirrorRow *))), 0};
	Chosen unknown = {static_cast<MirrorRow **>(palloc(count * sizeof(MirrorRow *))), 0};
	for (int i = 0; i < count; i++) {
		const bool is_known = !target->is_partitioned && is_known_pending(outbox, rows[i]);
		Chosen *side = is_known ? &known : &unknown;
		side->rows[side->count++] = rows[i];
	}
	read_pending(outbox, id, unknown.rows, unknown.count, kept);
	read_rows(target, RowPlan::read, rows, count);
	const Chosen moved = choose(known.rows, known.count,
		[&](MirrorRow *row) { return !take_known_pending(outbox, row, kept); });
	if (moved.count == 0)
		return;
	read_pending(outbox, id, moved.rows, moved.count, kept);
	for (int i = 0; i < moved.count; i++)
		moved.rows[i]->in_table = false;
	read_rows(target, RowPlan::read, moved.rows, moved.count);
}

// What there is about the sids beside their rows; only where it matters.
void read_about(Batch *batch, MirrorRow **rows, int count, TimestampTz now) {
	const Chosen only_redis =
		choose(rows, count, [](const MirrorRow *row) { return is_value(row) && !row->in_table; });
	read_tombstones(batch->store, only_redis.rows, only_redis.count, now);
	if (!batch->context->has_evictions)
		return;
	const Chosen valid =
		choose(rows, count, [](const MirrorRow *row) { return row->judged.valid_sid; });
	read_evictions(batch->store->id, valid.rows, valid.count);
}

// Locks the rows that are to change and decides about them again. What is locked elsewhere, or has
// gone since, is for another time.
void lock_rows(Batch *batch, MirrorRow **rows, int count, TimestampTz now) {
	const Chosen chosen = choose(rows, count, changes_row);
	if (chosen.count == 0)
		return;
	for (int i = 0; i < chosen.count; i++)
		chosen.rows[i]->in_table = false;
	read_rows(batch->context->target, RowPlan::lock, chosen.rows, chosen.count);
	// Whoever wrote a row that is locked now has committed, with its rows of the outbox.
	read_pending(
		batch->context->outbox, batch->store->id, chosen.rows, chosen.count, batch->context->kept);
	for (int i = 0; i < chosen.count; i++) {
		if (chosen.rows[i]->in_table)
			decide(batch, chosen.rows[i], now);
		else
			chosen.rows[i]->decision = {};
	}
}

// What a transaction did, taken over once it is committed.
struct Counts {
	int64 applied;
	int64 unchanged;
	int64 evictions;
};

// Somebody may have stored and ended the session between our look and our insert, which waits for
// nobody who has: then the session is for another time.
void check_inserted(Batch *batch, MirrorRow **rows, int count) {
	if (count == 0)
		return;
	auto *known = static_cast<int *>(palloc(count * sizeof(int)));
	for (int i = 0; i < count; i++)
		known[i] = rows[i]->pending_count;
	read_pending(batch->context->outbox, batch->store->id, rows, count, batch->context->kept);
	for (int i = 0; i < count; i++)
		if (rows[i]->pending_count != known[i])
			ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					errmsg("a session was written while the mirror stored it")));
}

void write_rows(Batch *batch, MirrorRow **rows, int count, Counts *counts) {
	const MirrorTarget *target = batch->context->target;
	const Chosen inserts = choose(rows, count, inserts_row);
	const Chosen updates = choose(rows, count, [](const MirrorRow *row) {
		return writes_postgres(row) && row->in_table &&
			row->decision.payload == core::Direction::to_postgres;
	});
	const Chosen touches = choose(rows, count, [](const MirrorRow *row) {
		return writes_postgres(row) && row->in_table &&
			row->decision.payload != core::Direction::to_postgres;
	});
	const Chosen removals = choose(rows, count, removes_row);
	insert_rows(target, inserts.rows, inserts.count, batch->carefully);
	update_rows(target, updates.rows, updates.count);
	touch_rows(target, touches.rows, touches.count);
	remove_rows(target, removals.rows, removals.count);
	check_inserted(batch, inserts.rows, inserts.count);
	counts->applied = inserts.count + updates.count + touches.count + removals.count;
	for (int i = 0; i < count; i++)
		if (rows[i]->decision.action == core::Action::nothing)
			counts->unchanged++;
}

// Tombstones and kept evictions that follow from the decisions.
void write_about(Batch *batch, MirrorRow **rows, int count, Counts *counts) {
	const int32 id = batch->store->id;
	if (batch->store->logout_guard > 0) {
		const Chosen ended =
			choose(rows, count, [](const MirrorRow *row) { return row->decision.ended; });
		write_tombstones(id, ended.rows, ended.count);
	}
	const Chosen renewed = choose(rows, count, [](const MirrorRow *row) {
		return writes_postgres(row) && row->tombstone == core::Tombstone::by_redis;
	});
	remove_tombstones(id, renewed.rows, renewed.count);
	const bool keeps = batch->store->on_eviction == OnEviction::keep;
	const Chosen evicted = choose(rows, count, [keeps](const MirrorRow *row) {
		return keeps && row->item->evicted && !row->evicted && row->in_table &&
			row->decision.action == core::Action::nothing;
	});
	keep_evictions(id, evicted.rows, evicted.count);
	const Chosen back = choose(rows, count, [](const MirrorRow *row) {
		return row->evicted && (is_value(row) || !row->in_table || removes_row(row));
	});
	forget_evictions(id, back.rows, back.count);
	counts->evictions = evicted.count - back.count;
}

void keep_rejects(Batch *batch, MirrorRow **rows, int count) {
	auto *rejected = static_cast<RejectedKey *>(palloc(count * sizeof(RejectedKey)));
	auto **mirrored = static_cast<const FeedItem **>(palloc(count * sizeof(FeedItem *)));
	int n_rejected = 0;
	int n_mirrored = 0;
	for (int i = 0; i < count; i++) {
		if (rows[i]->decision.action == core::Action::reject)
			rejected[n_rejected++] = {rows[i]->item, rows[i]->judged.reason};
		else if (!leads_nowhere(rows[i]))
			mirrored[n_mirrored++] = rows[i]->item;
	}
	clear_rejects(batch->store->id, mirrored, n_mirrored);
	write_rejects(batch->store->id, rejected, n_rejected);
}

// What goes to Redis is taken along; what would be too much at once is for another time. All that
// is pending of the others is settled.
void settle_pending(Batch *batch, MirrorRow **rows, int count) {
	size_t bytes = batch->push_bytes;
	for (int i = 0; i < count; i++) {
		prepare_push(rows[i], batch->store->payload, batch->context->kept);
		const Push *push = &rows[i]->push;
		if (!push->wanted)
			continue;
		if (bytes > 0 && bytes + push->size > kPushBytes) {
			rows[i]->push = {};
			rows[i]->decision = {};
		} else {
			bytes += push->size;
		}
	}
	const Chosen settled = choose(rows, count, [](const MirrorRow *row) {
		return row->pending_count > 0 && !row->push.wanted && !leads_nowhere(row);
	});
	if (settled.count > 0)
		remove_pending(batch->context->outbox, batch->store->id, settled.rows, settled.count);
}

void apply_in_transaction(Batch *batch, int from, int to, Counts *counts) {
	MirrorTarget *target = batch->context->target;
	batch->locking_table = true;
	open_target(target, RowExclusiveLock);
	batch->locking_table = false;

	const TimestampTz now = GetCurrentTimestamp();
	const int count = to - from;
	auto **rows = static_cast<MirrorRow **>(palloc(count * sizeof(MirrorRow *)));
	for (int i = 0; i < count; i++) {
		yield_if_due();
		rows[i] = &batch->rows[from + i];
		rows[i]->in_table = rows[i]->evicted = rows[i]->pending_removed = false;
		rows[i]->tombstone = core::Tombstone::none;
		judge_item(rows[i]->item, batch->forced[rows[i]->order], &rows[i]->judged);
		if (rows[i]->judged.valid_sid)
			rows[i]->sid_hash = outbox_sid_hash(batch->store->id, rows[i]->judged.sid);
	}
	SPI_connect();
	MemoryContext spi = MemoryContextSwitchTo(batch->context->scratch);
	const Identity saved = enter_owner(target->owner);
	yield_if_due();
	read_sides(batch, rows, count);
	read_about(batch, rows, count, now);
	for (int i = 0; i < count; i++) {
		yield_if_due();
		decide(batch, rows[i], now);
	}
	lock_rows(batch, rows, count, now);
	settle_pending(batch, rows, count);
	write_rows(batch, rows, count, counts);
	leave_identity(&saved);
	write_about(batch, rows, count, counts);
	keep_rejects(batch, rows, count);
	MemoryContextSwitchTo(spi);
	SPI_finish();
}

// Tries one range in a transaction of its own. False when it failed and was rolled back.
bool try_range(Batch *batch, int from, int to, Counts *counts, WorkerFailure *failure) {
	MemoryContext outer = CurrentMemoryContext;
	volatile bool failed = false;
	*counts = {};
	MemoryContextReset(batch->context->scratch);
	PG_TRY();
	{
		start_worker_transaction(kActivity);
		MemoryContextSwitchTo(batch->context->scratch);
		apply_in_transaction(batch, from, to, counts);
		yield_if_due();
		commit_worker_transaction();
	}
	PG_CATCH();
	{
		catch_worker_error(failure);
		forget_rejects_count();
		failed = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(outer);
	return !failed;
}

bool put_back(Batch *batch, int from, int to, FeedError *error) {
	for (int i = from; i < to; i++) {
		if (!feed_put_back(batch->rows[i].index, error))
			return false;
		batch->result->put_back++;
	}
	return true;
}

bool settle_range(Batch *batch, int from, int to, const Counts *counts, FeedError *error) {
	batch->result->applied += counts->applied;
	batch->result->unchanged += counts->unchanged;
	batch->result->evictions += counts->evictions;
	for (int i = from; i < to; i++)
		forget_removed(batch->context->outbox, &batch->rows[i]);
	for (int i = from; i < to; i++) {
		const MirrorRow *row = &batch->rows[i];
		if (leads_nowhere(row) && !put_back(batch, i, i + 1, error))
			return false;
		if (row->push.wanted)
			batch->push_bytes += row->push.size;
		if (is_value(row)) {
			feed_note_seen(row->item->sid);
			batch->result->held_redis += row->decision.action == core::Action::hold ? 1 : 0;
		}
	}
	return true;
}

void note_failing(Batch *batch, const char *why) {
	batch->result->failing = true;
	strlcpy(batch->result->message, why, sizeof(batch->result->message));
}

// Applies the rows from..to - 1, or puts them back.
bool apply_range(Batch *batch, int from, int to, FeedError *error) {
	if (batch->result->failing)
		return put_back(batch, from, to, error);
	CHECK_FOR_INTERRUPTS();
	Counts counts;
	WorkerFailure why;
	if (try_range(batch, from, to, &counts, &why))
		return settle_range(batch, from, to, &counts, error);
	const bool was_careful = batch->carefully;
	batch->carefully = true;
	const Trouble trouble = trouble_of(why.sqlstate);
	if (!was_careful && trouble == Trouble::row)
		return apply_range(batch, from, to, error);
	if (trouble == Trouble::busy && (to - from == 1 || batch->locking_table))
		return put_back(batch, from, to, error);
	if (trouble == Trouble::table || (to - from == 1 && batch->forced[from] != nullptr)) {
		note_failing(batch, why.message);
		return put_back(batch, from, to, error);
	}
	if (to - from == 1) {
		batch->forced[from] = pstrdup(why.message);
		return apply_range(batch, from, to, error);
	}
	const int middle = from + (to - from) / 2;
	return apply_range(batch, from, middle, error) && apply_range(batch, middle, to, error);
}

// What Redis took is settled in the outbox.
struct Settling {
	Batch *batch;
	Chosen pushed;
};

void settle_pushed(void *argument) {
	const auto *settling = static_cast<Settling *>(argument);
	remove_pending(settling->batch->context->outbox, settling->batch->store->id,
		settling->pushed.rows, settling->pushed.count);
}

// Begins to send what the rows from..to - 1 want.
bool push_range(Batch *batch, int from, int to, FeedError *error) {
	const int before = batch->push_count;
	for (int i = from; i < to; i++)
		if (batch->rows[i].push.wanted)
			batch->pushes[batch->push_count++] = &batch->rows[i];
	const int count = batch->push_count - before;
	return count == 0 || start_pushes(batch->pushes + before, count, error);
}

// Waits for Redis, and settles what it took.
bool settle_pushes(Batch *batch, FeedError *error) {
	const int count = batch->push_count;
	if (count == 0)
		return true;
	auto *changed = static_cast<bool *>(palloc0(count * sizeof(bool)));
	if (!finish_pushes(count, changed, error))
		return false;
	if (error->kind == FeedFailure::refused) {
		batch->result->refused = true;
		note_failing(batch, error->message);
	}
	Chosen pushed = {static_cast<MirrorRow **>(palloc(count * sizeof(MirrorRow *))), 0};
	for (int i = 0; i < count; i++) {
		const int order = batch->pushes[i]->order;
		if (!changed[i])
			pushed.rows[pushed.count++] = batch->pushes[i];
		else if (!put_back(batch, order, order + 1, error))
			return false;
	}
	batch->result->pushed += pushed.count;
	batch->result->conflicts += count - pushed.count;
	WorkerFailure why;
	Settling settling = {batch, pushed};
	if (!try_worker_transaction(kSettling, settle_pushed, &settling, &why)) {
		// They are pushed once more, which changes nothing.
		for (int i = 0; i < pushed.count; i++)
			if (!put_back(batch, pushed.rows[i]->order, pushed.rows[i]->order + 1, error))
				return false;
		if (trouble_of(why.sqlstate) != Trouble::busy)
			note_failing(batch, why.message);
		return true;
	}
	for (int i = 0; i < pushed.count; i++)
		forget_removed(batch->context->outbox, pushed.rows[i]);
	return true;
}

// Of a batch of several parts the last ones are small: nothing is done while Redis works on the
// last.
int end_of_part(int from, int count) {
	const int left = count - from;
	if (count <= kPart || left <= kSmallestPart)
		return count;
	return from + Min(Max(left / 2, kSmallestPart), kPart);
}

} // namespace

Trouble trouble_of(int sqlstate) {
	switch (sqlstate) {
	case ERRCODE_LOCK_NOT_AVAILABLE:
	case ERRCODE_QUERY_CANCELED:
	case ERRCODE_OBJECT_IN_USE:
		return Trouble::busy;
	case ERRCODE_DATA_CORRUPTED:
	case ERRCODE_INDEX_CORRUPTED:
		return Trouble::table;
	default:
		break;
	}
	switch (ERRCODE_TO_CATEGORY(sqlstate)) {
	case ERRCODE_TRANSACTION_ROLLBACK:
		return Trouble::busy;
	case ERRCODE_DATA_EXCEPTION:
	case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
	case ERRCODE_WITH_CHECK_OPTION_VIOLATION:
	case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
	case ERRCODE_PLPGSQL_ERROR:
	case ERRCODE_EXTERNAL_ROUTINE_EXCEPTION:
	case ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION:
	case ERRCODE_INTERNAL_ERROR:
		return Trouble::row;
	default:
		return Trouble::table;
	}
}

bool apply_batch(const ApplyContext *context, const FeedItem *items, int count, ApplyResult *result,
	FeedError *error) {
	memset(result, 0, sizeof(*result));
	MemoryContextReset(context->kept);
	Batch batch = {context, &context->target->store, nullptr, nullptr, result, false, false, 0,
		static_cast<MirrorRow **>(palloc(count * sizeof(MirrorRow *))), 0};
	batch.rows = static_cast<MirrorRow *>(palloc0(count * sizeof(MirrorRow)));
	batch.forced = static_cast<char **>(palloc0(count * sizeof(char *)));
	for (int i = 0; i < count; i++) {
		batch.rows[i].item = &items[i];
		batch.rows[i].index = i;
	}
	// One order for all: rows are locked and written in it.
	std::sort(batch.rows, batch.rows + count,
		[](const MirrorRow &a, const MirrorRow &b) { return a.item->sid < b.item->sid; });
	for (int i = 0; i < count; i++)
		batch.rows[i].order = i;
	bool done = true;
	for (int from = 0, to = 0; done && from < count; from = to) {
		to = end_of_part(from, count);
		done = apply_range(&batch, from, to, error) && push_range(&batch, from, to, error);
	}
	done = done && settle_pushes(&batch, error);
	MemoryContextReset(context->scratch);
	return done;
}

} // namespace session_store
