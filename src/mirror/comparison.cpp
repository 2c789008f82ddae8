// The full comparison.
//
// SCAN makes every key of Redis dirty; each is read and applied like any other. Then the live rows
// of PostgreSQL are walked in the order of their sids, in slices with a transaction each. A sid
// that the SCAN did not report is a candidate only: it becomes dirty too, is read from Redis, and
// is decided about when it is gone there. So nothing here deletes anything, and a crash leaves
// nothing behind.
//
// max_delete_percent: what would be deleted is counted before any of it is, on either side. In
// PostgreSQL that is the walk's business. In Redis a first SCAN decides about each key and holds
// the deletes; they are made by a second one. Past the limit of a side none is made there, and the
// mirror says so, until the next comparison. Sessions whose end was seen as such are not concerned.
#include "mirror/comparison.h"

#include "mirror/pending.h"
#include "mirror/rejects.h"
#include "mirror/rows.h"
#include "postgres/identity.h"
#include "postgres/yield.h"

namespace session_store {

namespace {

constexpr const char *kActivity = "session_store mirror: comparing";
constexpr int kSlice = 1000;
constexpr int64 kWalkBacklog = 5000; // marking waits while more keys than this are dirty
constexpr int64 kAlwaysDeleted = 10; // max_delete_percent is not asked for so few

// One slice of the walk, within a transaction of its own.
struct Slice {
	MirrorTarget *target;
	const char *after;
	MemoryContext context;
	Datum *sids;
	bool *missing; // the comparison has not met them, and they are not kept for an eviction
	int count;
};

std::string_view sid_view(Datum sid) {
	const auto *bytes = DatumGetTextPP(sid);
	return {VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)};
}

// Within the transaction, its result in the slice's context.
void find_missing(Slice *slice) {
	slice->missing = static_cast<bool *>(palloc0((slice->count + 1) * sizeof(bool)));
	KeptEvictions kept = open_kept_evictions(slice->target->store.id);
	for (int i = 0; i < slice->count; i++) {
		yield_if_due();
		slice->missing[i] =
			!feed_seen(sid_view(slice->sids[i])) && !is_kept_eviction(&kept, slice->sids[i]);
	}
	close_kept_evictions(&kept);
}

void read_slice(void *argument) {
	auto *slice = static_cast<Slice *>(argument);
	open_target(slice->target, AccessShareLock);
	const Identity saved = enter_owner(slice->target->owner);
	SPI_connect();
	MemoryContext spi = MemoryContextSwitchTo(slice->context);
	slice->count =
		walk_sids(slice->target, CStringGetTextDatum(slice->after), kSlice, &slice->sids);
	find_missing(slice);
	MemoryContextSwitchTo(spi);
	SPI_finish();
	leave_identity(&saved);
}

constexpr const char *kReadMemory =
	"SELECT owner_replaces, run_id, replication_id, flush_calls, swapdb_calls"
	" FROM session_store.mirror_state WHERE store_id = $1";
constexpr const char *kWriteMemory =
	"INSERT INTO session_store.mirror_state AS m"
	" (store_id, owner_replaces, run_id, replication_id, flush_calls, swapdb_calls)"
	" VALUES ($1, false, $2, $3, $4, $5) ON CONFLICT (store_id) DO UPDATE"
	" SET owner_replaces = m.owner_replaces AND NOT $6, run_id = excluded.run_id,"
	" replication_id = excluded.replication_id, flush_calls = excluded.flush_calls,"
	" swapdb_calls = excluded.swapdb_calls";

// The end of a comparison, to be remembered.
struct Ending {
	int32 store_id;
	const Comparison *comparison;
};

void write_memory(void *argument) {
	const auto *ending = static_cast<Ending *>(argument);
	// A crash must not make the next mirror answer again what was answered.
	ForceSyncCommit();
	const FeedIdentity *identity = &ending->comparison->identity;
	Oid types[] = {INT4OID, TEXTOID, TEXTOID, INT8OID, INT8OID, BOOLOID};
	Datum values[] = {Int32GetDatum(ending->store_id), CStringGetTextDatum(identity->run_id),
		CStringGetTextDatum(identity->replication_id), Int64GetDatum(identity->flush_calls),
		Int64GetDatum(identity->swapdb_calls),
		BoolGetDatum(ending->comparison->cause.owner_replaces)};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	if (SPI_execute_with_args(kWriteMemory, 6, types, values, nullptr, false, 0) < 0)
		elog(ERROR, "could not remember the comparison");
	SPI_finish();
	leave_identity(&saved);
}

void copy_identity_text(char *to, Size size, uint64 row, int column) {
	const char *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
	strlcpy(to, text == nullptr ? "" : text, size);
}

void start_walk(Comparison *comparison, ComparisonStage stage) {
	comparison->stage = stage;
	comparison->after[0] = '\0';
	comparison->walked = 0;
}

// Whether the absence of its key deletes the session here.
bool would_delete(const Comparison *comparison, const StoreSettings *store, std::string_view sid) {
	switch (comparison->cause.continuity) {
	case core::Continuity::kept:
		return true;
	case core::Continuity::broken:
		return owner_of(store, sid) == core::Owner::redis;
	case core::Continuity::refill:
		break;
	}
	return false;
}

Deletions judge(const ComparisonCause *cause, const StoreSettings *store, int64 wanted, int64 live,
	const char *missing_from, const char *side) {
	Deletions result = {wanted, live, false};
	result.held = !cause->allows_mass_delete && wanted > kAlwaysDeleted &&
		wanted * 100 > live * store->max_delete_percent;
	if (result.held)
		ereport(LOG,
			(errmsg("mirror of store \"%s\": " INT64_FORMAT " of " INT64_FORMAT
					" live sessions of %s are not in %s and none of them is deleted",
				 NameStr(store->name), wanted, live, side, missing_from),
				errhint("Call session_store.resync(store, allow_mass_delete => true) to let them "
						"be deleted.")));
	return result;
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
	comparison->stage = ComparisonStage::settling;
	comparison->marked_at = GetCurrentTimestamp();
	return StepResult::worked;
}

// Everything is counted: what may be deleted is known, and what comes next.
void end_counting(Comparison *comparison, const StoreSettings *store) {
	FeedState state;
	feed_state(&state);
	const int64 postgres_wanted = comparison->postgres_wanted;
	comparison->live = comparison->walked;
	comparison->postgres =
		judge(&comparison->cause, store, postgres_wanted, comparison->live, "Redis", "PostgreSQL");
	comparison->redis = judge(
		&comparison->cause, store, comparison->redis_wanted, state.scanned, "PostgreSQL", "Redis");
	comparison->judged = true;
	// What the owner has and Redis lost goes there, whatever becomes of the rest.
	const bool only_deletes = comparison->missing == comparison->postgres_wanted;
	if (comparison->missing > 0 && !(only_deletes && comparison->postgres.held))
		start_walk(comparison, ComparisonStage::marking);
	else
		comparison->stage = ComparisonStage::pruning;
}

void end_walk(Comparison *comparison, const StoreSettings *store) {
	if (comparison->stage == ComparisonStage::counting)
		end_counting(comparison, store);
	else
		comparison->stage = ComparisonStage::pruning;
}

void count_missing(Comparison *comparison, const StoreSettings *store, std::string_view sid) {
	comparison->missing++;
	if (would_delete(comparison, store, sid))
		comparison->postgres_wanted++;
}

StepResult walk(
	Comparison *comparison, MirrorTarget *target, FeedError *error, WorkerFailure *failure) {
	Slice slice = {target, comparison->after, CurrentMemoryContext, nullptr, nullptr, 0};
	if (!try_worker_transaction(kActivity, read_slice, &slice, failure))
		return StepResult::database_failed;
	for (int i = 0; i < slice.count; i++) {
		const std::string_view sid = sid_view(slice.sids[i]);
		if (!slice.missing[i])
			continue;
		if (comparison->stage == ComparisonStage::counting)
			count_missing(comparison, &target->store, sid);
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

// Scans again where deletes of Redis were held and may be made now.
StepResult prune(Comparison *comparison, FeedError *error) {
	FeedState state;
	feed_state(&state);
	if (comparison->redis_wanted == 0 || comparison->redis.held) {
		comparison->stage = ComparisonStage::closing;
		return StepResult::worked;
	}
	if (!comparison->prunes) {
		comparison->prunes = true;
		return feed_rescan(error) ? StepResult::worked : StepResult::feed_failed;
	}
	if (state.scanning)
		return feed_scan_step(error) ? StepResult::worked : StepResult::feed_failed;
	comparison->stage = ComparisonStage::closing;
	return StepResult::worked;
}

// Whether what was dirty at marked_at has been applied.
bool has_settled(const Comparison *comparison) {
	FeedState state;
	feed_state(&state);
	const int64 since_marked = (GetCurrentTimestamp() - comparison->marked_at) / 1000;
	return state.dirty + state.in_flight == 0 || state.oldest_ms < since_marked;
}

// Scans on; then waits for what was found, since sessions whose end is known but not applied yet
// must not count as missing.
StepResult scan(Comparison *comparison, FeedError *error) {
	FeedState state;
	feed_state(&state);
	if (state.scanning)
		return feed_scan_step(error) ? StepResult::worked : StepResult::feed_failed;
	if (comparison->marked_at == 0)
		comparison->marked_at = GetCurrentTimestamp();
	if (!has_settled(comparison))
		return StepResult::waits;
	start_walk(comparison, ComparisonStage::counting);
	return StepResult::worked;
}

// Ends once everything that was dirty at the end of the walk has been applied.
StepResult settle(Comparison *comparison, MirrorTarget *target, WorkerFailure *failure) {
	if (!has_settled(comparison))
		return StepResult::waits;
	Ending ending = {target->store.id, comparison};
	// While deletes wait for an answer the next mirror must ask again.
	if (!holds_deletes(comparison) &&
		!try_worker_transaction(kActivity, write_memory, &ending, failure))
		return StepResult::database_failed;
	feed_end_comparison();
	comparison->stage = ComparisonStage::idle;
	comparison->ended_at = GetCurrentTimestamp();
	comparison->finished++;
	return StepResult::ended;
}

} // namespace

StepResult begin_comparison(
	Comparison *comparison, const ComparisonCause *cause, FeedError *error) {
	if (!feed_begin_comparison(error))
		return StepResult::feed_failed;
	feed_identity(&comparison->identity);
	comparison->cause = *cause;
	comparison->live = comparison->missing = 0;
	comparison->postgres_wanted = comparison->redis_wanted = 0;
	comparison->judged = comparison->prunes = false;
	comparison->started_at = GetCurrentTimestamp();
	comparison->ended_at = comparison->marked_at = 0;
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
		return scan(comparison, error);
	case ComparisonStage::counting:
		return walk(comparison, target, error, failure);
	case ComparisonStage::marking:
		return state.dirty > kWalkBacklog ? StepResult::waits
										  : walk(comparison, target, error, failure);
	case ComparisonStage::pruning:
		return prune(comparison, error);
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

MirrorStance stance_of(const Comparison *comparison) {
	MirrorStance stance = {
		core::Continuity::kept, core::Deletes::allowed, core::Deletes::allowed, 0};
	if (!is_comparing(comparison))
		return stance;
	stance.continuity = comparison->cause.continuity;
	// While continuity is kept what is absent has ended: only what the SCAN did not report is
	// counted before it is looked at.
	if (comparison->cause.allows_mass_delete || stance.continuity == core::Continuity::kept)
		return stance;
	if (!comparison->judged || comparison->postgres.held)
		stance.postgres_deletes = core::Deletes::held;
	if (!comparison->judged || comparison->redis.held)
		stance.redis_deletes = core::Deletes::held;
	return stance;
}

void read_memory(int32 store_id, MirrorMemory *memory) {
	*memory = {};
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(store_id)};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	if (SPI_execute_with_args(kReadMemory, 1, types, values, nullptr, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read what the mirror remembers");
	if (SPI_processed > 0) {
		bool no_identity;
		bool is_null;
		HeapTuple row = SPI_tuptable->vals[0];
		TupleDesc descriptor = SPI_tuptable->tupdesc;
		memory->owner_replaces = DatumGetBool(SPI_getbinval(row, descriptor, 1, &is_null));
		(void)SPI_getbinval(row, descriptor, 2, &no_identity);
		memory->has_identity = !no_identity;
		copy_identity_text(memory->identity.run_id, sizeof(memory->identity.run_id), 0, 2);
		copy_identity_text(
			memory->identity.replication_id, sizeof(memory->identity.replication_id), 0, 3);
		memory->identity.flush_calls = DatumGetInt64(SPI_getbinval(row, descriptor, 4, &is_null));
		memory->identity.swapdb_calls = DatumGetInt64(SPI_getbinval(row, descriptor, 5, &is_null));
	}
	SPI_finish();
	leave_identity(&saved);
}

} // namespace session_store
