// What a person asks of a running mirror: wait_for_mirror and resync.
//
// A request is a mark in shared memory that the mirror sees in its next turn; it survives the
// mirror's restart. Nobody waits for Redis here, only for the mirror, with a limit.
#include "mirror/requests.h"

#include "postgres/interval.h"
#include "stats/status.h"
#include "worker/shared_state.h"

extern "C" {
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/wait_event.h"
}

namespace session_store {

namespace {

constexpr long kPollMs = 5;

const char *as_sentence(const char *clause) {
	return psprintf("%c%s.", pg_toupper(static_cast<unsigned char>(clause[0])), clause + 1);
}

[[noreturn]] void report_no_slot(const StoreSettings *store) {
	ereport(ERROR,
		(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			errmsg("too many mirrors: there is no place for that of store \"%s\"",
				NameStr(store->name)),
			errdetail("A server has at most %d.", kMaxMirrors)));
	pg_unreachable();
}

const StoreSettings *owned_store_argument(FunctionCallInfo fcinfo) {
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("store must not be null")));
	const Store *store = find_store(NameStr(*PG_GETARG_NAME(0)));
	require_store_owner(store);
	return &store->settings;
}

int64 timeout_argument(FunctionCallInfo fcinfo, int number) {
	if (PG_ARGISNULL(number))
		ereport(
			ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("timeout must not be null")));
	int64 microseconds;
	if (!interval_to_microseconds(PG_GETARG_INTERVAL_P(number), &microseconds) || microseconds < 0)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("timeout must be a time of at least 0")));
	return microseconds;
}

bool flag_argument(FunctionCallInfo fcinfo, int number, const char *name) {
	if (PG_ARGISNULL(number))
		ereport(
			ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name)));
	return PG_GETARG_BOOL(number);
}

} // namespace

void require_mirror(const StoreSettings *store) {
	const char *name = NameStr(store->name);
	if (!is_dual(store->phase))
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("store \"%s\" has no mirror in phase %s", name, phase_name(store->phase)),
				errhint("Enter a dual phase with session_store.set_phase().")));
	MirrorObstacle obstacle;
	if (find_mirror_obstacle(store, &obstacle))
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("the mirror of store \"%s\" does not run: %s", name, obstacle.reason),
				errhint("%s", as_sentence(obstacle.remedy))));
}

bool poll_barrier(int32 store_id, uint64 *number) {
	const BarrierState state =
		*number == 0 ? BarrierState::unknown : barrier_state(MyDatabaseId, store_id, *number);
	if (state == BarrierState::unknown)
		*number = request_barrier(MyDatabaseId, store_id);
	return state == BarrierState::reached;
}

void pause_for_barrier() {
	const int events = WaitLatch(
		MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kPollMs, PG_WAIT_EXTENSION);
	if ((events & WL_LATCH_SET) != 0)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

bool wait_for_barrier(int32 store_id, int64 timeout) {
	const TimestampTz started = GetCurrentTimestamp();
	uint64 number = 0;
	for (;;) {
		StoreSettings store;
		if (!read_store(store_id, &store))
			ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("the store was dropped meanwhile")));
		require_mirror(&store);
		if (poll_barrier(store_id, &number))
			return true;
		if (number == 0)
			report_no_slot(&store);
		if (GetCurrentTimestamp() - started >= timeout)
			return false;
		pause_for_barrier();
	}
}

} // namespace session_store

using namespace session_store;

// (store, timeout)
SESSION_STORE_FUNCTION(session_store_wait_for_mirror) {
	const StoreSettings *store = owned_store_argument(fcinfo);
	PG_RETURN_BOOL(wait_for_barrier(store->id, timeout_argument(fcinfo, 1)));
}

// (store, allow_mass_delete, refill_redis)
SESSION_STORE_FUNCTION(session_store_resync) {
	const StoreSettings *store = owned_store_argument(fcinfo);
	const bool allow_mass_delete = flag_argument(fcinfo, 1, "allow_mass_delete");
	const bool refill_redis = flag_argument(fcinfo, 2, "refill_redis");
	require_mirror(store);
	if (!request_resync(MyDatabaseId, store->id, allow_mass_delete, refill_redis))
		report_no_slot(store);
	PG_RETURN_VOID();
}
