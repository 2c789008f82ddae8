// The mirror of one store: follows its Redis and keeps the table equal.
//
// One loop. Each turn takes in the hints that are here, moves a comparison on by a step, reads a
// batch of dirty keys from Redis, and then applies it in a transaction. Nothing talks to Redis
// within a transaction, and nothing durable is kept: after a restart, a lost connection or a crash
// the full comparison finds what is to be done (so that commits need not wait for the disk).
//
// Errors of Redis drop the connection, errors of PostgreSQL roll a transaction back; either is said
// in status and once in the log, and tried again with backoff. Only what is neither ends the
// process, whose supervisor starts it again.
#include "worker/worker.h"

#include "core/schedule.h"
#include "mirror/apply.h"
#include "mirror/comparison.h"
#include "mirror/feed_link.h"
#include "mirror/latch_waiter.h"
#include "mirror/old_writers.h"
#include "mirror/redis_options.h"
#include "mirror/report.h"
#include "mirror/target.h"
#include "worker/shared_state.h"

extern "C" {
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/inval.h"
}

namespace session_store {

namespace {

constexpr int64 kMicrosecondsPerMs = 1000;
constexpr int64 kRefreshInterval = 1000 * kMicrosecondsPerMs;
// Even a feed that reports no gap is not trusted for ever.
constexpr int64 kComparisonInterval = int64{30} * 60 * 1000 * kMicrosecondsPerMs;
// While deletes wait for an answer, the question may go away by itself.
constexpr int64 kHeldInterval = int64{60} * 1000 * kMicrosecondsPerMs;
constexpr int kLockedPauseMs = 20;
constexpr int kConnections = 2;

// Made once per process, in TopMemoryContext's life.
struct Mirror {
	MirrorTarget target;
	Comparison comparison;
	MemoryContext turn;  // reset each turn
	MemoryContext batch; // reset for each transaction that applies
	bool known;          // target.store has been read
	Oid file;            // of the table: another one after TRUNCATE
	TimestampTz refreshed_at;
	TimestampTz compared_at;
	bool comparison_wanted;
	unsigned connect_failures;
	unsigned apply_failures;
	unsigned compare_failures;
	TimestampTz paused_until; // after a failure in the database
};

Mirror *mirror = nullptr;
bool options_changed = false;

void on_options_change(Datum, int, uint32) {
	options_changed = true;
}

uint64 jitter_seed() {
	return static_cast<uint64>(mirror->target.store.id);
}

int backoff_ms(unsigned failures) {
	return static_cast<int>(core::backoff(failures, jitter_seed()).count());
}

TimestampTz after_ms(int milliseconds) {
	return GetCurrentTimestamp() + milliseconds * kMicrosecondsPerMs;
}

// --- What the store is now -----------------------------------------------------------------------

struct Refresh {
	bool found;
	StoreSettings store;
	Oid file;
	bool old_writers_ended;
};

void read_state(void *argument) {
	auto *refresh = static_cast<Refresh *>(argument);
	refresh->found = read_store(mirror->target.store.id, &refresh->store);
	if (!refresh->found)
		return;
	const Oid relation = refresh->store.relation;
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	if (HeapTupleIsValid(tuple)) {
		refresh->file = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relfilenode;
		ReleaseSysCache(tuple);
	}
	if (!mirror->known)
		note_old_writers(relation);
	else
		refresh->old_writers_ended = old_writers_have_ended(relation);
}

bool same_redis_settings(const StoreSettings *a, const StoreSettings *b) {
	return a->has_redis_server == b->has_redis_server &&
		strcmp(NameStr(a->redis_server), NameStr(b->redis_server)) == 0 &&
		strcmp(a->redis_prefix, b->redis_prefix) == 0;
}

void drop_feed() {
	feed_discard();
	abandon_comparison(&mirror->comparison);
}

// The supervisor, which sees the same, says what state the store is in from now on.
[[noreturn]] void leave() {
	feed_discard();
	proc_exit(0);
}

void take_over(const Refresh *refresh) {
	const StoreSettings *before = &mirror->target.store;
	const StoreSettings *after = &refresh->store;
	if (mirror->known) {
		if (!same_redis_settings(before, after))
			drop_feed();
		const bool answered =
			mirror->comparison.held && before->max_delete_percent != after->max_delete_percent;
		if (answered || refresh->old_writers_ended || mirror->file != refresh->file)
			mirror->comparison_wanted = true;
	}
	mirror->target.store = *after;
	mirror->file = refresh->file;
	mirror->known = true;
}

void refresh_if_due() {
	const TimestampTz now = GetCurrentTimestamp();
	if (now - mirror->refreshed_at < kRefreshInterval && now >= mirror->refreshed_at)
		return;
	mirror->refreshed_at = now;
	Refresh refresh = {};
	WorkerFailure failure;
	if (!try_worker_transaction(
			"session_store mirror: reading settings", read_state, &refresh, &failure)) {
		if (!is_passing(&failure))
			set_failure(&mirror->target.store, MirrorState::failing, failure.message);
		return;
	}
	if (!refresh.found || !is_dual(refresh.store.phase) || !store_is_bound_here(&refresh.store))
		leave();
	take_over(&refresh);
}

// --- The connection ------------------------------------------------------------------------------

void read_options(void *argument) {
	open_target(&mirror->target, AccessShareLock);
	const StoreSettings *store = &mirror->target.store;
	if (!store->has_redis_server)
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("store \"%s\" has no redis_server", NameStr(store->name))));
	MemoryContext transaction = MemoryContextSwitchTo(mirror->turn);
	load_redis_options(
		NameStr(store->redis_server), mirror->target.owner, static_cast<RedisOptions *>(argument));
	MemoryContextSwitchTo(transaction);
}

