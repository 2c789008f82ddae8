// When set_phase refuses, and what it says then.
//
// Three things can be lost by a change of phase. Sessions of the other side, when a dual phase is
// entered and the owner's state replaces them: their counts are told, and force is asked for.
// Changes that are not copied yet, when a dual phase is left. And trust, when ownership moves to a
// side that is not known to hold the same: then the mirror must be in sync, nothing rejected, and a
// fresh verification without differences.
#include "mirror/phase.h"

#include "mirror/probe.h"
#include "mirror/redis_options.h"
#include "mirror/requests.h"
#include "postgres/identity.h"
#include "stats/status.h"
#include "worker/shared_state.h"

extern "C" {
#include "utils/fmgrprotos.h"
}

namespace session_store {

namespace {

constexpr int64 kCatchUpTimeout = int64{10} * 1000 * 1000;
constexpr int kAllOfThem = 100;

int rank(Phase phase) {
	return static_cast<int>(phase);
}

int share_of_postgres(Phase phase, int32 percent) {
	if (phase == Phase::dual_redis_primary)
		return percent;
	return phase == Phase::redis_only ? 0 : kAllOfThem;
}

const char *in_words(Phase phase, int32 percent) {
	return percent == 0 ? phase_name(phase)
						: psprintf("%s at %d percent", phase_name(phase), percent);
}

[[noreturn]] void refuse(const PhaseChange *change, const char *reason, const char *remedy) {
	ereport(ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("store \"%s\" cannot go from %s to %s: %s", NameStr(change->store.name),
				in_words(change->store.phase, change->store.rollout_percent),
				in_words(change->to, change->percent), reason),
			errhint("%s Or override this with force => true.", remedy)));
	pg_unreachable();
}

void require_server(const PhaseChange *change) {
	FeedOptions options = probe_options(&change->store, change->owner);
	forget_probe_password(&options);
	check_redis_settings(&change->store, change->owner);
}

// --- Entering a dual phase -----------------------------------------------------------------------

bool knows_redis(const PhaseChange *change) {
	return change->redis_keys >= 0;
}

void tell_counts(const PhaseChange *change) {
	const char *owner = change->to == Phase::dual_redis_primary ? "Redis" : "PostgreSQL";
	if (knows_redis(change))
		ereport(NOTICE,
			(errmsg("what %s holds replaces what the other side holds", owner),
				errdetail("Live sessions in PostgreSQL: " INT64_FORMAT
						  ". Keys under the prefix in Redis: " INT64_FORMAT ".",
					change->live, change->redis_keys)));
	else
		ereport(WARNING,
			(errmsg("the sessions in Redis could not be counted: %s", change->redis_problem),
				errdetail("Live sessions in PostgreSQL: " INT64_FORMAT ".", change->live),
				errhint("session_store.check_redis() says what is wrong.")));
}

// What the owner's state would delete or overwrite needs a word of consent.
void check_entering(const PhaseChange *change) {
	const int share = share_of_postgres(change->to, change->percent);
	const bool loses_rows = share < kAllOfThem && change->live > 0;
	const bool loses_keys = share > 0 && change->redis_keys != 0;
	const bool replaces = loses_rows || loses_keys;
	if (!replaces || change->force) {
		if (change->live > 0 || change->redis_keys != 0)
			tell_counts(change);
		return;
	}
	if (loses_keys && !knows_redis(change))
		refuse(change,
			psprintf("it is not known which sessions of Redis would be replaced: %s",
				change->redis_problem),
			"See session_store.check_redis().");
	ereport(ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("what %s holds would replace the live sessions of store \"%s\" in %s",
				loses_rows && loses_keys ? "each side"
					: loses_rows         ? "Redis"
										 : "PostgreSQL",
				NameStr(change->store.name),
				loses_rows && loses_keys ? "the other"
					: loses_rows         ? "PostgreSQL"
										 : "Redis"),
			knows_redis(change) ? errdetail("Live sessions in PostgreSQL: " INT64_FORMAT
											". Keys under the prefix in Redis: " INT64_FORMAT ".",
									  change->live, change->redis_keys)
								: errdetail("Live sessions in PostgreSQL: " INT64_FORMAT
											". Redis could not be asked: %s.",
									  change->live, change->redis_problem),
			errhint("Call session_store.set_phase() with force => true to let them be overwritten "
					"and deleted.")));
}

