// What the workers of all databases share.
//
// Who writes what: a worker its own pid (at its start and at its exit) and a mirror its report; a
// supervisor the state of mirrors that do not run; the launcher what it could not start; backends
// what they block and what they ask of a mirror. A crash of any of them makes the postmaster start
// with fresh shared memory, so that a pid here is that of a living process, up to the moment
// between its exit and our callback.
#include <csignal>

#include "worker/shared_state.h"

#include "worker/progress.h"
#include "worker/worker.h"

extern "C" {
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
}

namespace session_store {

namespace {

constexpr int kMaxBlocked = 64;
constexpr const char *kTrancheName = "session_store";
constexpr int kLocks = 2; // that of all here, and that of progress

struct SharedState {
	LWLock *lock; // guards all that follows
	pid_t launcher;
	SupervisorSlot supervisors[kMaxSupervisors];
	MirrorSlot mirrors[kMaxMirrors];
	BlockedDatabase blocked[kMaxBlocked];
	uint64 last_barrier;
};

SharedState *shared = nullptr;
shmem_request_hook_type previous_request_hook = nullptr;
shmem_startup_hook_type previous_startup_hook = nullptr;
bool exit_callback_registered = false;
bool has_blocks = false;

// Holds the lock for a scope that calls nothing which can fail.
class Locked {
public:
	explicit Locked(LWLockMode mode) { LWLockAcquire(shared->lock, mode); }
	~Locked() { LWLockRelease(shared->lock); }
	Locked(const Locked &) = delete;
	Locked &operator=(const Locked &) = delete;
};

void request() {
	if (previous_request_hook != nullptr)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(SharedState)));
	RequestAddinShmemSpace(progress_memory());
	RequestNamedLWLockTranche(kTrancheName, kLocks);
}

void startup() {
	if (previous_startup_hook != nullptr)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	bool found;
	shared =
		static_cast<SharedState *>(ShmemInitStruct("session_store", sizeof(SharedState), &found));
	if (!found) {
		memset(shared, 0, sizeof(*shared));
		shared->lock = &GetNamedLWLockTranche(kTrancheName)[0].lock;
	}
	void *progress = ShmemInitStruct("session_store progress", progress_memory(), &found);
	attach_progress(progress, !found, &GetNamedLWLockTranche(kTrancheName)[1].lock);
	LWLockRelease(AddinShmemInitLock);
}

SupervisorSlot *find_supervisor(Oid database) {
	for (SupervisorSlot &slot : shared->supervisors) {
		if (slot.database == database)
			return &slot;
	}
	return nullptr;
}

// A free slot, or that of a database that is not worked on.
SupervisorSlot *take_supervisor(Oid database) {
	SupervisorSlot *slot = find_supervisor(database);
	if (slot == nullptr)
		slot = find_supervisor(InvalidOid);
	for (int i = 0; slot == nullptr && i < kMaxSupervisors; i++) {
		if (shared->supervisors[i].pid == 0)
			slot = &shared->supervisors[i];
	}
	if (slot != nullptr && slot->database != database)
		*slot = SupervisorSlot{database, 0, false};
	return slot;
}

MirrorSlot *find_mirror(Oid database, int32 store_id) {
	for (MirrorSlot &slot : shared->mirrors) {
		if (slot.database == database && (slot.store_id == store_id || database == InvalidOid))
			return &slot;
	}
	return nullptr;
}

bool is_idle(const MirrorSlot *slot) {
	return slot->pid == 0 && slot->verifier == 0;
}

// A free slot, or that of a mirror that does not run: its last report is forgotten.
MirrorSlot *take_mirror(Oid database, int32 store_id) {
	MirrorSlot *slot = find_mirror(database, store_id);
	if (slot != nullptr)
		return slot;
	slot = find_mirror(InvalidOid, 0);
	for (int i = 0; slot == nullptr && i < kMaxMirrors; i++) {
		if (is_idle(&shared->mirrors[i]))
			slot = &shared->mirrors[i];
	}
	if (slot != nullptr) {
		memset(slot, 0, sizeof(*slot));
		slot->database = database;
		slot->store_id = store_id;
		slot->report.redis_sessions = -1;
	}
	return slot;
}

bool is_blocked(Oid database) {
	for (const BlockedDatabase &entry : shared->blocked) {
		if (entry.database == database)
			return true;
	}
	return false;
}

