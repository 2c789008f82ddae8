// The full comparison of Redis and PostgreSQL that every gap in the feed causes.
#pragma once

#include "mirror/feed_link.h"
#include "mirror/situation.h"
#include "mirror/target.h"
#include "postgres/pg.h"
#include "worker/worker.h"

namespace session_store {

enum class ComparisonStage : uint8_t {
	idle,
	scanning, // Redis is scanned; its keys become dirty
	counting, // PostgreSQL is walked: how many live sessions did the scan not report?
	marking,  // walked again: those become dirty, to be read again and deleted, or copied
	pruning,  // Redis is scanned again, for what PostgreSQL, its owner, does not have
	closing,  // rejects that the scan did not report become dirty
	settling, // all candidates are known; those are being applied
};

// What a comparison answers.
struct ComparisonCause {
	core::Continuity continuity;
	bool allows_mass_delete; // max_delete_percent is not asked
	bool owner_replaces;     // it is the first of a phase and will be the last of its kind
};

// Deletes on one side that a comparison found necessary.
struct Deletions {
	int64 wanted;
	int64 live; // of so many
	bool held;  // too many: none was made, and an answer is awaited
};

struct Comparison {
	ComparisonStage stage;
	ComparisonCause cause;
	char after[4 * 255 + 1]; // last sid walked
	int64 walked;
	int64 live;    // live sessions in PostgreSQL, when counted
	int64 missing; // of them, those that the scan did not report
	TimestampTz started_at;
	TimestampTz ended_at;
	TimestampTz marked_at;
	FeedIdentity identity; // of Redis when it began
	int64 finished;        // comparisons that ended
	Deletions postgres;    // of the last one that was judged
	Deletions redis;
	// Of the one under way:
	int64 postgres_wanted;
	int64 redis_wanted;
	bool judged; // what may be deleted is known
	bool prunes; // Redis is scanned again
};

enum class StepResult : uint8_t {
	worked,         // there is more to do
	waits,          // it goes on when keys have been applied
	ended,          // done: both sides are equal but for what changed since
	feed_failed,    // error is filled
	database_failed // failure is filled
};

// Starts one, or starts it again.
StepResult begin_comparison(Comparison *comparison, const ComparisonCause *cause, FeedError *error);
// One step: a SCAN call or a slice of the table. Never within a transaction of the caller.
StepResult comparison_step(
	Comparison *comparison, MirrorTarget *target, FeedError *error, WorkerFailure *failure);
// The connection is lost and the comparison with it.
void abandon_comparison(Comparison *comparison);

inline bool is_comparing(const Comparison *comparison) {
	return comparison->stage != ComparisonStage::idle;
}
inline bool holds_deletes(const Comparison *comparison) {
	return comparison->postgres.held || comparison->redis.held;
}
// How batches are to be decided about while it is under way.
MirrorStance stance_of(const Comparison *comparison);

// What is remembered of the store's mirror in session_store.mirror_state.
struct MirrorMemory {
	bool owner_replaces;
	bool has_identity;
	FeedIdentity identity;
};
// Within a transaction.
void read_memory(int32 store_id, MirrorMemory *memory);

} // namespace session_store
