// The full comparison.
//
// SCAN makes every key of Redis dirty; each is read and applied like any other. Then the live rows
// of PostgreSQL are walked in the order of their sids, in slices with a transaction each. A sid
// that the SCAN did not report is a candidate only: it becomes dirty too, is read from Redis, and
// its row goes if it is gone there. So nothing here deletes anything, and a crash leaves nothing
// behind.
//
// max_delete_percent: the rows are counted before any of them becomes a candidate. Past the limit
// none does, and the mirror says so, until the next comparison. Sessions whose end was seen as such
// are not concerned.
#include "mirror/comparison.h"

#include "mirror/rejects.h"
#include "mirror/rows.h"
#include "postgres/identity.h"

namespace session_store {

namespace {

constexpr int kSlice = 1000;
constexpr int64 kWalkBacklog = 5000;   // marking waits while more keys than this are dirty
constexpr int64 kSettledBacklog = 250; // counting waits until at most one batch is dirty
constexpr int64 kAlwaysDeleted = 10;   // max_delete_percent is not asked for so few

// One slice of the walk, within a transaction of its own.
struct Slice {
	MirrorTarget *target;
	const char *after;
	MemoryContext context;
	Datum *sids;
	int count;
};

void read_slice(void *argument) {
	auto *slice = static_cast<Slice *>(argument);
	open_target(slice->target, AccessShareLock);
	const Identity saved = enter_owner(slice->target->owner);
	SPI_connect();
	MemoryContext spi = MemoryContextSwitchTo(slice->context);
	slice->count =
		walk_sids(slice->target, CStringGetTextDatum(slice->after), kSlice, &slice->sids);
	MemoryContextSwitchTo(spi);
	SPI_finish();
	leave_identity(&saved);
}

std::string_view sid_view(Datum sid) {
	const auto *bytes = DatumGetTextPP(sid);
	return {VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)};
}

struct Flag {
	int32 store_id;
	bool value;
};

void execute_for_store(const char *sql, Flag *flag) {
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(flag->store_id)};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	if (SPI_execute_with_args(sql, 1, types, values, nullptr, false, 1) < 0)
		elog(ERROR, "%s failed", sql);
	flag->value = SPI_processed > 0;
	SPI_finish();
	leave_identity(&saved);
}

void read_replaces_postgres(void *argument) {
	execute_for_store(
		"SELECT 1 FROM session_store.mirror_state WHERE store_id = $1 AND replaces_postgres",
		static_cast<Flag *>(argument));
}

void clear_replaces_postgres(void *argument) {
	execute_for_store(
		"UPDATE session_store.mirror_state SET replaces_postgres = false WHERE store_id = $1",
		static_cast<Flag *>(argument));
}

void start_walk(Comparison *comparison, ComparisonStage stage) {
	comparison->stage = stage;
	comparison->after[0] = '\0';
	comparison->walked = 0;
}

bool deletes_too_much(const Comparison *comparison, const StoreSettings *store) {
	return !comparison->replaces_postgres && comparison->missing > kAlwaysDeleted &&
		comparison->missing * 100 > comparison->live * store->max_delete_percent;
}

// What the counts mean. True when the candidates are to be marked.
bool judge_counts(Comparison *comparison, const StoreSettings *store) {
	comparison->held = deletes_too_much(comparison, store);
	comparison->held_missing = comparison->missing;
	comparison->held_live = comparison->live;
	if (comparison->held)
		ereport(LOG,
			(errmsg("mirror of store \"%s\": " INT64_FORMAT " of " INT64_FORMAT
					" live sessions are not in Redis and none of them is deleted",
				 NameStr(store->name), comparison->missing, comparison->live),
				errhint("Raise max_delete_percent of the store to let them be deleted.")));
	return !comparison->held && comparison->missing > 0;
}

StepResult finish_marking(
	Comparison *comparison, MirrorTarget *target, FeedError *error, WorkerFailure *failure) {
	switch (mark_unseen_rejects(target->store.id, target->store.redis_prefix, error, failure)) {
	case MarkResult::feed_failed:
		return StepResult::feed_failed;
	case MarkResult::database_failed:
		return StepResult::database_failed;
	case MarkResult::done:
		break;
	}
	feed_end_comparison();
	comparison->stage = ComparisonStage::settling;
	comparison->marked_at = GetCurrentTimestamp();
	return StepResult::worked;
}

