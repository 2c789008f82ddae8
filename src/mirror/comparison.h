// The full comparison of Redis and PostgreSQL that every gap in the feed causes.
#pragma once

#include "mirror/feed_link.h"
#include "mirror/target.h"
#include "postgres/pg.h"
#include "worker/worker.h"

namespace session_store {

enum class ComparisonStage : uint8_t {
	idle,
	scanning, // Redis is scanned; its keys become dirty
	counting, // PostgreSQL is walked: how many live sessions did the scan not report?
	marking,  // walked again: those become dirty, to be read again and deleted if gone
	closing,  // rejects that the scan did not report become dirty
	settling, // all candidates are known; those are being applied
};

struct Comparison {
	ComparisonStage stage;
	bool replaces_postgres;  // the first one of a phase: deletes whatever Redis does not have
	char after[4 * 255 + 1]; // last sid walked
	int64 walked;
	int64 live;    // live sessions in PostgreSQL, when counted
	int64 missing; // of them, those that the scan did not report
	TimestampTz marked_at;
	int64 finished; // comparisons that ended
	// The last one would have deleted too much: nothing was deleted, and an answer is awaited.
	bool held;
	int64 held_missing;
	int64 held_live;
};

enum class StepResult : uint8_t {
	worked,         // there is more to do
	waits,          // it goes on when keys have been applied
	ended,          // done: both sides are equal but for what changed since
	feed_failed,    // error is filled
	database_failed // failure is filled
};

// Starts one, or starts it again.
StepResult begin_comparison(
	Comparison *comparison, MirrorTarget *target, FeedError *error, WorkerFailure *failure);
// One step: a SCAN call or a slice of the table. Never within a transaction of the caller.
StepResult comparison_step(
	Comparison *comparison, MirrorTarget *target, FeedError *error, WorkerFailure *failure);
// The connection is lost and the comparison with it.
void abandon_comparison(Comparison *comparison);

} // namespace session_store
