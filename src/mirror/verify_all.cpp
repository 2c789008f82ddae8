// Verifying every session: both sides, as digests, are sorted by sid and merged.
#include "mirror/probe.h"
#include "mirror/verify_run.h"
#include "worker/shared_state.h"

extern "C" {
#include "catalog/pg_collation_d.h"
#include "catalog/pg_operator_d.h"
#include "utils/tuplesort.h"
}

namespace session_store {

namespace {

constexpr long kFetchRows = 500;

enum { kSid, kPresence, kDigest, kExpire, kColumns };

struct Sides {
	TupleDesc row;
	TupleTableSlot *scratch;
	Tuplesortstate *redis;
	Tuplesortstate *postgres;
};

TupleDesc make_row() {
	static constexpr Oid kTypes[] = {TEXTOID, INT4OID, INT8OID, INT8OID};
	TupleDesc row = CreateTemplateTupleDesc(kColumns);
	for (int i = 0; i < kColumns; i++)
		TupleDescInitBuiltinEntry(row, static_cast<AttrNumber>(i + 1), "", kTypes[i], -1, 0);
	return row;
}

Tuplesortstate *make_sort(TupleDesc row) {
	AttrNumber columns[] = {kSid + 1};
	Oid operators[] = {TextLessOperator};
	Oid collations[] = {C_COLLATION_OID};
	bool nulls_first[] = {false};
	return tuplesort_begin_heap(
		row, 1, columns, operators, collations, nulls_first, work_mem, nullptr, TUPLESORT_NONE);
}

void put(const Sides *sides, Tuplesortstate *sort, Datum sid, const core::SideState *state) {
	TupleTableSlot *slot = sides->scratch;
	ExecClearTuple(slot);
	slot->tts_values[kSid] = sid;
	slot->tts_values[kPresence] = Int32GetDatum(static_cast<int>(state->presence));
	slot->tts_values[kDigest] = Int64GetDatum(static_cast<int64>(state->digest));
	slot->tts_values[kExpire] = Int64GetDatum(state->expire);
	memset(slot->tts_isnull, false, kColumns * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(sort, slot);
	ExecClearTuple(slot);
}

void put_redis(VerifyRun *run, const FeedItem *items, int count, void *argument) {
	const auto *sides = static_cast<Sides *>(argument);
	auto *seen = static_cast<SeenSid *>(palloc0(count * sizeof(SeenSid)));
	see_redis(&run->verification->target, run->seed, items, count, seen);
	for (int i = 0; i < count; i++) {
		const core::SideState *state = &seen[i].seen.redis;
		if (seen[i].sid == 0) {
			run->verification->rejects += state->presence == core::Presence::rejected ? 1 : 0;
			continue;
		}
		if (state->presence != core::Presence::absent)
			put(sides, sides->redis, seen[i].sid, state);
	}
	add_progress(run, count);
}

void put_row(VerifyRun *run, const Sides *sides, HeapTuple row, TupleDesc descriptor) {
	bool is_null;
	const core::SideState state = {core::Presence::present,
		payload_digest(run->verification->target.store.payload,
			SPI_getbinval(row, descriptor, 2, &is_null), run->seed),
		DatumGetTimestampTz(SPI_getbinval(row, descriptor, 3, &is_null))};
	put(sides, sides->postgres, SPI_getbinval(row, descriptor, 1, &is_null), &state);
}

void put_postgres(VerifyRun *run, const FeedItem *, int, void *argument) {
	const auto *sides = static_cast<Sides *>(argument);
	const AsOwner entered = enter_table(run);
	const char *query =
		psprintf("SELECT sid, sess, expire FROM %s WHERE expire > clock_timestamp()",
			run->verification->target.name);
	Portal portal = SPI_cursor_open_with_args(
		nullptr, query, 0, nullptr, nullptr, nullptr, false, CURSOR_OPT_NO_SCROLL);
	MemoryContext page = AllocSetContextCreateInternal(
		run->group, "session_store verification page", ALLOCSET_DEFAULT_SIZES);
	for (;;) {
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, kFetchRows);
		if (SPI_processed == 0)
			break;
		MemoryContext old = MemoryContextSwitchTo(page);
		for (uint64 i = 0; i < SPI_processed; i++)
			put_row(run, sides, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		MemoryContextSwitchTo(old);
		MemoryContextReset(page);
		add_progress(run, static_cast<int64>(SPI_processed));
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	leave_table(&entered);
}

// One sorted side, with the sid it stands at.
struct Side {
	Tuplesortstate *sort;
	TupleTableSlot *slot;
	bool ended;
	Datum sid; // in the slot
	core::SideState state;
};

void advance(Side *side) {
	bool is_null;
	side->ended = !tuplesort_gettupleslot(side->sort, true, false, side->slot, nullptr);
	if (side->ended)
		return;
	auto value = [&](int column) {
		return slot_getattr(side->slot, static_cast<AttrNumber>(column + 1), &is_null);
	};
	side->sid = value(kSid);
	side->state = {static_cast<core::Presence>(DatumGetInt32(value(kPresence))),
		static_cast<uint64>(DatumGetInt64(value(kDigest))), DatumGetInt64(value(kExpire))};
}

Side start_side(Tuplesortstate *sort, TupleDesc row) {
	Side side = {sort, MakeSingleTupleTableSlot(row, &TTSOpsMinimalTuple), false, 0, {}};
	tuplesort_performsort(sort);
	advance(&side);
	return side;
}

void see_merged(VerifyRun *run, Datum sid, const core::Sighting *seen) {
	run->verification->compared++;
	if (seen->redis.presence == core::Presence::rejected)
		run->verification->rejects++;
	if (core::find_difference(*seen, rules_now(run)) != core::Difference::none)
		add_candidate(run, sid, seen);
}

void merge(VerifyRun *run, const Sides *sides) {
	static constexpr core::SideState kAbsent = {core::Presence::absent, 0, 0};
	Side redis = start_side(sides->redis, sides->row);
	Side postgres = start_side(sides->postgres, sides->row);
	while (!redis.ended || !postgres.ended) {
		const int order = redis.ended ? 1
			: postgres.ended          ? -1
									  : compare_sids(redis.sid, postgres.sid);
		const core::Sighting seen = {
			order <= 0 ? redis.state : kAbsent, order >= 0 ? postgres.state : kAbsent};
		see_merged(run, order <= 0 ? redis.sid : postgres.sid, &seen);
		if (order <= 0)
			advance(&redis);
		if (order >= 0)
			advance(&postgres);
		if (run->verification->compared % kFetchRows == 0)
			CHECK_FOR_INTERRUPTS();
	}
	ExecDropSingleTupleTableSlot(redis.slot);
	ExecDropSingleTupleTableSlot(postgres.slot);
}

int64 expected_sids(const VerifyRun *run) {
	MirrorReport report;
	pid_t pid;
	if (!shared_state_available() ||
		!get_mirror_report(MyDatabaseId, run->verification->target.store.id, &report, &pid) ||
		report.redis_sessions < 0)
		return -1;
	return 2 * report.redis_sessions;
}

} // namespace

void verify_all(Verification *verification) {
	VerifyRun *run = begin_run(verification);
	MemoryContext old = MemoryContextSwitchTo(run->context);
	Sides sides = {make_row(), nullptr, nullptr, nullptr};
	sides.scratch = MakeSingleTupleTableSlot(sides.row, &TTSOpsVirtual);
	sides.redis = make_sort(sides.row);
	sides.postgres = make_sort(sides.row);
	MemoryContextSwitchTo(old);
	run->total = expected_sids(run);

	FeedError error;
	require_probe(probe_start_scan(&error), &error);
	for_each_group(run, put_redis, &sides);
	run_step(run, put_postgres, nullptr, 0, &sides);
	merge(run, &sides);
	tuplesort_end(sides.redis);
	tuplesort_end(sides.postgres);
	ExecDropSingleTupleTableSlot(sides.scratch);
	settle_candidates(run);
	end_run(run);
}

} // namespace session_store
