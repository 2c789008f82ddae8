// Verifying a sample: sids of PostgreSQL chosen at random, then sids of Redis chosen at random.
#include "mirror/probe.h"
#include "mirror/verify_run.h"

extern "C" {
#include "common/hashfn.h"
#include "utils/hsearch.h"
}

namespace session_store {

namespace {

// Up to here all rows are looked at to choose some; beyond, those of some pages.
constexpr double kSmallTable = 50000;
constexpr double kSpare = 5; // times as many rows as asked for, since many may have expired

struct Sample {
	int size;
	Datum *sids; // in the run's context
	int count;
	HTAB *looked; // hashes of the sids that were looked at
};

double estimate_rows(const VerifyRun *run) {
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(run->verification->target.store.relation)};
	if (SPI_execute_with_args(
			"SELECT coalesce((SELECT sum(greatest(c.reltuples, 0)) FROM pg_partition_tree($1) p"
			" JOIN pg_class c ON c.oid = p.relid WHERE p.isleaf),"
			" (SELECT c.reltuples FROM pg_class c WHERE c.oid = $1))::double precision",
			1, types, values, nullptr, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not estimate the sessions");
	bool is_null;
	const Datum rows = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	return is_null ? 0 : DatumGetFloat8(rows);
}

void choose_rows(VerifyRun *run, const FeedItem *, int, void *argument) {
	auto *sample = static_cast<Sample *>(argument);
	const AsOwner entered = enter_table(run);
	const double rows = estimate_rows(run);
	const char *pages = "";
	if (rows > kSmallTable)
		pages = psprintf(" TABLESAMPLE SYSTEM (%g)", Min(100, 100 * kSpare * sample->size / rows));
	if (SPI_execute(psprintf("SELECT sid FROM %s%s WHERE expire > clock_timestamp()"
							 " ORDER BY random() LIMIT %d",
						run->verification->target.name, pages, sample->size),
			false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not choose sessions");
	MemoryContextSwitchTo(run->context);
	sample->count = static_cast<int>(SPI_processed);
	sample->sids = static_cast<Datum *>(palloc(Max(sample->count, 1) * sizeof(Datum)));
	for (int i = 0; i < sample->count; i++) {
		bool is_null;
		sample->sids[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(
			SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &is_null)));
	}
	MemoryContextSwitchTo(run->group);
	leave_table(&entered);
}

// Whether it is the first look at this sid.
bool is_new(Sample *sample, Datum sid) {
	const auto *text_sid = DatumGetTextPP(sid);
	const uint64 hash =
		hash_bytes_extended(reinterpret_cast<const unsigned char *>(VARDATA_ANY(text_sid)),
			static_cast<int>(VARSIZE_ANY_EXHDR(text_sid)), 0);
	bool found;
	(void)hash_search(sample->looked, &hash, HASH_ENTER, &found);
	return !found;
}

void look_first(VerifyRun *run, const FeedItem *items, int count, void *argument) {
	auto *sample = static_cast<Sample *>(argument);
	const MirrorTarget *target = &run->verification->target;
	const AsOwner entered = enter_table(run);
	auto *seen = static_cast<SeenSid *>(palloc0(count * sizeof(SeenSid)));
	see_redis(target, run->seed, items, count, seen);
	see_postgres(target, run->seed, seen, count);
	const core::VerifyRules rules = rules_now(run);
	for (int i = 0; i < count; i++) {
		const bool rejected = seen[i].seen.redis.presence == core::Presence::rejected;
		if (seen[i].sid == 0) {
			run->verification->rejects += rejected ? 1 : 0;
			continue;
		}
		if (!is_new(sample, seen[i].sid))
			continue;
		run->verification->compared++;
		run->verification->rejects += rejected ? 1 : 0;
		if (core::find_difference(seen[i].seen, rules) != core::Difference::none)
			add_candidate(run, seen[i].sid, &seen[i].seen);
	}
	leave_table(&entered);
	add_progress(run, count);
}

HTAB *make_looked(const VerifyRun *run, int size) {
	HASHCTL control = {};
	control.keysize = sizeof(uint64);
	control.entrysize = sizeof(uint64);
	control.hcxt = run->context;
	return hash_create(
		"session_store sample", Max(size, 16), &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

} // namespace

void verify_sample(Verification *verification, int sample_size) {
	VerifyRun *run = begin_run(verification);
	Sample sample = {sample_size, nullptr, 0, make_looked(run, 2 * sample_size)};
	FeedError error;
	run_step(run, choose_rows, nullptr, 0, &sample);
	run->total = sample.count + sample_size;
	for (int i = 0; i < sample.count; i++) {
		const auto *sid = DatumGetTextPP(sample.sids[i]);
		const std::string_view bytes(VARDATA_ANY(sid), VARSIZE_ANY_EXHDR(sid));
		require_probe(probe_add(bytes, &error), &error);
	}
	for_each_group(run, look_first, &sample);
	require_probe(probe_start_sample(static_cast<size_t>(sample_size), &error), &error);
	for_each_group(run, look_first, &sample);
	settle_candidates(run);
	end_run(run);
}

} // namespace session_store
