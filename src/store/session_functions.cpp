// The session functions: upsert, get, touch, expire and their kin.
//
// Readers probe the index. upsert and touch write a row in place where they can, and else run a
// saved statement through SPI, as the other writers do; the same rules hold on both ways. All with
// the caller's rights. get judges expiry by the start of the statement, so that it is stable within
// it; writers judge by the clock.
#include "postgres/pg.h"
#include "store/arguments.h"
#include "store/direct_insert.h"
#include "store/direct_update.h"
#include "store/merge_patch.h"
#include "store/one_row.h"
#include "store/plans.h"
#include "store/probe.h"
#include "store/row_lock.h"
#include "store/tombstones.h"
#include "store/write_origin.h"

namespace session_store {

namespace {

constexpr const char *kAllPresent = nullptr;
// With a sid locked its row can be moved or removed, but not made, by somebody else.
constexpr int kMostAttempts = 100;

// Runs a saved statement that writes at most one session. Returns the number of rows, and the first
// column of the first row, if there is one, in *result (pass by value types only).
uint64 run_write(Store *store, Relation table, StorePlan kind, Datum *values, const char *nulls,
	WriteOrigin origin, bool user_id_settled, Datum *result) {
	SPI_connect();
	SPIPlanPtr plan = store_plan(store, kind);
	// Whoever runs the plan that only inserts has made sure of that.
	begin_write(RelationGetRelid(table), origin, user_id_settled, kind == StorePlan::insert);
	if (SPI_execute_plan(plan, values, nulls, false, 0) < 0)
		elog(ERROR, "could not write a session: %s", SPI_result_code_string(SPI_result));
	end_write();
	uint64 rows = SPI_processed;
	if (rows > 0 && result != nullptr) {
		bool is_null;
		*result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	}
	SPI_finish();
	return rows;
}

// A writer sees what the statement that calls it has written already, as with SPI.
Snapshot writer_snapshot() {
	return RegisterSnapshot(GetTransactionSnapshot());
}

// What upsert and upsert_bytes were asked.
struct Upsert {
	Store *store;
	text *sid;
	Datum sess;
	TimestampTz expire;
	bool has_user_id;
	Datum user_id;
	bool has_version;
	int64 version;
	TimestampTz now;
};

// Undecided: where the row was seen, or that none was.
enum class Outcome : uint8_t { done, refused, present, absent };

Outcome insert_new(const Upsert *upsert, Relation table, int64 *version) {
	DirectInsert insert = {PointerGetDatum(upsert->sid), upsert->sess, upsert->user_id,
		!upsert->has_user_id, upsert->expire};
	switch (insert_directly(upsert->store, table, &insert, version)) {
	case Inserted::done:
		return Outcome::done;
	case Inserted::guarded:
		return Outcome::refused;
	case Inserted::undecided:
		break;
	}
	return Outcome::absent;
}

// Updates the session where it stands, inserts it where there is none, or sees that its version is
// not the expected one.
Outcome upsert_directly(const Upsert *upsert, Relation table, int64 *version) {
	Snapshot snapshot = writer_snapshot();
	Probe probe = begin_probe(upsert->store, table, snapshot, Wanted::any);
	// Mostly a session that was given the same life not long ago.
	probe.likely_expire = upsert->expire;
	Found found = find(&probe, upsert->sid, upsert->now, false);
	Outcome outcome = found.present ? Outcome::present : Outcome::absent;
	int64 current = found.live ? found.version : 0;
	if (upsert->has_version && upsert->version != current) {
		outcome = Outcome::refused;
	} else if (found.present) {
		DirectUpdate update = {};
		update.expire = upsert->expire;
		update.sess = upsert->sess;
		update.user_id = upsert->user_id;
		update.user_id_is_null = !upsert->has_user_id;
		// A session that had expired is a new one, with none of the old one's user.
		update.keeps_user_id = !upsert->has_user_id && found.live;
		if (update_directly(upsert->store, table, &probe, &update, upsert->now, version))
			outcome = Outcome::done;
	} else {
		outcome = insert_new(upsert, table, version);
	}
	end_probe(&probe);
	UnregisterSnapshot(snapshot);
	return outcome;
}

Outcome upsert_by_statement(const Upsert *upsert, Relation table, StorePlan kind, int64 *version) {
	Datum values[] = {PointerGetDatum(upsert->sid), upsert->sess, upsert->user_id,
		TimestampTzGetDatum(upsert->expire), TimestampTzGetDatum(upsert->now),
		Int64GetDatum(upsert->version)};
	const char nulls[] = {' ', ' ', upsert->has_user_id ? ' ' : 'n', ' ', ' ', ' ', '\0'};
	uint64 guarded_before = guarded_inserts;
	Datum result;
	uint64 rows = run_write(upsert->store, table, kind, values, nulls, WriteOrigin::application,
		upsert->has_user_id, &result);
	if (rows == 0 || guarded_inserts != guarded_before)
		return Outcome::refused;
	*version = DatumGetInt64(result);
	return Outcome::done;
}

Outcome upsert_whole_table(const Upsert *upsert, Relation table, int64 *version) {
	StorePlan kind = StorePlan::upsert;
	if (upsert->has_version)
		kind = upsert->version == 0 ? StorePlan::insert_not_live : StorePlan::update_version;
	return upsert_by_statement(upsert, table, kind, version);
}

// What ON CONFLICT does where a unique index says who was first: updates the row that is there, or
// makes sure that there is none and inserts one.
Outcome upsert_partitions(const Upsert *upsert, Relation table, Outcome seen, int64 *version) {
	Store *store = upsert->store;
	refuse_row_security(store, table);
	if (upsert->has_version && upsert->version != 0) {
		(void)lock_row(store, table, upsert->sid);
		return upsert_by_statement(upsert, table, StorePlan::update_version, version);
	}
	StorePlan update = upsert->has_version ? StorePlan::update_not_live : StorePlan::update;
	for (int attempt = 0; attempt < kMostAttempts; attempt++) {
		if ((attempt > 0 || seen == Outcome::present) && lock_row(store, table, upsert->sid)) {
			Outcome outcome = upsert_by_statement(upsert, table, update, version);
			if (outcome == Outcome::refused && IsolationUsesXactSnapshot())
				report_concurrent_update();
			return outcome;
		}
		lock_sid(store, PointerGetDatum(upsert->sid));
		if (!has_row(store, PointerGetDatum(upsert->sid)))
			return upsert_by_statement(upsert, table, StorePlan::insert, version);
	}
	ereport(ERROR,
		(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			errmsg("the session is being written by the statement that calls this function")));
	return Outcome::refused;
}

// upsert and upsert_bytes: (sid, sess, ttl, expire, user_id, expected_version, store).
Datum upsert(FunctionCallInfo fcinfo, Payload type) {
	Upsert upsert = {};
	upsert.now = GetCurrentTimestamp();
	upsert.store = store_argument(fcinfo, 6);
	upsert.sid = sid_argument(fcinfo, 0);
	upsert.sess = payload_argument(fcinfo, 1, upsert.store, type);
	upsert.expire = deadline_arguments(fcinfo, 2, 3, upsert.store, upsert.now).at;
	upsert.has_user_id = !PG_ARGISNULL(4);
	upsert.user_id = upsert.has_user_id ? PG_GETARG_DATUM(4) : 0;
	upsert.has_version = !PG_ARGISNULL(5);
	upsert.version = upsert.has_version ? PG_GETARG_INT64(5) : 0;
	int64 version = 0;
	Relation table = open_store_table(upsert.store, RowExclusiveLock);
	Outcome outcome = may_probe(upsert.store, table) ? upsert_directly(&upsert, table, &version)
													 : Outcome::absent;
	if (outcome != Outcome::done && outcome != Outcome::refused)
		outcome = upsert.store->is_partitioned
			? upsert_partitions(&upsert, table, outcome, &version)
			: upsert_whole_table(&upsert, table, &version);
	table_close(table, NoLock);
	if (outcome == Outcome::refused)
		PG_RETURN_NULL();
	PG_RETURN_INT64(version);
}

// The range of expiries at which a touch has nothing to write, and what it writes before it.
struct TouchRule {
	TimestampTz extended; // written when expire is earlier than asked
	TimestampTz asked;    // written when expire is later than `latest`
	TimestampTz latest;
};

TouchRule touch_rule(Deadline deadline, const Store *store) {
	if (deadline.absolute)
		return {deadline.at, deadline.at, deadline.at};
	TimestampTz later = deadline.at + store->settings.touch_granularity;
	if (!IS_VALID_TIMESTAMP(later) || later < deadline.at)
		later = deadline.at;
	return {later, deadline.at, later};
}

bool touch_by_statement(
	Store *store, Relation table, text *sid, const TouchRule *rule, TimestampTz now) {
	Datum values[] = {PointerGetDatum(sid), TimestampTzGetDatum(rule->extended),
		TimestampTzGetDatum(rule->asked), TimestampTzGetDatum(rule->latest),
		TimestampTzGetDatum(now)};
	prepare_write(store, table, sid);
	return run_write(store, table, StorePlan::touch, values, kAllPresent, WriteOrigin::application,
			   false, nullptr) > 0 ||
		is_live_now(store, table, sid, now);
}

// Finds a session and touches it, if there is anything to write. Not live when it is not, or ended
// in the meantime.
Found find_and_touch(
	Store *store, text *sid, Deadline deadline, TimestampTz now, bool want_payload) {
	Relation table = open_for_probe(store);
	Snapshot snapshot = writer_snapshot();
	Probe probe = begin_probe(store, table, snapshot, Wanted::live);
	TouchRule rule = touch_rule(deadline, store);
	// Mostly a session that was given the same life not long ago.
	probe.likely_expire = rule.asked;
	Found found = find(&probe, sid, now, want_payload);
	bool is_due = found.live && (found.expire < rule.asked || found.expire > rule.latest);
	if (is_due) {
		DirectUpdate update = {};
		update.expire = found.expire < rule.asked ? rule.extended : rule.asked;
		update.keeps_sess = true;
		update.keeps_user_id = true;
		int64 version;
		is_due = !update_directly(store, table, &probe, &update, now, &version);
	}
	end_probe(&probe);
	UnregisterSnapshot(snapshot);
	if (is_due)
		found.live = touch_by_statement(store, table, sid, &rule, now);
	table_close(table, NoLock);
	return found;
}

// get_and_touch and get_bytes_and_touch: (sid, ttl, expire, store).
Datum get_and_touch(FunctionCallInfo fcinfo, Payload type) {
	TimestampTz now = GetCurrentTimestamp();
	Store *store = store_argument(fcinfo, 3);
	text *sid = sid_argument(fcinfo, 0);
	require_payload(store, type);
	Deadline deadline = deadline_arguments(fcinfo, 1, 2, store, now);
	Found found = find_and_touch(store, sid, deadline, now, true);
	if (!found.live)
		PG_RETURN_NULL();
	return found.sess;
}

// Finds a live session for a function that only reads: (sid, store).
Found find_live(FunctionCallInfo fcinfo, Store *store) {
	text *sid = sid_argument(fcinfo, 0);
	Relation table = open_for_probe(store);
	Found found = probe_once(store, table, sid, GetCurrentStatementStartTimestamp(), true);
	table_close(table, NoLock);
	return found;
}

} // namespace

} // namespace session_store