// Makes the feed fit the options as they are now. False when it cannot be made.
bool configure() {
	options_changed = false;
	RedisOptions options = {};
	WorkerFailure failure;
	if (!try_worker_transaction(
			"session_store mirror: reading options", read_options, &options, &failure)) {
		drop_feed();
		set_failure(&mirror->target.store, MirrorState::failing, failure.message);
		return false;
	}
	const FeedOptions feed = feed_options(&options, mirror->target.store.redis_prefix);
	FeedError error;
	const bool configured = feed_configure(&feed, latch_waiter(), &error);
	forget_password(&options);
	if (!configured)
		set_failure(&mirror->target.store, MirrorState::failing, error.message);
	return configured;
}

void note_feed_error(const FeedError *error) {
	abandon_comparison(&mirror->comparison);
	if (error->kind == FeedFailure::interrupted)
		return;
	set_failure(&mirror->target.store,
		error->kind == FeedFailure::not_ready ? MirrorState::waiting : MirrorState::failing,
		error->message);
}

void connect() {
	abandon_comparison(&mirror->comparison);
	if (mirror->connect_failures == 0)
		set_state(MirrorState::connecting, "connecting to Redis");
	publish(mirror->target.store.id, &mirror->comparison, true);
	bool connected = configure();
	if (connected) {
		FeedError error;
		connected = feed_connect(&error);
		if (!connected)
			note_feed_error(&error);
	}
	finish_wait();
	if (connected) {
		mirror->connect_failures = 0;
		count_connect();
		return;
	}
	mirror->connect_failures++;
	publish(mirror->target.store.id, &mirror->comparison, true);
	worker_wait(backoff_ms(mirror->connect_failures));
}

// --- A turn --------------------------------------------------------------------------------------

void note_database_failure(unsigned *failures, const char *message) {
	++*failures;
	mirror->paused_until = after_ms(backoff_ms(*failures));
	set_failure(&mirror->target.store, MirrorState::failing, message);
}

bool comparison_is_due(const FeedState *feed) {
	if (mirror->comparison.stage != ComparisonStage::idle)
		return false;
	const int64 interval = mirror->comparison.held ? kHeldInterval : kComparisonInterval;
	return feed->gap || mirror->comparison_wanted ||
		GetCurrentTimestamp() - mirror->compared_at >= interval;
}

