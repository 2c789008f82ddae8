// Scheduled cleanup of one store: a run is many short transactions, and between two of them the
// supervisor does everything else.
#include "worker/supervised_store.h"

#include "core/schedule.h"
#include "worker/progress.h"
#include "worker/shared_state.h"

extern "C" {
#include "utils/timeout.h"
}

namespace session_store {

namespace {

// A trigger of the table's owner must not keep the supervisor from the other stores.
constexpr int kLongestBatchMs = 60 * 1000;
constexpr int kShortestBatchMs = 1000;
// After so many failures in a row the next try waits for the store's schedule.
constexpr unsigned kMaxQuickRetries = 6;

core::Millis millis(TimestampTz time) {
	return core::Millis{time / 1000};
}

core::Millis last_end(const CleanupJob *job) {
	return job->last_ended == DT_NOBEGIN ? core::kNever : millis(job->last_ended);
}

TimestampTz after(TimestampTz now, core::Millis wait) {
	return now + wait.count() * 1000;
}

// By the settings as they are now: a run that waits goes by the new ones when they are changed. A
// run that somebody's lock was in the way of tries again soon.
TimestampTz next_batch(const SupervisedStore *store) {
	const CleanupJob *job = &store->cleanup;
	if (job->in_the_way)
		return after(job->last_batch, core::kFirstBackoff);
	return job->last_batch == DT_NOBEGIN ? job->started
										 : job->last_batch + store->settings.cleanup_delay;
}

bool run_is_over(const SupervisedStore *store) {
	const CleanupJob *job = &store->cleanup;
	return job->progress.exhausted ||
		next_batch(store) - job->started >= store->settings.cleanup_max_duration;
}

void clean_step(void *argument) {
	auto *store = static_cast<SupervisedStore *>(argument);
	StoreSettings settings;
	if (!read_store(store->settings.id, &settings)) {
		store->cleanup.progress.exhausted = true;
		return;
	}
	clean_batch(
		find_store(NameStr(settings.name)), settings.cleanup_batch_size, &store->cleanup.progress);
}

void record_step(void *argument) {
	auto *store = static_cast<SupervisedStore *>(argument);
	record_cleanup(store->settings.id, store->cleanup.progress.deleted);
}

int batch_limit_ms(const SupervisedStore *store) {
	int64 limit = store->settings.cleanup_max_duration / 1000;
	return static_cast<int>(
		Min(Max(limit, static_cast<int64>(kShortestBatchMs)), static_cast<int64>(kLongestBatchMs)));
}

// The time limit is a timer of ours: what the owner's functions set themselves does not move it.
bool clean_within_limit(SupervisedStore *store, WorkerFailure *failure) {
	CleanupProgress before = store->cleanup.progress;
	enable_timeout_after(STATEMENT_TIMEOUT, batch_limit_ms(store));
	bool done = try_worker_transaction("cleaning a store", clean_step, store, failure);
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
	if (!done)
		store->cleanup.progress = before;
	return done;
}

void note_failure(SupervisedStore *store, const WorkerFailure *failure) {
	CleanupJob *job = &store->cleanup;
	TimestampTz now = GetCurrentTimestamp();
	if (is_passing(failure)) {
		job->last_batch = now;
		job->in_the_way = true;
		return;
	}
	job->running = false;
	end_progress(store->settings.id, Operation::cleanup);
	job->failed_at = now;
	job->failures++;
	char text[sizeof(failure->message) + NAMEDATALEN];
	snprintf(text, sizeof(text), "cleanup: %s", failure->message);
	publish_background_error(MyDatabaseId, store->settings.id, text);
	if (strcmp(job->failure.message, failure->message) == 0)
		return;
	job->failure = *failure;
	ereport(WARNING,
		(errcode(failure->sqlstate),
			errmsg("cleanup of store \"%s\" failed: %s", NameStr(store->settings.name),
				failure->message),
			errdetail("It is tried again by itself. Other stores are not affected.")));
}

void end_run(SupervisedStore *store) {
	CleanupJob *job = &store->cleanup;
	WorkerFailure failure;
	if (!try_worker_transaction("noting a cleanup", record_step, store, &failure)) {
		note_failure(store, &failure);
		return;
	}
	job->running = false;
	job->last_ended = GetCurrentTimestamp();
	job->failures = 0;
	if (job->failure.message[0] != '\0') {
		job->failure.message[0] = '\0';
		publish_background_error(MyDatabaseId, store->settings.id, nullptr);
	}
}

} // namespace

TimestampTz next_cleanup_step(const SupervisedStore *store, TimestampTz now) {
	const CleanupJob *job = &store->cleanup;
	core::Millis interval{store->settings.cleanup_interval / 1000};
	if (job->running)
		return run_is_over(store) && !job->in_the_way ? now : next_batch(store);
	if (job->failures == 0)
		return after(now, core::until_due(millis(now), last_end(job), interval));
	if (job->failures <= kMaxQuickRetries)
		return after(now,
			core::until_due(millis(now), millis(job->failed_at), core::backoff(job->failures)));
	return after(now, core::until_due(millis(now), millis(job->failed_at), interval));
}

void step_cleanup(SupervisedStore *store) {
	CleanupJob *job = &store->cleanup;
	if (!job->running) {
		job->running = true;
		job->started = GetCurrentTimestamp();
		job->last_batch = DT_NOBEGIN;
		job->progress = begin_cleanup(CleanupScope::catch_all);
		job->in_the_way = false;
	}
	if (!run_is_over(store)) {
		WorkerFailure failure;
		if (!clean_within_limit(store, &failure)) {
			note_failure(store, &failure);
			return;
		}
		job->last_batch = GetCurrentTimestamp();
		job->in_the_way = false;
	}
	if (run_is_over(store))
		end_run(store);
}

} // namespace session_store