using namespace session_store;

SESSION_STORE_FUNCTION(session_store_upsert) {
	return upsert(fcinfo, Payload::jsonb);
}

SESSION_STORE_FUNCTION(session_store_upsert_bytes) {
	return upsert(fcinfo, Payload::bytea);
}

SESSION_STORE_FUNCTION(session_store_get) {
	Store *store = store_argument(fcinfo, 1);
	require_payload(store, Payload::jsonb);
	Found found = find_live(fcinfo, store);
	if (!found.live)
		PG_RETURN_NULL();
	return found.sess;
}

SESSION_STORE_FUNCTION(session_store_get_bytes) {
	Store *store = store_argument(fcinfo, 1);
	Found found = find_live(fcinfo, store);
	if (!found.live)
		PG_RETURN_NULL();
	if (store->settings.payload == Payload::bytea)
		return found.sess;
	Jsonb *sess = DatumGetJsonbP(found.sess);
	return PointerGetDatum(
		cstring_to_text(JsonbToCString(nullptr, &sess->root, static_cast<int>(VARSIZE(sess)))));
}

SESSION_STORE_FUNCTION(session_store_get_versioned) {
	TupleDesc descriptor;
	if (get_call_result_type(fcinfo, nullptr, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	Store *store = store_argument(fcinfo, 1);
	require_payload(store, Payload::jsonb);
	Found found = find_live(fcinfo, store);
	Datum values[] = {found.sess, Int64GetDatum(found.version), TimestampTzGetDatum(found.expire)};
	bool nulls[] = {!found.live, !found.live, !found.live};
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls));
}

