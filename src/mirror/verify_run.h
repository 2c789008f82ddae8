// What the files of a verification share.
#pragma once

#include "mirror/verification.h"
#include "postgres/identity.h"

extern "C" {
#include "utils/tuplestore.h"
}

namespace session_store {

// The innards of a verification under way; in a memory context of its own.
struct VerifyRun {
	Verification *verification;
	uint64 seed;
	int64 redis_ahead; // microseconds
	MemoryContext context;
	MemoryContext batch; // of candidates that are looked at again
	MemoryContext group; // reset after each step
	TupleDesc candidate_row;
	Tuplestorestate *candidates;
	int64 candidate_count;
	int64 done; // for progress
	int64 total;
};

using GroupStep = void (*)(VerifyRun *run, const FeedItem *items, int count, void *argument);

VerifyRun *begin_run(Verification *verification);
void end_run(VerifyRun *run);

// Runs a step within a transaction: that of the caller, or one of its own when scheduled.
void run_step(VerifyRun *run, GroupStep step, const FeedItem *items, int count, void *argument);
// Runs a step for each group of keys that the link reads.
void for_each_group(VerifyRun *run, GroupStep step, void *argument);

// Within a step: an SPI connection as the table's owner, the table opened.
struct AsOwner {
	Identity saved;
};
AsOwner enter_table(VerifyRun *run);
void leave_table(const AsOwner *entered);

core::VerifyRules rules_now(const VerifyRun *run);
// Notes a sid that differs, to be looked at again.
void add_candidate(VerifyRun *run, Datum sid, const core::Sighting *seen);
// Looks again at the candidates until it is known which of them are differences.
void settle_candidates(VerifyRun *run);

void add_progress(VerifyRun *run, int64 sids);

} // namespace session_store
