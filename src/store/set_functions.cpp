// The session functions over several sessions: get_many, user_sessions, expire_user; and those by
// which applications find their sessions: routing and owner.
#include "postgres/pg.h"
#include "store/arguments.h"
#include "store/ownership.h"
#include "store/plans.h"
#include "store/probe.h"
#include "store/row_lock.h"

extern "C" {
#include "utils/array.h"
#include "utils/tuplestore.h"
}

namespace session_store {

namespace {

text *user_argument(FunctionCallInfo fcinfo, int number) {
	require_not_null(fcinfo, number, "user_id");
	return PG_GETARG_TEXT_PP(number);
}

// The sids of a list, checked; each once, in the order of their bytes.
int sids_argument(FunctionCallInfo fcinfo, int number, Datum **sids) {
	require_not_null(fcinfo, number, "sids");
	bool *nulls;
	int count;
	deconstruct_array(
		PG_GETARG_ARRAYTYPE_P(number), TEXTOID, -1, false, TYPALIGN_INT, sids, &nulls, &count);
	for (int i = 0; i < count; i++) {
		if (nulls[i])
			ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("sids must not hold nulls")));
		(*sids)[i] = PointerGetDatum(PG_DETOAST_DATUM_PACKED((*sids)[i]));
		check_sid(DatumGetTextPP((*sids)[i]));
	}
	auto compare = [](const void *a, const void *b) {
		auto *left = reinterpret_cast<text *>(*static_cast<const Datum *>(a));
		auto *right = reinterpret_cast<text *>(*static_cast<const Datum *>(b));
		int left_length = VARSIZE_ANY_EXHDR(left);
		int right_length = VARSIZE_ANY_EXHDR(right);
		int order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right), Min(left_length, right_length));
		return order != 0 ? order : left_length - right_length;
	};
	qsort(*sids, count, sizeof(Datum), compare);
	int unique = 0;
	for (int i = 0; i < count; i++) {
		if (unique == 0 || compare(&(*sids)[unique - 1], &(*sids)[i]) != 0)
			(*sids)[unique++] = (*sids)[i];
	}
	return unique;
}

// get_many and get_many_bytes: (sids, store).
Datum get_many(FunctionCallInfo fcinfo, Payload type) {
	Store *store = store_argument(fcinfo, 1);
	require_payload(store, type);
	Datum *sids;
	int count = sids_argument(fcinfo, 0, &sids);
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	TimestampTz now = GetCurrentStatementStartTimestamp();
	Relation table = open_for_probe(store);
	Probe probe = begin_probe(store, table, GetActiveSnapshot(), Wanted::live);
	for (int i = 0; i < count; i++) {
		Found found = find(&probe, DatumGetTextPP(sids[i]), now, true);
		if (!found.live)
			continue;
		Datum values[] = {
			sids[i], found.sess, TimestampTzGetDatum(found.expire), Int64GetDatum(found.version)};
		const bool nulls[lengthof(values)] = {};
		tuplestore_putvalues(result->setResult, result->setDesc, values, const_cast<bool *>(nulls));
		pfree(DatumGetPointer(found.sess));
	}
	end_probe(&probe);
	table_close(table, NoLock);
	return static_cast<Datum>(0);
}

// user_sessions and user_sessions_bytes: (user_id, store).
Datum user_sessions(FunctionCallInfo fcinfo, Payload type) {
	Store *store = store_argument(fcinfo, 1);
	require_payload(store, type);
	Datum values[] = {PointerGetDatum(user_argument(fcinfo, 0)),
		TimestampTzGetDatum(GetCurrentStatementStartTimestamp())};
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	Relation table = open_for_probe(store);
	SPI_connect();
	if (SPI_execute_plan(store_plan(store, StorePlan::user_sessions), values, nullptr, true, 0) < 0)
		elog(ERROR, "could not read sessions: %s", SPI_result_code_string(SPI_result));
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
	table_close(table, NoLock);
	return static_cast<Datum>(0);
}