// --- Moving ownership, and leaving
// ----------------------------------------------------------------

int64 count_rejects(const PhaseChange *change, const MirrorReport *report) {
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(change->store.id)};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	if (SPI_execute_with_args(
			"SELECT count(*) FROM session_store.rejected_keys WHERE store_id = $1", 1, types,
			values, nullptr, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not count rejects");
	bool is_null;
	const int64 rows =
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
	SPI_finish();
	leave_identity(&saved);
	return rows + report->rejects_over_limit;
}

struct LastVerification {
	bool found;
	TimestampTz at;
	int64 differences;
};

LastVerification last_verification(const PhaseChange *change) {
	LastVerification last = {false, 0, 0};
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(change->store.id)};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	if (SPI_execute_with_args(
			"SELECT verified_at, differences FROM session_store.verifications WHERE store_id = $1",
			1, types, values, nullptr, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the last verification");
	if (SPI_processed > 0) {
		bool is_null;
		HeapTuple row = SPI_tuptable->vals[0];
		last.found = true;
		last.at = DatumGetTimestampTz(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &is_null));
		last.differences = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &is_null));
	}
	SPI_finish();
	leave_identity(&saved);
	return last;
}

const char *call(const PhaseChange *change, const char *function) {
	return psprintf(
		"session_store.%s(%s)", function, quote_literal_cstr(NameStr(change->store.name)));
}

// The state of the mirror in words, when it is not in sync; else null.
const char *trouble_of_mirror(const PhaseChange *change, MirrorReport *report) {
	pid_t pid = 0;
	const bool reported =
		shared_state_available() && get_mirror_report(MyDatabaseId, change->store.id, report, &pid);
	if (!reported)
		memset(report, 0, sizeof(*report));
	if (reported && pid != 0 && report->state == MirrorState::in_sync)
		return nullptr;
	return pstrdup(mirror_in_words(&change->store, reported ? report : nullptr));
}

void check_evidence(const PhaseChange *change) {
	MirrorReport report;
	const char *trouble = trouble_of_mirror(change, &report);
	if (trouble != nullptr)
		refuse(change, psprintf("the mirror is not in sync (%s)", trouble),
			"Wait until session_store.status says that it is.");
	if (!change->caught_up)
		refuse(change, "the mirror has not caught up with the changes of both sides",
			psprintf("Wait until %s is true.", call(change, "wait_for_mirror")));
	const int64 rejects = count_rejects(change, &report);
	if (rejects > 0)
		refuse(change, psprintf("keys of Redis that cannot be mirrored: " INT64_FORMAT, rejects),
			"See session_store.rejects; delete or change those keys in Redis.");
	if (change->live == 0)
		return;
	const LastVerification last = last_verification(change);
	const char *remedy = psprintf("Call %s.", call(change, "verify"));
	if (!last.found)
		refuse(change, "the two sides have not been compared yet", remedy);
	if (GetCurrentTimestamp() - last.at > change->store.verify_interval)
		refuse(change, "the last verification is older than verify_interval", remedy);
	if (last.differences > 0)
		refuse(change,
			psprintf("the last verification found differences: " INT64_FORMAT, last.differences),
			psprintf("Let %s repair them, then call %s.", call(change, "resync"),
				call(change, "verify")));
}

