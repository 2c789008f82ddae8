// The parts of a verification that a full one and a sample have in common.
#include "mirror/verification.h"

#include "mirror/probe.h"
#include "mirror/requests.h"
#include "mirror/verify_run.h"
#include "stats/status.h"
#include "worker/progress.h"
#include "worker/worker.h"

extern "C" {
#include "common/pg_prng.h"
#include "utils/array.h"
}

namespace session_store {

namespace {

constexpr int kRounds = 6;
constexpr int kBatch = 250;
constexpr int64 kLagTimeout = int64{30} * 1000 * 1000;

// Columns of a candidate.
enum {
	kSid,
	kRedisPresence,
	kRedisDigest,
	kRedisExpire,
	kPresence,
	kDigest,
	kExpire,
	kMoved,
	kColumns
};
constexpr int kRedisMoved = 1;
constexpr int kPostgresMoved = 2;

struct Candidate {
	Datum sid;
	core::Sighting seen;
	int moved; // which sides have changed since it became one
};

TupleDesc make_candidate_row() {
	static constexpr Oid kTypes[] = {
		TEXTOID, INT4OID, INT8OID, INT8OID, INT4OID, INT8OID, INT8OID, INT4OID};
	TupleDesc row = CreateTemplateTupleDesc(kColumns);
	for (int i = 0; i < kColumns; i++)
		TupleDescInitBuiltinEntry(row, static_cast<AttrNumber>(i + 1), "", kTypes[i], -1, 0);
	return row;
}

Tuplestorestate *make_store(const VerifyRun *run) {
	MemoryContext old = MemoryContextSwitchTo(run->context);
	Tuplestorestate *store = tuplestore_begin_heap(false, run->verification->scheduled, work_mem);
	MemoryContextSwitchTo(old);
	return store;
}

void put_candidate(VerifyRun *run, const Candidate *candidate) {
	const core::SideState *redis = &candidate->seen.redis;
	const core::SideState *postgres = &candidate->seen.postgres;
	Datum values[kColumns] = {candidate->sid, Int32GetDatum(static_cast<int>(redis->presence)),
		Int64GetDatum(static_cast<int64>(redis->digest)), Int64GetDatum(redis->expire),
		Int32GetDatum(static_cast<int>(postgres->presence)),
		Int64GetDatum(static_cast<int64>(postgres->digest)), Int64GetDatum(postgres->expire),
		Int32GetDatum(candidate->moved)};
	bool nulls[kColumns] = {};
	tuplestore_putvalues(run->candidates, run->candidate_row, values, nulls);
	run->candidate_count++;
}

core::SideState side_of(TupleTableSlot *slot, int first) {
	bool is_null;
	auto value = [&](int column) {
		return slot_getattr(slot, static_cast<AttrNumber>(column + 1), &is_null);
	};
	return {static_cast<core::Presence>(DatumGetInt32(value(first))),
		static_cast<uint64>(DatumGetInt64(value(first + 1))), DatumGetInt64(value(first + 2))};
}

// The candidates of one look, sorted by sid.
struct Batch {
	Candidate candidates[kBatch];
	int count;
	bool last; // of the rounds: decide now
};

int compare_candidates(const void *a, const void *b) {
	return compare_sids(
		static_cast<const Candidate *>(a)->sid, static_cast<const Candidate *>(b)->sid);
}

// False when there are no more. Sids are copied into the batch's context.
bool take_batch(VerifyRun *run, Tuplestorestate *from, TupleTableSlot *slot, Batch *batch) {
	MemoryContextReset(run->batch);
	MemoryContext old = MemoryContextSwitchTo(run->batch);
	batch->count = 0;
	while (batch->count < kBatch && tuplestore_gettupleslot(from, true, false, slot)) {
		Candidate *one = &batch->candidates[batch->count];
		bool is_null;
		one->sid = PointerGetDatum(PG_DETOAST_DATUM_COPY(slot_getattr(slot, kSid + 1, &is_null)));
		one->seen.redis = side_of(slot, kRedisPresence);
		one->seen.postgres = side_of(slot, kPresence);
		one->moved = DatumGetInt32(slot_getattr(slot, kMoved + 1, &is_null));
		batch->count++;
	}
	// A tuple that came from a file lies in the batch's context.
	ExecClearTuple(slot);
	MemoryContextSwitchTo(old);
	qsort(batch->candidates, batch->count, sizeof(Candidate), compare_candidates);
	return batch->count > 0;
}

// Of the sids that are missing in Redis, those whose rows are kept since Redis evicted their keys.
bool is_kept_eviction(const VerifyRun *run, Datum sid) {
	if (!OidIsValid(extension_table("kept_evictions")))
		return false;
	Oid types[] = {INT4OID, TEXTOID};
	Datum values[] = {Int32GetDatum(run->verification->target.store.id), sid};
	const Identity saved = enter_extension_owner();
	if (SPI_execute_with_args(
			"SELECT 1 FROM session_store.kept_evictions WHERE store_id = $1 AND sid = $2", 2, types,
			values, nullptr, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read kept evictions");
	const bool found = SPI_processed > 0;
	leave_identity(&saved);
	return found;
}

void report(VerifyRun *run, Datum sid, core::Difference difference, const core::Sighting *seen) {
	Verification *verification = run->verification;
	if (difference == core::Difference::missing_in_redis && is_kept_eviction(run, sid)) {
		verification->evictions++;
		return;
	}
	verification->differences++;
	if (verification->report != nullptr)
		verification->report(verification->argument, sid, difference, seen);
}

void judge_again(VerifyRun *run, const Candidate *before, const SeenSid *now, bool last) {
	const core::VerifyRules rules = rules_now(run);
	const core::Difference difference = core::find_difference(now->seen, rules);
	if (difference == core::Difference::none)
		return;
	Candidate after = {before->sid, now->seen, before->moved};
	if (!core::same_state(before->seen.redis, now->seen.redis))
		after.moved |= kRedisMoved;
	if (!core::same_state(before->seen.postgres, now->seen.postgres))
		after.moved |= kPostgresMoved;
	const bool is_known = difference != core::Difference::unknown;
	const bool is_still = is_known && core::same_state(before->seen.redis, now->seen.redis) &&
		core::same_state(before->seen.postgres, now->seen.postgres);
	// A side that never moved while the other did is not being copied to.
	if (is_still || (last && is_known && after.moved != (kRedisMoved | kPostgresMoved)))
		report(run, before->sid, difference, &now->seen);
	else if (!last)
		put_candidate(run, &after);
}

void look_again(VerifyRun *run, const FeedItem *items, int count, void *argument) {
	auto *batch = static_cast<Batch *>(argument);
	const MirrorTarget *target = &run->verification->target;
	const AsOwner entered = enter_table(run);
	auto *seen = static_cast<SeenSid *>(palloc0(Max(count, 1) * sizeof(SeenSid)));
	see_redis(target, run->seed, items, count, seen);
	see_postgres(target, run->seed, seen, count);
	for (int i = 0; i < count; i++) {
		Candidate key = {seen[i].sid, {}, 0};
		const auto *before = static_cast<Candidate *>(
			bsearch(&key, batch->candidates, batch->count, sizeof(Candidate), compare_candidates));
		if (seen[i].sid != 0 && before != nullptr)
			judge_again(run, before, &seen[i], batch->last);
	}
	leave_table(&entered);
}

// Until what either side has accepted by now is copied, where a mirror does that.
void await_lag(VerifyRun *run) {
	Verification *verification = run->verification;
	const StoreSettings *store = &verification->target.store;
	MirrorObstacle obstacle;
	if (!is_dual(store->phase) || verification->lagging || !shared_state_available() ||
		(!verification->scheduled && find_mirror_obstacle(store, &obstacle)))
		return;
	const TimestampTz started = GetCurrentTimestamp();
	uint64 number = 0;
	while (!poll_barrier(store->id, &number)) {
		if (number == 0 || GetCurrentTimestamp() - started >= kLagTimeout) {
			verification->lagging = true;
			return;
		}
		pause_for_barrier();
	}
}

void look_at_batch(VerifyRun *run, Batch *batch) {
	FeedError error;
	for (int i = 0; i < batch->count; i++) {
		const auto *sid = DatumGetTextPP(batch->candidates[i].sid);
		const std::string_view bytes(VARDATA_ANY(sid), VARSIZE_ANY_EXHDR(sid));
		require_probe(probe_add(bytes, &error), &error);
	}
	for_each_group(run, look_again, batch);
}

} // namespace

VerifyRun *begin_run(Verification *verification) {
	MemoryContext context = AllocSetContextCreateInternal(
		CurrentMemoryContext, "session_store verification", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	auto *run = static_cast<VerifyRun *>(palloc0(sizeof(VerifyRun)));
	run->verification = verification;
	run->context = context;
	run->group = AllocSetContextCreateInternal(
		context, "session_store verification group", ALLOCSET_DEFAULT_SIZES);
	run->batch = AllocSetContextCreateInternal(
		context, "session_store verification batch", ALLOCSET_DEFAULT_SIZES);
	run->seed = pg_prng_uint64(&pg_global_prng_state);
	run->candidate_row = make_candidate_row();
	run->candidates = make_store(run);
	run->total = -1;
	FeedError error;
	require_probe(probe_clock(&run->redis_ahead, &error), &error);
	MemoryContextSwitchTo(old);
	return run;
}

void end_run(VerifyRun *run) {
	end_progress(run->verification->target.store.id, Operation::verify);
	tuplestore_end(run->candidates);
	MemoryContextDelete(run->context);
}

void run_step(VerifyRun *run, GroupStep step, const FeedItem *items, int count, void *argument) {
	const bool own = run->verification->scheduled;
	if (own)
		start_worker_transaction("session_store verification");
	MemoryContext old = MemoryContextSwitchTo(run->group);
	step(run, items, count, argument);
	MemoryContextSwitchTo(old);
	if (own)
		commit_worker_transaction();
	MemoryContextReset(run->group);
}

void for_each_group(VerifyRun *run, GroupStep step, void *argument) {
	for (bool more = true; more;) {
		const FeedItem *items;
		int count;
		FeedError error;
		require_probe(probe_next(&items, &count, &more, &error), &error);
		if (count > 0)
			run_step(run, step, items, count, argument);
	}
}

AsOwner enter_table(VerifyRun *run) {
	open_target(&run->verification->target, AccessShareLock);
	SPI_connect();
	MemoryContextSwitchTo(run->group);
	return {enter_owner(run->verification->target.owner)};
}

void leave_table(const AsOwner *entered) {
	leave_identity(&entered->saved);
	SPI_finish();
}

core::VerifyRules rules_now(const VerifyRun *run) {
	return {GetCurrentTimestamp(), run->redis_ahead, run->verification->tolerance};
}

void add_candidate(VerifyRun *run, Datum sid, const core::Sighting *seen) {
	const Candidate candidate = {sid, *seen, 0};
	put_candidate(run, &candidate);
}

void settle_candidates(VerifyRun *run) {
	TupleTableSlot *slot = MakeSingleTupleTableSlot(run->candidate_row, &TTSOpsMinimalTuple);
	auto *batch = static_cast<Batch *>(MemoryContextAlloc(run->context, sizeof(Batch)));
	for (int round = 1; round <= kRounds && run->candidate_count > 0; round++) {
		Tuplestorestate *from = run->candidates;
		run->candidates = make_store(run);
		run->candidate_count = 0;
		batch->last = round == kRounds;
		await_lag(run);
		while (take_batch(run, from, slot, batch))
			look_at_batch(run, batch);
		tuplestore_end(from);
	}
	ExecDropSingleTupleTableSlot(slot);
}

void add_progress(VerifyRun *run, int64 sids) {
	run->done += sids;
	report_progress(run->verification->target.store.id, Operation::verify, run->done,
		run->total < 0 ? -1 : Max(run->total, run->done));
}

} // namespace session_store