int64 run_expire(Store *store, StorePlan kind, Datum *values, const char *nulls) {
	SPI_connect();
	if (SPI_execute_plan(store_plan(store, kind), values, nulls, false, 0) < 0)
		elog(ERROR, "could not end sessions: %s", SPI_result_code_string(SPI_result));
	int64 ended = static_cast<int64>(SPI_processed);
	SPI_finish();
	return ended;
}

// A statement fails where a row was moved to another partition while it waited for its lock: the
// rows are locked one by one before, in the order of their sids.
int64 expire_user_in_partitions(Store *store, Relation table, Datum *values, const char *nulls) {
	SPI_connect();
	if (SPI_execute_plan(store_plan(store, StorePlan::user_sids), values, nulls, false, 0) < 0)
		elog(ERROR, "could not read sessions: %s", SPI_result_code_string(SPI_result));
	SPITupleTable *found = SPI_tuptable;
	int count = static_cast<int>(found->numvals);
	auto *sids = static_cast<Datum *>(palloc(Max(count, 1) * sizeof(Datum)));
	for (int i = 0; i < count; i++) {
		bool is_null;
		sids[i] = SPI_getbinval(found->vals[i], found->tupdesc, 1, &is_null);
		prepare_write(store, table, DatumGetTextPP(sids[i]));
	}
	ArrayType *locked = construct_array(sids, count, TEXTOID, -1, false, TYPALIGN_INT);
	Datum of_locked[] = {values[0], PointerGetDatum(locked), values[2]};
	int64 ended = run_expire(store, StorePlan::expire_sids, of_locked, nullptr);
	SPI_finish();
	return ended;
}

} // namespace

} // namespace session_store

using namespace session_store;

SESSION_STORE_FUNCTION(session_store_get_many) {
	return get_many(fcinfo, Payload::jsonb);
}

SESSION_STORE_FUNCTION(session_store_get_many_bytes) {
	return get_many(fcinfo, Payload::bytea);
}

SESSION_STORE_FUNCTION(session_store_user_sessions) {
	return user_sessions(fcinfo, Payload::jsonb);
}

SESSION_STORE_FUNCTION(session_store_user_sessions_bytes) {
	return user_sessions(fcinfo, Payload::bytea);
}

// (user_id, keep_sid, store)
SESSION_STORE_FUNCTION(session_store_expire_user) {
	Store *store = store_argument(fcinfo, 2);
	bool keeps_one = !PG_ARGISNULL(1);
	Datum values[] = {PointerGetDatum(user_argument(fcinfo, 0)),
		keeps_one ? PointerGetDatum(sid_argument(fcinfo, 1)) : 0,
		TimestampTzGetDatum(GetCurrentTimestamp())};
	const char nulls[] = {' ', keeps_one ? ' ' : 'n', ' ', '\0'};
	Relation table = open_store_table(store, RowExclusiveLock);
	int64 ended = store->is_partitioned ? expire_user_in_partitions(store, table, values, nulls)
										: run_expire(store, StorePlan::expire_user, values, nulls);
	table_close(table, NoLock);
	PG_RETURN_INT64(ended);
}

// (store)
SESSION_STORE_FUNCTION(session_store_routing) {
	TupleDesc descriptor;
	if (get_call_result_type(fcinfo, nullptr, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	Store *store = store_argument(fcinfo, 0);
	Datum values[] = {CStringGetTextDatum(phase_name(store->settings.phase)),
		Int32GetDatum(store->settings.rollout_percent),
		TimestampTzGetDatum(store->settings.phase_changed_at)};
	const bool nulls[lengthof(values)] = {};
	return HeapTupleGetDatum(
		heap_form_tuple(BlessTupleDesc(descriptor), values, const_cast<bool *>(nulls)));
}

// (sid, store)
SESSION_STORE_FUNCTION(session_store_owner) {
	const text *sid = sid_argument(fcinfo, 0);
	const StoreSettings *store = &store_argument(fcinfo, 1)->settings;
	const std::string_view bytes(VARDATA_ANY(sid), VARSIZE_ANY_EXHDR(sid));
	PG_RETURN_TEXT_P(cstring_to_text(postgres_owns(store, bytes) ? "postgres" : "redis"));
}