SESSION_STORE_FUNCTION(session_store_get_and_touch) {
	return get_and_touch(fcinfo, Payload::jsonb);
}

SESSION_STORE_FUNCTION(session_store_get_bytes_and_touch) {
	return get_and_touch(fcinfo, Payload::bytea);
}

SESSION_STORE_FUNCTION(session_store_touch) {
	TimestampTz now = GetCurrentTimestamp();
	Store *store = store_argument(fcinfo, 3);
	text *sid = sid_argument(fcinfo, 0);
	Deadline deadline = deadline_arguments(fcinfo, 1, 2, store, now);
	PG_RETURN_BOOL(find_and_touch(store, sid, deadline, now, false).live);
}

// (sid, patch, ttl, expire, store)
SESSION_STORE_FUNCTION(session_store_merge) {
	TimestampTz now = GetCurrentTimestamp();
	Store *store = store_argument(fcinfo, 4);
	text *sid = sid_argument(fcinfo, 0);
	require_payload(store, Payload::jsonb);
	require_not_null(fcinfo, 1, "patch");
	Jsonb *patch = PG_GETARG_JSONB_P(1);
	Deadline deadline = deadline_arguments(fcinfo, 2, 3, store, now);
	Relation table = open_store_table(store, RowExclusiveLock);
	MemoryContext caller_context = CurrentMemoryContext;
	prepare_write(store, table, sid);
	SPI_connect();
	Datum key[] = {PointerGetDatum(sid), TimestampTzGetDatum(now)};
	if (SPI_execute_plan(store_plan(store, StorePlan::merge), key, kAllPresent, false, 0) < 0)
		elog(ERROR, "could not lock a session: %s", SPI_result_code_string(SPI_result));
	if (SPI_processed == 0) {
		SPI_finish();
		table_close(table, NoLock);
		PG_RETURN_NULL();
	}
	bool is_null;
	HeapTuple row = SPI_tuptable->vals[0];
	TupleDesc descriptor = SPI_tuptable->tupdesc;
	Jsonb *current = DatumGetJsonbP(SPI_getbinval(row, descriptor, 1, &is_null));
	Datum version = SPI_getbinval(row, descriptor, 2, &is_null);
	MemoryContext spi_context = MemoryContextSwitchTo(caller_context);
	Jsonb *merged = merge_patch(current, patch);
	MemoryContextSwitchTo(spi_context);
	// The row is locked, so that its version is still the one just read.
	Datum values[] = {PointerGetDatum(sid), PointerGetDatum(merged), 0,
		TimestampTzGetDatum(deadline.at), TimestampTzGetDatum(now), version};
	(void)run_write(store, table, StorePlan::update_version, values, "  n   ",
		WriteOrigin::application, false, nullptr);
	SPI_finish();
	table_close(table, NoLock);
	PG_RETURN_JSONB_P(merged);
}

