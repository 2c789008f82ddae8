// Both sides as digests.
#include "mirror/sides.h"

#include "mirror/judge.h"

extern "C" {
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/resowner.h"
}

namespace session_store {

namespace {

void take_over(const Judged *judged, Payload payload, uint64 seed, SeenSid *one) {
	one->sid = judged->valid_sid ? judged->sid : 0;
	core::SideState *redis = &one->seen.redis;
	switch (judged->state) {
	case core::RedisState::absent:
		redis->presence = core::Presence::absent;
		break;
	case core::RedisState::value:
		redis->presence = core::Presence::present;
		redis->digest = payload_digest(payload, judged->sess, seed);
		redis->expire = judged->expire;
		break;
	case core::RedisState::error:
		redis->presence = core::Presence::unknown;
		break;
	default:
		redis->presence = core::Presence::rejected;
		break;
	}
}

// False when PostgreSQL cannot take one of the payloads, by an error that is rolled back.
bool try_judge(
	const MirrorTarget *target, uint64 seed, const FeedItem *items, int count, SeenSid *seen) {
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;
	BeginInternalSubTransaction(nullptr);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		for (int i = 0; i < count; i++) {
			Judged judged;
			judge_item(&items[i], nullptr, &judged);
			convert_payload(&items[i], target->store.payload, Look::first, &judged);
			take_over(&judged, target->store.payload, seed, &seen[i]);
		}
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		ErrorData *error = CopyErrorData();
		const int sqlstate = error->sqlerrcode;
		if (ERRCODE_TO_CATEGORY(sqlstate) != ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION) &&
			ERRCODE_TO_CATEGORY(sqlstate) != ERRCODE_TO_CATEGORY(ERRCODE_PROGRAM_LIMIT_EXCEEDED))
			PG_RE_THROW();
		FlushErrorState();
		FreeErrorData(error);
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

int compare_seen(const void *a, const void *b) {
	return compare_sids(static_cast<const SeenSid *>(a)->sid, static_cast<const SeenSid *>(b)->sid);
}

SeenSid *find_seen(SeenSid *seen, int count, Datum sid) {
	SeenSid key = {sid, {}};
	return static_cast<SeenSid *>(bsearch(&key, seen, count, sizeof(SeenSid), compare_seen));
}

} // namespace

uint64 payload_digest(Payload payload, Datum sess, uint64 seed) {
	if (payload == Payload::jsonb)
		return DatumGetUInt64(DirectFunctionCall2(jsonb_hash_extended, sess, UInt64GetDatum(seed)));
	const auto *bytes = reinterpret_cast<bytea *>(PG_DETOAST_DATUM_PACKED(sess));
	return DatumGetUInt64(
		hash_any_extended(reinterpret_cast<const unsigned char *>(VARDATA_ANY(bytes)),
			static_cast<int>(VARSIZE_ANY_EXHDR(bytes)), seed));
}

void see_redis(
	const MirrorTarget *target, uint64 seed, const FeedItem *items, int count, SeenSid *seen) {
	memset(static_cast<void *>(seen), 0, count * sizeof(SeenSid));
	if (try_judge(target, seed, items, count, seen))
		return;
	for (int i = 0; i < count; i++) {
		if (try_judge(target, seed, &items[i], 1, &seen[i]))
			continue;
		Judged judged;
		judge_item(&items[i], "rejected", &judged);
		take_over(&judged, target->store.payload, seed, &seen[i]);
	}
}

void see_postgres(const MirrorTarget *target, uint64 seed, SeenSid *seen, int count) {
	qsort(seen, count, sizeof(SeenSid), compare_seen);
	int first = 0;
	while (first < count && seen[first].sid == 0)
		first++;
	Datum *sids = static_cast<Datum *>(palloc(Max(count, 1) * sizeof(Datum)));
	for (int i = first; i < count; i++) {
		sids[i - first] = seen[i].sid;
		seen[i].seen.postgres.presence = core::Presence::absent;
	}
	Oid types[] = {TEXTARRAYOID};
	Datum values[] = {
		PointerGetDatum(construct_array(sids, count - first, TEXTOID, -1, false, TYPALIGN_INT))};
	if (SPI_execute_with_args(psprintf("SELECT sid, sess, expire FROM %s WHERE sid = ANY ($1)"
									   " AND expire > pg_catalog.clock_timestamp()",
								  target->name),
			1, types, values, nullptr, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read sessions");
	SPITupleTable *rows = SPI_tuptable;
	for (uint64 i = 0; i < SPI_processed; i++) {
		bool is_null;
		HeapTuple row = rows->vals[i];
		SeenSid *one =
			find_seen(seen + first, count - first, SPI_getbinval(row, rows->tupdesc, 1, &is_null));
		if (one == nullptr)
			continue;
		one->seen.postgres = {core::Presence::present,
			payload_digest(
				target->store.payload, SPI_getbinval(row, rows->tupdesc, 2, &is_null), seed),
			DatumGetTimestampTz(SPI_getbinval(row, rows->tupdesc, 3, &is_null))};
	}
	SPI_freetuptable(rows);
}

int compare_sids(Datum a, Datum b) {
	if (a == 0 || b == 0)
		return (a != 0) - (b != 0);
	const auto *left = DatumGetTextPP(a);
	const auto *right = DatumGetTextPP(b);
	const int left_bytes = static_cast<int>(VARSIZE_ANY_EXHDR(left));
	const int right_bytes = static_cast<int>(VARSIZE_ANY_EXHDR(right));
	const int order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right), Min(left_bytes, right_bytes));
	return order != 0 ? order : left_bytes - right_bytes;
}

} // namespace session_store
