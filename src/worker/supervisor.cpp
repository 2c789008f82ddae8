// The supervisor of a database: mirrors, scheduled verification and cleanup, old tombstones.
//
// One loop, in which nothing takes longer than a batch of cleanup and no transaction stays open
// while it waits. What an error of one store rolls back is one short transaction; the loop goes on.
// The settings are read again whenever the latch is set (a change of the registry sets it at
// commit) and once every naptime.
#include "worker/shared_state.h"
#include "worker/supervised_store.h"
#include "worker/worker.h"

#include "core/schedule.h"

extern "C" {
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
}

namespace session_store {

namespace {

constexpr core::Millis kTombstoneInterval = std::chrono::minutes{1};

SupervisedStore *stores = nullptr;
int store_count = 0;
int store_capacity = 0;
bool registry_known = false; // the last look at the registry succeeded
WorkerFailure logged_failure = {};
core::Millis tombstones_removed_at = core::kNever;

core::Millis now_millis() {
	return core::Millis{GetCurrentTimestamp() / 1000};
}

// Says it once, until something else fails or it works again.
void log_failure(const char *what, const WorkerFailure *failure) {
	if (is_passing(failure) || strcmp(logged_failure.message, failure->message) == 0)
		return;
	logged_failure = *failure;
	ereport(WARNING,
		(errcode(failure->sqlstate), errmsg("%s failed: %s", what, failure->message),
			errdetail("It is tried again by itself.")));
}

SupervisedStore *find_supervised(int32 id) {
	for (int i = 0; i < store_count; i++) {
		if (stores[i].settings.id == id)
			return &stores[i];
	}
	return nullptr;
}

SupervisedStore *add_supervised(int32 id) {
	if (store_count == store_capacity) {
		store_capacity = store_capacity == 0 ? 8 : store_capacity * 2;
		Size size = store_capacity * sizeof(SupervisedStore);
		stores = static_cast<SupervisedStore *>(stores == nullptr
				? MemoryContextAlloc(TopMemoryContext, size)
				: repalloc(stores, size));
	}
	SupervisedStore *store = &stores[store_count++];
	memset(store, 0, sizeof(*store));
	store->settings.id = id;
	store->cleanup.last_ended = DT_NOBEGIN;
	store->verified_at = DT_NOBEGIN;
	return store;
}

// A manual cleanup or verification counts like a scheduled one, and a new store as cleaned when it
// was made: its phase is as old as itself. With a snapshot of its own, not read only: every store
// that was found before is in it.
void read_activity() {
	SPI_connect();
	if (SPI_execute("SELECT r.id, coalesce(a.last_cleanup, r.phase_changed_at), v.verified_at "
					"FROM session_store.registry r "
					"LEFT JOIN session_store.activity a ON a.store_id = r.id "
					"LEFT JOIN session_store.verifications v ON v.store_id = r.id",
			false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the activity of the stores");
	for (uint64 i = 0; i < SPI_processed; i++) {
		bool is_null;
		HeapTuple row = SPI_tuptable->vals[i];
		SupervisedStore *store =
			find_supervised(DatumGetInt32(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &is_null)));
		if (store == nullptr)
			continue;
		store->cleanup.last_ended =
			DatumGetTimestampTz(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &is_null));
		const Datum verified = SPI_getbinval(row, SPI_tuptable->tupdesc, 3, &is_null);
		store->verified_at = is_null ? DT_NOBEGIN : DatumGetTimestampTz(verified);
	}
	SPI_finish();
}

// Whether other settings of partitions hold, so that something may be due at once.
bool partitions_differ(const StoreSettings *before, const StoreSettings *now) {
	return before->default_ttl != now->default_ttl ||
		before->partitions_ahead != now->partitions_ahead ||
		before->cleanup_grace != now->cleanup_grace || before->relation != now->relation;
}

// What they last failed with stays known, so that it can be taken back.
void take_up_partitions(SupervisedStore *store) {
	for (PartitionTask &task : store->partition_tasks) {
		task.next = 0;
		task.blocked = 0;
	}
}

// Nobody's lookalike: a registry counts only once the extension is there.
void read_registry(void *) {
	StoreSettings *found = nullptr;
	bool installed = OidIsValid(get_extension_oid("session_store", true));
	int count = installed ? read_all_stores(&found) : 0;
	for (int i = 0; i < store_count; i++)
		stores[i].present = false;
	for (int i = 0; i < count; i++) {
		SupervisedStore *store = find_supervised(found[i].id);
		if (store == nullptr)
			store = add_supervised(found[i].id);
		if (partitions_differ(&store->settings, &found[i]))
			take_up_partitions(store);
		store->settings = found[i];
		store->present = true;
	}
	if (installed)
		read_activity();
}

void refresh() {
	WorkerFailure failure;
	registry_known = try_worker_transaction("reading the stores", read_registry, nullptr, &failure);
	if (!registry_known)
		log_failure("reading the stores", &failure);
}

void forget_absent_stores(TimestampTz now) {
	for (int i = store_count - 1; i >= 0; i--) {
		if (!stores[i].present && retire_mirror(&stores[i], now))
			stores[i] = stores[--store_count];
	}
}

// Mirrors that an earlier supervisor started, of stores that are gone since.
void stop_orphans() {
	int32 ids[kMaxMirrors];
	int count = running_mirrors(MyDatabaseId, ids);
	for (int i = 0; i < count; i++) {
		if (find_supervised(ids[i]) == nullptr)
			add_supervised(ids[i]);
	}
}

int64 manage_mirrors() {
	int64 wait = worker_naptime_ms;
	TimestampTz now = GetCurrentTimestamp();
	stop_orphans();
	forget_absent_stores(now);
	for (int i = 0; i < store_count; i++) {
		manage_verifier(&stores[i], now);
		if (stores[i].present)
			wait = Min(wait, manage_mirror(&stores[i], now));
	}
	return wait;
}

// Does the one step that waits longest, if any is due. Returns milliseconds until the next.
int64 run_cleanup_step() {
	TimestampTz now = GetCurrentTimestamp();
	SupervisedStore *first = nullptr;
	TimestampTz first_at = DT_NOEND;
	for (int i = 0; i < store_count; i++) {
		TimestampTz at = stores[i].present ? next_cleanup_step(&stores[i], now) : DT_NOEND;
		if (at < first_at) {
			first = &stores[i];
			first_at = at;
		}
	}
	if (first == nullptr)
		return worker_naptime_ms;
	if (first_at > now)
		return Min(TimestampDifferenceMilliseconds(now, first_at), worker_naptime_ms);
	step_cleanup(first);
	return 0;
}

// One step of the store whose partitions wait longest. Returns milliseconds until the next.
int64 run_partition_step() {
	TimestampTz now = GetCurrentTimestamp();
	SupervisedStore *first = nullptr;
	TimestampTz first_at = DT_NOEND;
	for (int i = 0; i < store_count; i++) {
		TimestampTz at = stores[i].present ? next_partition_step(&stores[i]) : DT_NOEND;
		if (at < first_at) {
			first = &stores[i];
			first_at = at;
		}
	}
	if (first == nullptr)
		return worker_naptime_ms;
	if (first_at > now)
		return Min(TimestampDifferenceMilliseconds(now, first_at), worker_naptime_ms);
	step_partitions(first);
	return 0;
}

void tombstone_step(void *argument) {
	*static_cast<bool *>(argument) = remove_old_tombstones(0) < kTombstoneBatch;
}

// False while more of them wait to be removed.
bool run_tombstone_step() {
	core::Millis now = now_millis();
	if (store_count == 0 || !core::due(now, tombstones_removed_at, kTombstoneInterval))
		return true;
	WorkerFailure failure;
	bool done = true;
	if (!try_worker_transaction("removing old tombstones", tombstone_step, &done, &failure))
		log_failure("removing old tombstones", &failure);
	if (done)
		tombstones_removed_at = now;
	return done;
}

} // namespace

} // namespace session_store

void session_store_supervisor_main(Datum argument) {
	using namespace session_store;
	Oid database = DatumGetObjectId(argument);
	if (!claim_supervisor(database))
		proc_exit(0);
	begin_worker(database);
	TimestampTz refreshed_at = DT_NOBEGIN;
	bool woken = true;
	for (;;) {
		if (woken ||
			TimestampDifferenceExceeds(refreshed_at, GetCurrentTimestamp(), worker_naptime_ms)) {
			refresh();
			refreshed_at = GetCurrentTimestamp();
		}
		int64 wait = worker_naptime_ms;
		if (registry_known) {
			wait = run_tombstone_step() ? wait : 0;
			wait = Min(wait, run_cleanup_step());
			wait = Min(wait, run_partition_step());
			wait = Min(wait, manage_mirrors());
		}
		woken = worker_wait(wait);
	}
}
