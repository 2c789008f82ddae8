// verify: both sides of a store compared, for a person; and what the last comparison found.
#include "mirror/verify.h"

#include "mirror/probe.h"
#include "mirror/verification.h"
#include "postgres/identity.h"
#include "postgres/interval.h"

extern "C" {
#include "access/xlog.h"
#include "utils/tuplestore.h"
}

namespace session_store {

namespace {

constexpr int kMaxSample = 10000000;

void put_difference(
	void *argument, Datum sid, core::Difference difference, const core::Sighting *seen) {
	auto *result = static_cast<ReturnSetInfo *>(argument);
	const bool in_redis = seen->redis.presence == core::Presence::present;
	const bool in_postgres = seen->postgres.presence == core::Presence::present;
	Datum values[] = {sid, CStringGetTextDatum(core::difference_name(difference)),
		TimestampTzGetDatum(seen->redis.expire), TimestampTzGetDatum(seen->postgres.expire)};
	bool nulls[] = {false, false, !in_redis, !in_postgres};
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

void refuse_one_snapshot() {
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				errmsg("verify needs to see what is committed while it runs"),
				errhint("Call it in a transaction of isolation level READ COMMITTED.")));
}

int64 tolerance_argument(FunctionCallInfo fcinfo, int number) {
	if (PG_ARGISNULL(number))
		return kVerifyTolerance;
	int64 microseconds;
	if (!interval_to_microseconds(PG_GETARG_INTERVAL_P(number), &microseconds) || microseconds < 0)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("tolerance must be a time of at least 0")));
	return microseconds;
}

// 0: every session.
int sample_argument(FunctionCallInfo fcinfo, int number) {
	if (PG_ARGISNULL(number))
		return 0;
	const int size = PG_GETARG_INT32(number);
	if (size < 1 || size > kMaxSample)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("sample_size must be between 1 and %d", kMaxSample),
				errhint("NULL compares every session.")));
	return size;
}

void tell(const Verification *verification) {
	if (verification->rejects > 0 || verification->evictions > 0)
		ereport(NOTICE,
			(errmsg("not compared: " INT64_FORMAT " rejected keys of Redis, " INT64_FORMAT
					" sessions kept though Redis evicted their keys",
				verification->rejects, verification->evictions)));
	if (verification->lagging)
		ereport(WARNING,
			(errmsg("the mirror of store \"%s\" did not catch up in time",
				 NameStr(verification->target.store.name)),
				errdetail("What differs may be what it has still to copy."),
				errhint("See session_store.status.")));
}

} // namespace

void record_verification(const Verification *verification) {
	if (XactReadOnly || RecoveryInProgress())
		return;
	Oid types[] = {INT4OID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum values[] = {Int32GetDatum(verification->target.store.id),
		Int64GetDatum(verification->compared), Int64GetDatum(verification->differences),
		Int64GetDatum(verification->rejects), Int64GetDatum(verification->evictions)};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	if (SPI_execute_with_args(
			"INSERT INTO session_store.verifications AS v"
			" (store_id, verified_at, compared, differences, rejects, kept_evictions)"
			" VALUES ($1, clock_timestamp(), $2, $3, $4, $5)"
			" ON CONFLICT (store_id) DO UPDATE SET verified_at = excluded.verified_at,"
			" compared = excluded.compared, differences = excluded.differences,"
			" rejects = excluded.rejects, kept_evictions = excluded.kept_evictions",
			5, types, values, nullptr, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not record a verification");
	SPI_finish();
	leave_identity(&saved);
}

} // namespace session_store

using namespace session_store;

// (store, sample_size, tolerance)
SESSION_STORE_FUNCTION(session_store_verify) {
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("store must not be null")));
	Store *store = find_store(NameStr(*PG_GETARG_NAME(0)));
	require_store_owner(store);
	refuse_one_snapshot();
	Verification verification = {};
	const int sample_size = sample_argument(fcinfo, 1);
	verification.tolerance = tolerance_argument(fcinfo, 2);
	verification.target.store = store->settings;
	open_target(&verification.target, AccessShareLock);
	InitMaterializedSRF(fcinfo, 0);
	verification.report = put_difference;
	verification.argument = fcinfo->resultinfo;
	open_probe(&verification.target.store, verification.target.owner);
	if (sample_size == 0)
		verify_all(&verification);
	else
		verify_sample(&verification, sample_size);
	close_probe();
	record_verification(&verification);
	tell(&verification);
	PG_RETURN_NULL();
}