SESSION_STORE_FUNCTION(session_store_expire) {
	TimestampTz now = GetCurrentTimestamp();
	Store *store = store_argument(fcinfo, 1);
	text *sid = sid_argument(fcinfo, 0);
	Relation table = open_store_table(store, RowExclusiveLock);
	Datum values[] = {PointerGetDatum(sid), TimestampTzGetDatum(now)};
	prepare_write(store, table, sid);
	uint64 rows = run_write(store, table, StorePlan::expire, values, kAllPresent,
		WriteOrigin::application, false, nullptr);
	table_close(table, NoLock);
	PG_RETURN_BOOL(rows > 0);
}

SESSION_STORE_FUNCTION(session_store_destroy) {
	TimestampTz now = GetCurrentTimestamp();
	Store *store = store_argument(fcinfo, 1);
	text *sid = sid_argument(fcinfo, 0);
	Relation table = open_store_table(store, RowExclusiveLock);
	Datum values[] = {PointerGetDatum(sid)};
	Datum expire = TimestampTzGetDatum(DT_NOBEGIN);
	prepare_write(store, table, sid);
	(void)run_write(store, table, StorePlan::destroy, values, kAllPresent,
		WriteOrigin::housekeeping, false, &expire);
	table_close(table, NoLock);
	remove_tombstone(&store->settings, PointerGetDatum(sid));
	PG_RETURN_BOOL(DatumGetTimestampTz(expire) > now);
}
