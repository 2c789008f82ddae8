// Keeping the partitions of one store, giving back the space of those that are over, and going on
// with a repartition that was interrupted: one short transaction at a time, each tried as
// core::lock_try says while somebody is in the way.
#include "core/schedule.h"
#include "store/leftovers.h"
#include "store/repartition.h"
#include "worker/shared_state.h"
#include "worker/supervised_store.h"

namespace session_store {

namespace {

constexpr int64 kLookInterval = 5 * USECS_PER_SEC;
constexpr int64 kPauseAfterFailure = 60 * USECS_PER_SEC;

using Step = StepResult (*)(Store *, int, PartitionWork *);
constexpr Step kSteps[kPartitionTasks] = {
	make_partition_step, drop_partition_step, free_leftover_step, resume_repartition_step};

struct Attempt {
	int32 store_id;
	Step step;
	int wait_ms;
	StepResult result;
	PartitionWork work;
};

void attempt_step(void *argument) {
	auto *attempt = static_cast<Attempt *>(argument);
	StoreSettings settings;
	attempt->result = read_store(attempt->store_id, &settings)
		? attempt->step(find_store(NameStr(settings.name)), attempt->wait_ms, &attempt->work)
		: StepResult::nothing;
}

// Says it once, until it works again or fails otherwise.
void note_failure(SupervisedStore *store, PartitionTask *task, const WorkerFailure *failure) {
	char text[sizeof(failure->message) + NAMEDATALEN];
	snprintf(text, sizeof(text), "partitions: %s", failure->message);
	publish_background_error(MyDatabaseId, store->settings.id, text);
	if (strcmp(task->failure.message, failure->message) == 0)
		return;
	task->failure = *failure;
	ereport(WARNING,
		(errcode(failure->sqlstate),
			errmsg("maintaining the partitions of store \"%s\" failed: %s",
				NameStr(store->settings.name), failure->message),
			errdetail("It is tried again by itself. Other stores are not affected.")));
}

void forget_failure(const SupervisedStore *store, PartitionTask *task) {
	if (task->failure.message[0] == '\0')
		return;
	task->failure.message[0] = '\0';
	publish_background_error(MyDatabaseId, store->settings.id, nullptr);
}

PartitionTask *next_task(SupervisedStore *store) {
	PartitionTask *next = &store->partition_tasks[0];
	for (PartitionTask &task : store->partition_tasks) {
		if (task.next < next->next)
			next = &task;
	}
	return next;
}

// The waits of all tasks together are to be as rare as those of one. Another one is next: if it
// gets its lock, so does this one.
void put_off_waits(SupervisedStore *store, const PartitionTask *blocked) {
	for (PartitionTask &task : store->partition_tasks) {
		if (&task != blocked && task.blocked >= core::kTriesWithoutWaiting)
			task.next = Max(task.next, blocked->next - 1);
	}
}

} // namespace

TimestampTz next_partition_step(SupervisedStore *store) {
	return next_task(store)->next;
}

void step_partitions(SupervisedStore *store) {
	PartitionTask *task = next_task(store);
	const core::LockTry how = core::lock_try(task->blocked);
	Attempt attempt = {store->settings.id, kSteps[task - store->partition_tasks],
		static_cast<int>(how.wait.count()), StepResult::nothing, {}};
	WorkerFailure failure;
	const TimestampTz began = GetCurrentTimestamp();
	const bool done =
		try_worker_transaction("maintaining partitions", attempt_step, &attempt, &failure);
	const TimestampTz now = GetCurrentTimestamp();
	if (!done && !is_passing(&failure)) {
		note_failure(store, task, &failure);
		task->next = now + kPauseAfterFailure;
		return;
	}
	if (done)
		forget_failure(store, task);
	if (!done || attempt.result == StepResult::in_the_way) {
		task->blocked++;
		task->next = now + how.pause.count() * 1000;
		if (how.wait > core::Millis::zero())
			put_off_waits(store, task);
		return;
	}
	task->blocked = 0;
	task->next = now +
		(attempt.result == StepResult::done ? Max(now - began, attempt.work.rest) : kLookInterval);
}

} // namespace session_store