// Moves the comparison on. False when there is nothing to do.
bool compare(FeedError *error) {
	WorkerFailure failure;
	FeedState feed;
	feed_state(&feed);
	StepResult result = StepResult::ended;
	if (comparison_is_due(&feed)) {
		result = begin_comparison(&mirror->comparison, &mirror->target, error, &failure);
		if (result == StepResult::worked) {
			mirror->comparison_wanted = false;
			mirror->compared_at = GetCurrentTimestamp();
		}
	} else if (mirror->comparison.stage != ComparisonStage::idle) {
		result = comparison_step(&mirror->comparison, &mirror->target, error, &failure);
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
	ApplyResult result;
	if (!apply_batch(&mirror->target, mirror->batch, items, count, &result, error) ||
		!feed_commit(error)) {
		note_feed_error(error);
		return false;
	}
	count_applied(result.applied, result.unchanged);
	if (result.failing) {
		note_database_failure(&mirror->apply_failures, result.message);
		return true;
	}
	mirror->apply_failures = 0;
	if (result.put_back == count)
		mirror->paused_until = after_ms(kLockedPauseMs);
	return true;
}

void describe_state() {
	const Comparison *comparison = &mirror->comparison;
	char words[kReportTextBytes];
	FeedState feed;
	feed_state(&feed);
	if (!feed.connected || mirror->apply_failures > 0 || mirror->compare_failures > 0)
		return;
	if (comparison->stage != ComparisonStage::idle || feed.gap) {
		snprintf(words, sizeof(words), "copying: " INT64_FORMAT " keys of Redis read so far",
			feed.scanned);
		set_state(MirrorState::copying, words);
	} else if (comparison->held) {
		snprintf(words, sizeof(words),
			"paused: " INT64_FORMAT " of " INT64_FORMAT " live sessions are not in Redis and none "
			"of them is deleted; raise max_delete_percent of the store to delete them",
			comparison->held_missing, comparison->held_live);
		set_state(MirrorState::paused, words);
		note_recovery(&mirror->target.store);
	} else {
		set_state(MirrorState::in_sync, "in sync");
		note_recovery(&mirror->target.store);
	}
}

void idle(FeedError *error) {
	const int64 pause = (mirror->paused_until - GetCurrentTimestamp()) / kMicrosecondsPerMs;
	const int milliseconds =
		pause > 0 ? static_cast<int>(Min(pause + 1, int64{worker_naptime_ms})) : worker_naptime_ms;
	bool woken;
	if (!feed_wait(milliseconds, &woken, error))
		note_feed_error(error);
	if (woken)
		mirror->refreshed_at = 0;
}

void take_turn() {
	FeedError error;
	if (!feed_pump(&error)) {
		note_feed_error(&error);
		return;
	}
	bool busy = false;
	if (GetCurrentTimestamp() >= mirror->paused_until) {
		busy = compare(&error);
		FeedState feed;
		feed_state(&feed);
		if (feed.connected && GetCurrentTimestamp() >= mirror->paused_until)
			busy = apply(&error) || busy;
	}
	describe_state();
	publish(mirror->target.store.id, &mirror->comparison, false);
	FeedState feed;
	feed_state(&feed);
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
		if (feed.connected && options_changed) {
			(void)configure();
			feed_state(&feed);
		}
		if (!mirror->known)
			worker_wait(backoff_ms(1));
		else if (feed.connected)
			take_turn();
		else
			connect();
	}
}

// Plans of a table that is empty when they are made must not scan it when it is not.
void set_up_planner() {
	SetConfigOption("enable_seqscan", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_OVERRIDE);
	// Nobody waits longer behind a lock that the mirror waits for.
	SetConfigOption("lock_timeout", "50ms", PGC_USERSET, PGC_S_OVERRIDE);
}

} // namespace

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
	mirror->turn = AllocSetContextCreateInternal(
		TopMemoryContext, "session_store turn", ALLOCSET_DEFAULT_SIZES);
	mirror->batch = AllocSetContextCreateInternal(
		TopMemoryContext, "session_store batch", ALLOCSET_DEFAULT_SIZES);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, on_options_change, 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, on_options_change, 0);
	for (int i = 0; i < kConnections; i++)
		ReserveExternalFD();
	run();
}