bool outbox_is_empty(const PhaseChange *change) {
	if (!OidIsValid(extension_table("outbox")))
		return true;
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(change->store.id)};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	if (SPI_execute_with_args("SELECT 1 FROM session_store.outbox WHERE store_id = $1", 1, types,
			values, nullptr, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the outbox");
	const bool empty = SPI_processed == 0;
	SPI_finish();
	leave_identity(&saved);
	return empty;
}

// The side that is left behind must hold nothing that the other has not.
void check_leaving(const PhaseChange *change) {
	if (change->caught_up)
		return;
	if (change->to == Phase::redis_only) {
		if (!outbox_is_empty(change))
			refuse(change, "changes of PostgreSQL are not in Redis yet",
				psprintf("Wait until %s is true.", call(change, "wait_for_mirror")));
		return;
	}
	MirrorReport report;
	const char *trouble = trouble_of_mirror(change, &report);
	if (trouble != nullptr)
		refuse(change, psprintf("the mirror is not in sync (%s)", trouble),
			"Wait until session_store.status says that it is.");
	refuse(change, "changes of Redis may not be in PostgreSQL yet",
		psprintf("Wait until %s is true.", call(change, "wait_for_mirror")));
}

// Between the two single phases no mirror has ever copied anything: force does not help there.
void check_step(const PhaseChange *change) {
	const int steps = rank(change->to) - rank(change->store.phase);
	if (abs(steps) <= 1 || change->live == 0)
		return;
	const char *reason = "it holds live sessions, and phases are taken one step at a time";
	const char *between =
		phase_name(static_cast<Phase>(rank(change->store.phase) + (steps > 0 ? 1 : -1)));
	if (!is_dual(change->store.phase) && !is_dual(change->to))
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("store \"%s\" cannot go from %s to %s: %s", NameStr(change->store.name),
					phase_name(change->store.phase), phase_name(change->to), reason),
				errhint("Go through phase %s.", between)));
	if (!change->force)
		refuse(change, reason, psprintf("Go through phase %s.", between));
}

// False when it did not catch up in time, or no mirror can run.
bool catch_up(const PhaseChange *change) {
	MirrorObstacle obstacle;
	if (find_mirror_obstacle(&change->store, &obstacle))
		return false;
	const TimestampTz started = GetCurrentTimestamp();
	uint64 number = 0;
	while (!poll_barrier(change->store.id, &number)) {
		MirrorReport report;
		pid_t pid;
		const bool hopeless = get_mirror_report(MyDatabaseId, change->store.id, &report, &pid) &&
			(report.state == MirrorState::failing || report.state == MirrorState::waiting);
		if (hopeless || number == 0 || GetCurrentTimestamp() - started >= kCatchUpTimeout)
			return false;
		pause_for_barrier();
	}
	return true;
}

void count_redis_keys(PhaseChange *change) {
	FeedOptions options = probe_options(&change->store, change->owner);
	FeedError error;
	if (connect_probe(&options, &error) && probe_count(&change->redis_keys, &error))
		change->redis_problem[0] = '\0';
	else
		strlcpy(change->redis_problem, error.message, sizeof(change->redis_problem));
	if (error.kind != FeedFailure::none)
		change->redis_keys = -1;
	close_probe();
	CHECK_FOR_INTERRUPTS();
}

} // namespace

bool enters_dual(const PhaseChange *change) {
	return !is_dual(change->store.phase) && is_dual(change->to);
}

bool leaves_dual(const PhaseChange *change) {
	return is_dual(change->store.phase) && !is_dual(change->to);
}

bool moves_ownership(const PhaseChange *change) {
	return is_dual(change->store.phase) &&
		share_of_postgres(change->store.phase, change->store.rollout_percent) !=
		share_of_postgres(change->to, change->percent);
}

void look_before_change(PhaseChange *change) {
	change->redis_keys = -1;
	if (enters_dual(change))
		count_redis_keys(change);
	if (!change->force && (leaves_dual(change) || moves_ownership(change)))
		change->caught_up = catch_up(change);
}

void check_change(const PhaseChange *change) {
	if (is_dual(change->to))
		require_server(change);
	check_step(change);
	if (enters_dual(change))
		check_entering(change);
	if (change->force)
		return;
	if (moves_ownership(change))
		check_evidence(change);
	if (leaves_dual(change))
		check_leaving(change);
}

} // namespace session_store
