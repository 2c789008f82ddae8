// Applying what Redis holds.
//
// One transaction a batch: judge each value, read the rows, decide, lock in sid order the rows that
// are to change (SKIP LOCKED: the application never waits for us nor we for it), look again, write
// what differs. The rows are read without a lock first, so that a comparison that finds nothing to
// do writes nothing. An error rolls the batch back and tries its halves.
#include "mirror/apply.h"

#include <algorithm>

#include "core/decide.h"
#include "mirror/judge.h"
#include "mirror/rejects.h"
#include "mirror/rows.h"
#include "postgres/identity.h"
#include "worker/worker.h"

namespace session_store {

namespace {

constexpr const char *kActivity = "session_store mirror: applying";

// One batch under way. In the batch's memory, which outlives the transactions.
struct Batch {
	MirrorTarget *target;
	MemoryContext context; // reset before each transaction
	PulledRow *rows;       // by sid, those without a valid one last
	char **forced;         // by row: why it must be rejected, found out by an error
	ApplyResult *result;
	bool locking_table; // the table's lock was being waited for
};

void decide_row(Batch *batch, PulledRow *row, TimestampTz now) {
	core::Situation situation;
	situation.redis = row->judged.state;
	if (situation.redis == core::RedisState::value)
		situation.postgres = compare_row(row, batch->target->store.payload, now);
	else if (row->in_table && row->expire > now)
		situation.postgres = core::PostgresState::differs_both;
	row->decision = core::decide(situation);
}

bool touches_row(const PulledRow *row) {
	switch (row->decision.action) {
	case core::Action::write_postgres:
	case core::Action::delete_postgres:
	case core::Action::reject:
		return row->in_table;
	default:
		return false;
	}
}

// Locks the rows that are to change and decides about them again. What is locked elsewhere, or has
// gone since, is for another time.
void lock_rows(Batch *batch, PulledRow **rows, int count, TimestampTz now) {
	auto **chosen = static_cast<PulledRow **>(palloc(count * sizeof(PulledRow *)));
	int n = 0;
	for (int i = 0; i < count; i++)
		if (touches_row(rows[i]))
			chosen[n++] = rows[i];
	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
		chosen[i]->in_table = false;
	read_rows(batch->target, RowPlan::lock, chosen, n);
	for (int i = 0; i < n; i++) {
		if (chosen[i]->in_table)
			decide_row(batch, chosen[i], now);
		else
			chosen[i]->decision = {core::Action::retry, false, false};
	}
}

// What a transaction did, taken over once it is committed.
struct Counts {
	int64 applied;
	int64 unchanged;
};

void write_rows(Batch *batch, PulledRow **rows, int count, Counts *counts) {
	auto **upserts = static_cast<PulledRow **>(palloc(count * sizeof(PulledRow *)));
	auto **touches = static_cast<PulledRow **>(palloc(count * sizeof(PulledRow *)));
	auto **removals = static_cast<PulledRow **>(palloc(count * sizeof(PulledRow *)));
	int n_upserts = 0;
	int n_touches = 0;
	int n_removals = 0;
	for (int i = 0; i < count; i++) {
		const core::Decision &decision = rows[i]->decision;
		if (decision.action == core::Action::write_postgres && decision.payload)
			upserts[n_upserts++] = rows[i];
		else if (decision.action == core::Action::write_postgres)
			touches[n_touches++] = rows[i];
		else if (decision.action == core::Action::delete_postgres || touches_row(rows[i]))
			removals[n_removals++] = rows[i];
		else if (decision.action == core::Action::nothing)
			counts->unchanged++;
	}
	counts->applied = n_upserts + n_touches + n_removals;
	if (counts->applied == 0)
		return;
	upsert_rows(batch->target, upserts, n_upserts);
	touch_rows(batch->target, touches, n_touches);
	remove_rows(batch->target, removals, n_removals);
}

void keep_rejects(Batch *batch, PulledRow **rows, int count) {
	auto *rejected = static_cast<RejectedKey *>(palloc(count * sizeof(RejectedKey)));
	auto **mirrored = static_cast<const FeedItem **>(palloc(count * sizeof(FeedItem *)));
	int n_rejected = 0;
	int n_mirrored = 0;
	for (int i = 0; i < count; i++) {
		if (rows[i]->decision.action == core::Action::reject)
			rejected[n_rejected++] = {rows[i]->item, rows[i]->judged.reason};
		else if (rows[i]->decision.action != core::Action::retry)
			mirrored[n_mirrored++] = rows[i]->item;
	}
	clear_rejects(batch->target->store.id, mirrored, n_mirrored);
	write_rejects(batch->target->store.id, rejected, n_rejected);
}

void apply_in_transaction(Batch *batch, int from, int to, Counts *counts) {
	MirrorTarget *target = batch->target;
	batch->locking_table = true;
	open_target(target, RowExclusiveLock);
	batch->locking_table = false;

	const TimestampTz now = GetCurrentTimestamp();
	const int count = to - from;
	auto **rows = static_cast<PulledRow **>(palloc(count * sizeof(PulledRow *)));
	for (int i = 0; i < count; i++) {
		rows[i] = &batch->rows[from + i];
		rows[i]->in_table = false;
		judge_item(
			rows[i]->item, target->store.payload, batch->forced[rows[i]->order], &rows[i]->judged);
	}
	const Identity saved = enter_owner(target->owner);
	SPI_connect();
	MemoryContext spi = MemoryContextSwitchTo(batch->context);
	read_rows(target, RowPlan::read, rows, count);
	for (int i = 0; i < count; i++)
		decide_row(batch, rows[i], now);
	lock_rows(batch, rows, count, now);
	write_rows(batch, rows, count, counts);
	leave_identity(&saved);
	keep_rejects(batch, rows, count);
	MemoryContextSwitchTo(spi);
	SPI_finish();
}

// Tries one range in a transaction of its own. False when it failed and was rolled back.
bool try_range(Batch *batch, int from, int to, Counts *counts, WorkerFailure *failure) {
	MemoryContext outer = CurrentMemoryContext;
	volatile bool failed = false;
	*counts = {};
	MemoryContextReset(batch->context);
	PG_TRY();
	{
		start_worker_transaction(kActivity);
		MemoryContextSwitchTo(batch->context);
		apply_in_transaction(batch, from, to, counts);
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
	for (int i = from; i < to; i++)
		if (batch->rows[i].decision.action == core::Action::retry &&
			!put_back(batch, i, i + 1, error))
			return false;
	return true;
}

void note_failing(Batch *batch, const WorkerFailure *why) {
	batch->result->failing = true;
	strlcpy(batch->result->message, why->message, sizeof(batch->result->message));
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
	const Trouble trouble = trouble_of(why.sqlstate);
	if (trouble == Trouble::busy && (to - from == 1 || batch->locking_table))
		return put_back(batch, from, to, error);
	if (trouble == Trouble::table || (to - from == 1 && batch->forced[from] != nullptr)) {
		note_failing(batch, &why);
		return put_back(batch, from, to, error);
	}
	if (to - from == 1) {
		batch->forced[from] = pstrdup(why.message);
		return apply_range(batch, from, to, error);
	}
	const int middle = from + (to - from) / 2;
	return apply_range(batch, from, middle, error) && apply_range(batch, middle, to, error);
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

bool apply_batch(MirrorTarget *target, MemoryContext context, const FeedItem *items, int count,
	ApplyResult *result, FeedError *error) {
	memset(result, 0, sizeof(*result));
	Batch batch = {target, context, nullptr, nullptr, result, false};
	batch.rows = static_cast<PulledRow *>(palloc0(count * sizeof(PulledRow)));
	batch.forced = static_cast<char **>(palloc0(count * sizeof(char *)));
	for (int i = 0; i < count; i++) {
		batch.rows[i].item = &items[i];
		batch.rows[i].index = i;
	}
	// One order for all: rows are locked and written in it.
	std::sort(batch.rows, batch.rows + count,
		[](const PulledRow &a, const PulledRow &b) { return a.item->sid < b.item->sid; });
	for (int i = 0; i < count; i++)
		batch.rows[i].order = i;
	const bool done = apply_range(&batch, 0, count, error);
	MemoryContextReset(context);
	return done;
}

} // namespace session_store