void leave(int, Datum) {
	Locked locked(LW_EXCLUSIVE);
	if (shared->launcher == MyProcPid)
		shared->launcher = 0;
	for (SupervisorSlot &slot : shared->supervisors) {
		if (slot.pid == MyProcPid)
			slot.pid = 0;
	}
	for (MirrorSlot &slot : shared->mirrors) {
		if (slot.pid == MyProcPid)
			slot.pid = 0;
		if (slot.verifier == MyProcPid)
			slot.verifier = 0;
	}
	for (BlockedDatabase &entry : shared->blocked) {
		if (entry.blocker == MyProcPid)
			entry = BlockedDatabase{InvalidOid, 0};
	}
}

void leave_at_exit() {
	if (exit_callback_registered)
		return;
	before_shmem_exit(leave, 0);
	exit_callback_registered = true;
}

void wake(pid_t pid) {
	PGPROC *process = pid == 0 ? nullptr : BackendPidGetProc(pid);
	if (process != nullptr)
		SetLatch(&process->procLatch);
}

// Whole characters only: the text becomes a value of type text.
void copy_text(char *to, const char *from) {
	size_t length = strlen(from);
	if (length >= kReportTextBytes) {
		length = kReportTextBytes - 1;
		while (length > 0 && (static_cast<unsigned char>(from[length]) & 0xC0) == 0x80)
			--length;
	}
	memcpy(to, from, length);
	to[length] = '\0';
}

int pids_of(Oid database, pid_t *pids) {
	int count = 0;
	const SupervisorSlot *supervisor = find_supervisor(database);
	if (supervisor != nullptr && supervisor->pid != 0)
		pids[count++] = supervisor->pid;
	for (const MirrorSlot &slot : shared->mirrors) {
		if (slot.database == database && slot.pid != 0)
			pids[count++] = slot.pid;
		if (slot.database == database && slot.verifier != 0)
			pids[count++] = slot.verifier;
	}
	return count;
}

} // namespace

void request_shared_state() {
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
}

bool shared_state_available() {
	return shared != nullptr;
}

bool claim_launcher() {
	leave_at_exit();
	Locked locked(LW_EXCLUSIVE);
	if (shared->launcher != 0)
		return false;
	shared->launcher = MyProcPid;
	return true;
}

bool claim_supervisor(Oid database) {
	leave_at_exit();
	Locked locked(LW_EXCLUSIVE);
	SupervisorSlot *slot = is_blocked(database) ? nullptr : take_supervisor(database);
	if (slot == nullptr || slot->pid != 0)
		return false;
	slot->pid = MyProcPid;
	slot->no_worker_slot = false;
	return true;
}

bool claim_mirror(Oid database, int32 store_id) {
	leave_at_exit();
	Locked locked(LW_EXCLUSIVE);
	MirrorSlot *slot = is_blocked(database) ? nullptr : take_mirror(database, store_id);
	if (slot == nullptr || slot->pid != 0)
		return false;
	slot->pid = MyProcPid;
	return true;
}

bool claim_verifier(Oid database, int32 store_id) {
	leave_at_exit();
	Locked locked(LW_EXCLUSIVE);
	MirrorSlot *slot = is_blocked(database) ? nullptr : take_mirror(database, store_id);
	if (slot == nullptr || slot->verifier != 0)
		return false;
	slot->verifier = MyProcPid;
	return true;
}

pid_t supervisor_pid(Oid database) {
	Locked locked(LW_SHARED);
	const SupervisorSlot *slot = find_supervisor(database);
	return slot == nullptr ? 0 : slot->pid;
}

pid_t mirror_pid(Oid database, int32 store_id) {
	Locked locked(LW_SHARED);
	const MirrorSlot *slot = find_mirror(database, store_id);
	return slot == nullptr ? 0 : slot->pid;
}

pid_t verifier_pid(Oid database, int32 store_id) {
	Locked locked(LW_SHARED);
	const MirrorSlot *slot = find_mirror(database, store_id);
	return slot == nullptr ? 0 : slot->verifier;
}

int running_mirrors(Oid database, int32 *ids) {
	Locked locked(LW_SHARED);
	int count = 0;
	for (const MirrorSlot &slot : shared->mirrors) {
		if (slot.database == database && slot.pid != 0)
			ids[count++] = slot.store_id;
	}
	return count;
}