void end_walk(Comparison *comparison, const StoreSettings *store) {
	if (comparison->stage == ComparisonStage::counting) {
		comparison->live = comparison->walked;
		if (judge_counts(comparison, store)) {
			start_walk(comparison, ComparisonStage::marking);
			return;
		}
	}
	comparison->stage = ComparisonStage::closing;
}

StepResult walk(
	Comparison *comparison, MirrorTarget *target, FeedError *error, WorkerFailure *failure) {
	Slice slice = {target, comparison->after, CurrentMemoryContext, nullptr, 0};
	if (!try_worker_transaction("session_store mirror: comparing", read_slice, &slice, failure))
		return StepResult::database_failed;
	for (int i = 0; i < slice.count; i++) {
		const std::string_view sid = sid_view(slice.sids[i]);
		if (feed_seen_in_scan(sid))
			continue;
		if (comparison->stage == ComparisonStage::counting)
			comparison->missing++;
		else if (!feed_mark(sid, error))
			return StepResult::feed_failed;
	}
	comparison->walked += slice.count;
	if (slice.count < kSlice) {
		end_walk(comparison, &target->store);
		return StepResult::worked;
	}
	text_to_cstring_buffer(
		DatumGetTextPP(slice.sids[slice.count - 1]), comparison->after, sizeof(comparison->after));
	return StepResult::worked;
}

// Ends once everything that was dirty at the end of the walk has been applied.
StepResult settle(Comparison *comparison, MirrorTarget *target, WorkerFailure *failure) {
	FeedState state;
	feed_state(&state);
	const int64 since_marked = (GetCurrentTimestamp() - comparison->marked_at) / 1000;
	if (state.dirty + state.in_flight > 0 && state.oldest_ms >= since_marked)
		return StepResult::waits;
	if (comparison->replaces_postgres) {
		Flag flag = {target->store.id, false};
		if (!try_worker_transaction(
				"session_store mirror: comparing", clear_replaces_postgres, &flag, failure))
			return StepResult::database_failed;
		comparison->replaces_postgres = false;
	}
	comparison->stage = ComparisonStage::idle;
	comparison->finished++;
	return StepResult::ended;
}

} // namespace

StepResult begin_comparison(
	Comparison *comparison, MirrorTarget *target, FeedError *error, WorkerFailure *failure) {
	Flag flag = {target->store.id, false};
	if (!try_worker_transaction(
			"session_store mirror: comparing", read_replaces_postgres, &flag, failure))
		return StepResult::database_failed;
	if (!feed_begin_comparison(error))
		return StepResult::feed_failed;
	comparison->replaces_postgres = flag.value;
	comparison->live = comparison->missing = 0;
	start_walk(comparison, ComparisonStage::scanning);
	return StepResult::worked;
}

StepResult comparison_step(
	Comparison *comparison, MirrorTarget *target, FeedError *error, WorkerFailure *failure) {
	FeedState state;
	feed_state(&state);
	switch (comparison->stage) {
	case ComparisonStage::idle:
		return StepResult::ended;
	case ComparisonStage::scanning:
		if (state.scanning)
			return feed_scan_step(error) ? StepResult::worked : StepResult::feed_failed;
		// Sessions whose end is known but not applied yet must not count as missing.
		if (state.dirty > kSettledBacklog)
			return StepResult::waits;
		start_walk(comparison, ComparisonStage::counting);
		return StepResult::worked;
	case ComparisonStage::counting:
		return walk(comparison, target, error, failure);
	case ComparisonStage::marking:
		return state.dirty > kWalkBacklog ? StepResult::waits
										  : walk(comparison, target, error, failure);
	case ComparisonStage::closing:
		return finish_marking(comparison, target, error, failure);
	case ComparisonStage::settling:
		return settle(comparison, target, failure);
	}
	return StepResult::ended;
}

void abandon_comparison(Comparison *comparison) {
	comparison->stage = ComparisonStage::idle;
}

} // namespace session_store
