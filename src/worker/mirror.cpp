// The mirror of one store: keeps its Redis and its table equal.
//
// One loop. Each turn takes in the hints that are here and what is new in the outbox, moves a
// comparison on by a step, reads a batch of dirty keys from Redis, and applies it: a transaction
// for PostgreSQL's side, then conditional writes for Redis'. Nothing talks to Redis within a
// transaction. Nothing durable is kept but the outbox, and which Redis the last comparison was
// about: after a restart, a lost connection or a crash the full comparison finds what is to be done
// (so that commits need not wait for the disk).
//
// Errors of Redis drop the connection, errors of PostgreSQL roll a transaction back; either is said
// in status and once in the log, and tried again with backoff. Only what is neither ends the
// process, whose supervisor starts it again.
#include "core/schedule.h"
#include "mirror/latch_waiter.h"
#include "mirror/report.h"
#include "postgres/yield.h"
#include "worker/mirror_process.h"

extern "C" {
#include "postmaster/interrupt.h"
#include "utils/inval.h"
}

namespace session_store {

Mirror *mirror = nullptr;

namespace {

// While deletes wait for an answer, the question may go away by itself.
constexpr int64 kHeldInterval = int64{60} * 1000 * kMicrosecondsPerMs;
constexpr int kLockedPauseMs = 20;
constexpr int64 kBarrierInterval = int64{1000} * kMicrosecondsPerMs;
constexpr int kOutboxRows = 5000;    // read at once
constexpr int64 kMostDirty = 20'000; // the outbox waits while more keys than this are dirty

void note_database_failure(unsigned *failures, const char *message) {
	++*failures;
	mirror->paused_until = after_ms(mirror_backoff_ms(*failures));
	set_failure(&mirror->target.store, MirrorState::failing, message);
}

// --- The outbox ----------------------------------------------------------------------------------

struct OutboxStep {
	FeedError *error;
	bool feed_failed;
};

void outbox_step(void *argument) {
	auto *step = static_cast<OutboxStep *>(argument);
	step->feed_failed =
		!read_outbox(&mirror->outbox, mirror->target.store.id, kOutboxRows, step->error);
}

// Makes dirty what is new in the outbox. False when the feed failed.
bool take_outbox(FeedError *error) {
	FeedState feed;
	feed_state(&feed);
	const TimestampTz now = GetCurrentTimestamp();
	const bool idle = feed.dirty + feed.in_flight == 0;
	note_settled(&mirror->outbox, idle ? now : now - (feed.oldest_ms + 1) * kMicrosecondsPerMs);
	if (feed.dirty > kMostDirty)
		return true;
	OutboxStep step = {error, false};
	WorkerFailure failure;
	if (!try_worker_transaction(
			"session_store mirror: reading the outbox", outbox_step, &step, &failure)) {
		reset_outbox_reader(&mirror->outbox);
		if (!is_passing(&failure))
			note_database_failure(&mirror->apply_failures, failure.message);
		return true;
	}
	if (step.feed_failed)
		note_feed_error(error);
	return !step.feed_failed;
}

// --- Comparing -----------------------------------------------------------------------------------

bool comparison_is_due(const FeedState *feed) {
	// What breaks continuity while a comparison is under way needs another, at once.
	if (is_comparing(&mirror->comparison))
		return feed->gap_breaks;
	const int64 interval = holds_deletes(&mirror->comparison)
		? kHeldInterval
		: feed->comparison_interval_ms * kMicrosecondsPerMs;
	return feed->gap || mirror->comparison_wanted ||
		GetCurrentTimestamp() - mirror->compared_at >= interval;
}

ComparisonCause next_cause(const FeedState *feed) {
	ComparisonCause cause = {};
	const bool replaces = mirror->memory.owner_replaces;
	mirror->continuity_broken |= feed->gap_breaks;
	cause.owner_replaces = replaces && !mirror->old_writers;
	cause.allows_mass_delete = replaces || mirror->mass_delete_allowed;
	cause.continuity = mirror->refill_wanted    ? core::Continuity::refill
		: mirror->continuity_broken || replaces ? core::Continuity::broken
												: core::Continuity::kept;
	return cause;
}

StepResult start_comparison(const FeedState *feed, FeedError *error) {
	const ComparisonCause cause = next_cause(feed);
	const StepResult result = begin_comparison(&mirror->comparison, &cause, error);
	if (result == StepResult::worked) {
		mirror->comparison_wanted = false;
		mirror->compared_at = GetCurrentTimestamp();
	}
	return result;
}

void end_comparison() {
	const Comparison *comparison = &mirror->comparison;
	if (comparison->cause.owner_replaces)
		mirror->memory.owner_replaces = false;
	mirror->refill_wanted = mirror->mass_delete_allowed = false;
	if (holds_deletes(comparison))
		return;
	mirror->continuity_broken = false;
	mirror->memory.identity = comparison->identity;
	mirror->memory.has_identity = true;
}

// Moves the comparison on. False when there is nothing to do.
bool compare(FeedError *error) {
	WorkerFailure failure;
	FeedState feed;
	feed_state(&feed);
	StepResult result = StepResult::waits;
	if (comparison_is_due(&feed)) {
		result = start_comparison(&feed, error);
	} else if (is_comparing(&mirror->comparison)) {
		result = comparison_step(&mirror->comparison, &mirror->target, error, &failure);
		if (result == StepResult::ended)
			end_comparison();
	}
	if (result == StepResult::database_failed) {
		if (is_passing(&failure))
			mirror->paused_until = after_ms(kLockedPauseMs);
		else
			note_database_failure(&mirror->compare_failures, failure.message);
	} else {
		mirror->compare_failures = 0;
	}
	if (result == StepResult::feed_failed)
		note_feed_error(error);
	return result == StepResult::worked;
}

// --- Applying ------------------------------------------------------------------------------------

MirrorStance present_stance() {
	FeedState feed;
	feed_state(&feed);
	MirrorStance stance = stance_of(&mirror->comparison);
	stance.clock_difference = feed.clock_difference_us;
	// No comparison answers it yet: nothing is deleted for being absent.
	if (feed.gap_breaks ||
		(mirror->continuity_broken && !is_comparing(&mirror->comparison) &&
			!holds_deletes(&mirror->comparison))) {
		stance.continuity = core::Continuity::broken;
		stance.postgres_deletes = stance.redis_deletes = core::Deletes::held;
	}
	return stance;
}

// Whether what was read as absent is so in the Redis that is followed. False: nothing was applied.
bool confirm_absences(const FeedItem *items, int count, FeedError *error) {
	bool any = false;
	for (int i = 0; i < count; i++)
		any |= items[i].kind == FeedItemKind::absent;
	if (!any)
		return true;
	bool kept = false;
	if (!feed_confirm(&kept, error)) {
		note_feed_error(error);
		return false;
	}
	// A comparison answers the gap before anything that was read before it counts.
	if (!kept && !feed_put_back_all(error))
		note_feed_error(error);
	return kept;
}

void take_result(const ApplyResult *result, int count) {
	count_work(result);
	mirror->comparison.redis_wanted += result->held_redis;
	mirror->evictions += result->evictions;
	if (result->failing) {
		note_database_failure(&mirror->apply_failures, result->message);
		// What goes the other way does not wait long.
		if (result->refused)
			mirror->paused_until = Min(mirror->paused_until, after_ms(kLongestPauseMs));
		return;
	}
	mirror->apply_failures = 0;
	if (result->put_back == count)
		mirror->paused_until = after_ms(kLockedPauseMs);
}

// Reads a batch of dirty keys and applies it. False when there is nothing to do.
bool apply(FeedError *error) {
	const FeedItem *items;
	int count;
	if (!feed_fetch(&items, &count, error)) {
		note_feed_error(error);
		return false;
	}
	if (count == 0)
		return false;
	if (!confirm_absences(items, count, error))
		return true;
	if (!feed_prefetch(error)) {
		note_feed_error(error);
		return false;
	}
	const ApplyContext context = {&mirror->target, &mirror->outbox, present_stance(),
		mirror->evictions > 0, mirror->scratch, mirror->kept};
	ApplyResult result;
	if (!apply_batch(&context, items, count, &result, error) || !feed_commit(error)) {
		note_feed_error(error);
		return false;
	}
	take_result(&result, count);
	return true;
}

// --- What is asked of the mirror -----------------------------------------------------------------

// Where nothing announces changes only a comparison that began since has seen them all.
bool has_seen_all(const BarrierWatch *barrier, const FeedState *feed) {
	return feed->mode != FeedMode::comparison_only || mirror->compared_at >= barrier->asked_at;
}

// Whether all that was accepted on both sides at that time is copied.
bool has_reached(const BarrierWatch *barrier, const FeedState *feed) {
	return barrier->pinged && feed_caught_up() && !feed->gap && !mirror->comparison_wanted &&
		!is_comparing(&mirror->comparison) && has_seen_all(barrier, feed) &&
		outbox_settled_since(&mirror->outbox, barrier->asked_at);
}

void start_barrier(BarrierWatch *barrier, const FeedState *feed, FeedError *error) {
	barrier->pinged = feed_start_barrier(error);
	if (!barrier->pinged)
		note_feed_error(error);
	else if (barrier->number != 0 && !has_seen_all(barrier, feed))
		mirror->comparison_wanted = true;
}

// What somebody asks for, and once a second without being asked: cleanup goes by it.
void watch_barrier(FeedError *error) {
	BarrierWatch *barrier = &mirror->barrier;
	const TimestampTz now = GetCurrentTimestamp();
	FeedState feed;
	feed_state(&feed);
	if (barrier->asked_at == 0) {
		if (now - mirror->copied_until < kBarrierInterval)
			return;
		*barrier = {0, now, false};
	}
	if (!barrier->pinged) {
		start_barrier(barrier, &feed, error);
		return;
	}
	if (!has_reached(barrier, &feed))
		return;
	const uint64 number = barrier->number;
	mirror->copied_until = barrier->asked_at;
	*barrier = {};
	publish(true);
	if (number != 0) {
		publish(true); // who waits may count what was copied
		report_barrier(MyDatabaseId, mirror->target.store.id, number);
	}
	if (mirror->leaving)
		leave_mirror();
}

void take_requests() {
	MirrorRequests requests;
	take_mirror_requests(MyDatabaseId, mirror->target.store.id, &requests);
	if (requests.barrier > mirror->barrier.number)
		mirror->barrier = {requests.barrier, GetCurrentTimestamp(), false};
	if (!requests.resync)
		return;
	mirror->comparison_wanted = true;
	mirror->mass_delete_allowed |= requests.allow_mass_delete;
	mirror->refill_wanted |= requests.refill_redis;
	abandon_comparison(&mirror->comparison);
}

// --- A turn --------------------------------------------------------------------------------------

void idle(FeedError *error) {
	const int64 pause = (mirror->paused_until - GetCurrentTimestamp()) / kMicrosecondsPerMs;
	const int longest = Min(worker_naptime_ms, kRefreshMs);
	const int milliseconds = pause > 0 ? static_cast<int>(Min(pause + 1, int64{longest})) : longest;
	set_mirror_asleep(MyDatabaseId, mirror->target.store.id, true);
	// What was committed before is found now; what comes later wakes us.
	FeedState feed;
	bool woken = false;
	if (take_outbox(error)) {
		feed_state(&feed);
		const bool found = feed.dirty > 0 && pause <= 0;
		if (!found && !feed_wait(milliseconds, &woken, error))
			note_feed_error(error);
	}
	set_mirror_asleep(MyDatabaseId, mirror->target.store.id, false);
	if (woken)
		mirror->refreshed_at = 0;
}

void take_turn() {
	FeedError error;
	if (!keep_lease()) // which has said why
		return;
	if (!feed_pump(&error)) {
		note_feed_error(&error);
		return;
	}
	bool busy = false;
	take_requests();
	if (!take_outbox(&error))
		return;
	if (GetCurrentTimestamp() >= mirror->paused_until) {
		busy = compare(&error);
		give_way(is_comparing(&mirror->comparison));
		FeedState feed;
		feed_state(&feed);
		if (feed.connected && GetCurrentTimestamp() >= mirror->paused_until)
			busy = apply(&error) || busy;
	}
	FeedState feed;
	feed_state(&feed);
	if (feed.connected)
		watch_barrier(&error);
	describe_state();
	publish(false);
	if (mirror->leaving && GetCurrentTimestamp() >= mirror->leaves_at)
		leave_mirror();
	feed_state(&feed);
	if (feed.connected && (busy || feed.dirty == 0))
		mirror->feed_failures = 0;
	if (!busy && feed.connected)
		idle(&error);
}

void reload_if_asked() {
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

void run() {
	for (;;) {
		MemoryContextReset(mirror->turn);
		MemoryContextSwitchTo(mirror->turn);
		finish_wait();
		reload_if_asked();
		AcceptInvalidationMessages();
		refresh_if_due();
		FeedState feed;
		feed_state(&feed);
		if (feed.connected) {
			reconfigure_if_needed();
			feed_state(&feed);
		}
		if (!mirror->known)
			worker_wait(mirror_backoff_ms(1));
		else if (feed.connected)
			take_turn();
		else
			connect_mirror();
	}
}

// Plans of a table that is empty when they are made must not scan it when it is not.
void set_up_planner() {
	SetConfigOption("enable_seqscan", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_OVERRIDE);
	// Nobody waits longer behind a lock that the mirror waits for.
	SetConfigOption("lock_timeout", "50ms", PGC_USERSET, PGC_S_OVERRIDE);
}

MemoryContext make_context(const char *name) {
	return AllocSetContextCreateInternal(TopMemoryContext, name, ALLOCSET_DEFAULT_SIZES);
}

} // namespace

int mirror_backoff_ms(unsigned failures) {
	const auto seed = static_cast<uint64>(mirror->target.store.id);
	return static_cast<int>(core::backoff(failures, seed).count());
}

TimestampTz after_ms(int milliseconds) {
	return GetCurrentTimestamp() + milliseconds * kMicrosecondsPerMs;
}

} // namespace session_store

void session_store_mirror_main(Datum argument) {
	using namespace session_store;
	const MirrorArguments arguments = mirror_arguments(argument);
	if (!claim_mirror(arguments.database, arguments.store_id))
		return;
	begin_worker(arguments.database);
	set_up_planner();
	mirror = static_cast<Mirror *>(MemoryContextAllocZero(TopMemoryContext, sizeof(Mirror)));
	mirror->target.store.id = arguments.store_id;
	mirror->turn = make_context("session_store turn");
	mirror->scratch = make_context("session_store scratch");
	mirror->kept = make_context("session_store batch");
	watch_options();
	run();
}