void publish_mirror_report(Oid database, int32 store_id, const MirrorReport *report) {
	Locked locked(LW_EXCLUSIVE);
	MirrorSlot *slot = take_mirror(database, store_id);
	if (slot == nullptr)
		return;
	slot->report = *report;
	slot->report.detail[kReportTextBytes - 1] = '\0';
	slot->report.mode[kModeTextBytes - 1] = '\0';
	slot->report.last_error[kReportTextBytes - 1] = '\0';
	if (!track_statistics) {
		slot->report.applied = slot->report.unchanged = slot->report.hints = 0;
		slot->report.gaps = slot->report.reconnects = slot->report.comparisons = 0;
		slot->report.pushed = slot->report.push_conflicts = 0;
	}
}

void publish_mirror_state(Oid database, int32 store_id, MirrorState state, const char *detail) {
	Locked locked(LW_EXCLUSIVE);
	MirrorSlot *slot = take_mirror(database, store_id);
	if (slot == nullptr)
		return;
	slot->report.state = state;
	copy_text(slot->report.detail, detail);
}

bool get_mirror_report(Oid database, int32 store_id, MirrorReport *report, pid_t *pid) {
	Locked locked(LW_SHARED);
	const MirrorSlot *slot = find_mirror(database, store_id);
	if (slot == nullptr || slot->report.state == MirrorState::none)
		return false;
	*report = slot->report;
	*pid = slot->pid;
	return true;
}

void forget_mirror(Oid database, int32 store_id) {
	Locked locked(LW_EXCLUSIVE);
	MirrorSlot *slot = find_mirror(database, store_id);
	if (slot == nullptr || !is_idle(slot))
		return;
	if (slot->background_error[0] == '\0') {
		memset(slot, 0, sizeof(*slot));
	} else {
		memset(&slot->report, 0, sizeof(slot->report));
		slot->report.redis_sessions = -1;
	}
}

uint64 request_barrier(Oid database, int32 store_id) {
	uint64 number = 0;
	pid_t pid = 0;
	{
		Locked locked(LW_EXCLUSIVE);
		MirrorSlot *slot = take_mirror(database, store_id);
		if (slot != nullptr) {
			number = slot->barrier_requested = ++shared->last_barrier;
			pid = slot->pid;
		}
	}
	wake(pid);
	return number;
}

BarrierState barrier_state(Oid database, int32 store_id, uint64 number) {
	Locked locked(LW_SHARED);
	const MirrorSlot *slot = find_mirror(database, store_id);
	if (slot == nullptr || slot->barrier_requested < number)
		return BarrierState::unknown;
	return slot->barrier_reached >= number ? BarrierState::reached : BarrierState::pending;
}

bool request_resync(Oid database, int32 store_id, bool allow_mass_delete, bool refill_redis) {
	pid_t pid;
	{
		Locked locked(LW_EXCLUSIVE);
		MirrorSlot *slot = take_mirror(database, store_id);
		if (slot == nullptr)
			return false;
		slot->resync_requested = true;
		slot->allow_mass_delete |= allow_mass_delete;
		slot->refill_redis |= refill_redis;
		pid = slot->pid;
	}
	wake(pid);
	return true;
}

void set_mirror_asleep(Oid database, int32 store_id, bool asleep) {
	Locked locked(LW_EXCLUSIVE);
	MirrorSlot *slot = find_mirror(database, store_id);
	if (slot != nullptr)
		slot->asleep = asleep;
}

void take_mirror_requests(Oid database, int32 store_id, MirrorRequests *requests) {
	*requests = {};
	Locked locked(LW_EXCLUSIVE);
	MirrorSlot *slot = find_mirror(database, store_id);
	if (slot == nullptr)
		return;
	if (slot->barrier_requested > slot->barrier_reached)
		requests->barrier = slot->barrier_requested;
	requests->resync = slot->resync_requested;
	requests->allow_mass_delete = slot->allow_mass_delete;
	requests->refill_redis = slot->refill_redis;
	slot->resync_requested = slot->allow_mass_delete = slot->refill_redis = false;
}

void report_barrier(Oid database, int32 store_id, uint64 number) {
	Locked locked(LW_EXCLUSIVE);
	MirrorSlot *slot = find_mirror(database, store_id);
	if (slot != nullptr && number <= slot->barrier_requested)
		slot->barrier_reached = Max(slot->barrier_reached, number);
}

void publish_background_error(Oid database, int32 store_id, const char *error) {
	TimestampTz now = GetCurrentTimestamp();
	Locked locked(LW_EXCLUSIVE);
	MirrorSlot *slot =
		error == nullptr ? find_mirror(database, store_id) : take_mirror(database, store_id);
	if (slot == nullptr)
		return;
	copy_text(slot->background_error, error == nullptr ? "" : error);
	slot->background_error_at = now;
}

bool get_background_error(Oid database, int32 store_id, char *error, TimestampTz *at) {
	Locked locked(LW_SHARED);
	const MirrorSlot *slot = find_mirror(database, store_id);
	if (slot == nullptr || slot->background_error[0] == '\0')
		return false;
	copy_text(error, slot->background_error);
	*at = slot->background_error_at;
	return true;
}

void note_missing_worker_slot(Oid database, bool missing) {
	Locked locked(LW_EXCLUSIVE);
	SupervisorSlot *slot = missing ? take_supervisor(database) : find_supervisor(database);
	if (slot != nullptr)
		slot->no_worker_slot = missing;
}

bool lacks_worker_slot(Oid database) {
	Locked locked(LW_SHARED);
	const SupervisorSlot *slot = find_supervisor(database);
	return slot != nullptr && slot->no_worker_slot;
}

void wake_launcher() {
	if (shared == nullptr)
		return;
	pid_t pid;
	{
		Locked locked(LW_SHARED);
		pid = shared->launcher;
	}
	wake(pid);
}

void wake_workers(Oid database) {
	if (shared == nullptr)
		return;
	pid_t pids[kMaxWorkerPids];
	int count;
	{
		Locked locked(LW_SHARED);
		count = pids_of(database, pids);
	}
	for (int i = 0; i < count; i++)
		wake(pids[i]);
}

void wake_mirror(Oid database, int32 store_id) {
	pid_t pid = 0;
	{
		Locked locked(LW_SHARED);
		const MirrorSlot *slot = find_mirror(database, store_id);
		if (slot != nullptr && slot->asleep)
			pid = slot->pid;
	}
	wake(pid);
}

void block_database(Oid database) {
	leave_at_exit();
	{
		Locked locked(LW_EXCLUSIVE);
		for (BlockedDatabase &entry : shared->blocked) {
			if (entry.database == InvalidOid) {
				entry = BlockedDatabase{database, MyProcPid};
				has_blocks = true;
				return;
			}
		}
	}
	ereport(ERROR,
		(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			errmsg("too many databases are being dropped, renamed or copied"),
			errhint("Try again later.")));
}

void unblock_databases() {
	if (!has_blocks)
		return;
	has_blocks = false;
	{
		Locked locked(LW_EXCLUSIVE);
		for (BlockedDatabase &entry : shared->blocked) {
			if (entry.blocker == MyProcPid)
				entry = BlockedDatabase{InvalidOid, 0};
		}
	}
	wake_launcher();
}

bool database_is_blocked(Oid database) {
	Locked locked(LW_SHARED);
	return is_blocked(database);
}

int stop_workers(Oid database, pid_t *pids) {
	Locked locked(LW_SHARED);
	int count = pids_of(database, pids);
	for (int i = 0; i < count; i++)
		kill(pids[i], SIGTERM);
	return count;
}

void stop_workers_outside(const Oid *databases, int count) {
	Locked locked(LW_SHARED);
	auto is_wanted = [&](Oid database) {
		for (int i = 0; i < count; i++) {
			if (databases[i] == database)
				return true;
		}
		return false;
	};
	for (const SupervisorSlot &slot : shared->supervisors) {
		if (slot.pid != 0 && !is_wanted(slot.database))
			kill(slot.pid, SIGTERM);
	}
	for (const MirrorSlot &slot : shared->mirrors) {
		if (slot.pid != 0 && !is_wanted(slot.database))
			kill(slot.pid, SIGTERM);
		if (slot.verifier != 0 && !is_wanted(slot.database))
			kill(slot.verifier, SIGTERM);
	}
}

} // namespace session_store
