// session_store.repartitions, and the sids noted meanwhile.
#include "store/repartition_state.h"

#include "postgres/identity.h"

namespace session_store {

namespace {

constexpr const char *kPhases[] = {"made", "copying", "swapped"};

// A caller that is alive takes a step every few milliseconds, or waits for a lock this long.
constexpr const char *kLock =
	"SELECT source, target, phase, copied_to, copied_all, "
	"stepped_at < pg_catalog.clock_timestamp() - '1 minute'::pg_catalog.interval, copied, total "
	"FROM session_store.repartitions WHERE store_id = $1 FOR UPDATE SKIP LOCKED";

void run(const char *sql, int count, const Oid *types, Datum *values, const char *nulls = nullptr) {
	Identity caller = enter_extension_owner();
	if (SPI_execute_with_args(sql, count, const_cast<Oid *>(types), values, nulls, false, 0) < 0)
		elog(ERROR, "could not read or write the state of a repartition");
	leave_identity(&caller);
}

void run_for_store(const char *sql, int32 store_id) {
	static const Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(store_id)};
	run(sql, 1, types, values);
}

Datum value_at(int column, bool *is_null) {
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, is_null);
}

RepartitionPhase parse_repartition_phase(Datum value) {
	const char *name = TextDatumGetCString(value);
	for (size_t i = 0; i < lengthof(kPhases); i++) {
		if (strcmp(name, kPhases[i]) == 0)
			return static_cast<RepartitionPhase>(i);
	}
	elog(ERROR, "unknown phase of a repartition");
	return RepartitionPhase::made;
}

bool exists(int32 store_id) {
	run_for_store("SELECT 1 FROM session_store.repartitions WHERE store_id = $1", store_id);
	return SPI_processed > 0;
}

} // namespace

StateLock lock_repartition(const Store *store, bool only_if_left, RepartitionState *state) {
	const int32 id = store->settings.id;
	if (!exists(id))
		return StateLock::none;
	run_for_store(kLock, id);
	if (SPI_processed == 0)
		return StateLock::busy;
	bool is_null;
	if (only_if_left && !DatumGetBool(value_at(6, &is_null)))
		return StateLock::none;
	state->store_id = id;
	state->source = DatumGetObjectId(value_at(1, &is_null));
	state->target = DatumGetObjectId(value_at(2, &is_null));
	state->phase = parse_repartition_phase(value_at(3, &is_null));
	state->copied_to = value_at(4, &is_null);
	state->copied_all = DatumGetBool(value_at(5, &is_null));
	state->copied = DatumGetInt64(value_at(7, &is_null));
	state->total = DatumGetInt64(value_at(8, &is_null));
	return StateLock::locked;
}

void note_repartition(const Store *store, Oid target, Interval *interval, int64 sessions) {
	static const Oid types[] = {INT4OID, OIDOID, OIDOID, INTERVALOID, INT8OID};
	Datum values[] = {Int32GetDatum(store->settings.id), ObjectIdGetDatum(store->settings.relation),
		ObjectIdGetDatum(target), PointerGetDatum(interval), Int64GetDatum(sessions)};
	const char nulls[] = {' ', ' ', ' ', interval == nullptr ? 'n' : ' ', ' ', '\0'};
	run("INSERT INTO session_store.repartitions "
		"(store_id, source, target, partition_interval, total) VALUES ($1, $2, $3, $4, $5)",
		lengthof(types), types, values, nulls);
}

bool repartition_is_under_way(const Store *store, Interval *interval, bool *same) {
	static const Oid types[] = {INT4OID, INTERVALOID};
	Datum values[] = {Int32GetDatum(store->settings.id), PointerGetDatum(interval)};
	const char nulls[] = {' ', interval == nullptr ? 'n' : ' ', '\0'};
	run("SELECT partition_interval IS NOT DISTINCT FROM $2 FROM session_store.repartitions "
		"WHERE store_id = $1",
		lengthof(types), types, values, nulls);
	if (SPI_processed == 0)
		return false;
	bool is_null;
	*same = DatumGetBool(value_at(1, &is_null));
	return true;
}

void set_repartition_phase(RepartitionState *state, RepartitionPhase phase) {
	static const Oid types[] = {INT4OID, TEXTOID};
	Datum values[] = {
		Int32GetDatum(state->store_id), CStringGetTextDatum(kPhases[static_cast<int>(phase)])};
	run("UPDATE session_store.repartitions SET phase = $2, "
		"stepped_at = pg_catalog.clock_timestamp() WHERE store_id = $1",
		lengthof(types), types, values);
	state->phase = phase;
}

void note_copied(RepartitionState *state, int64 count, Datum copied_to, bool all) {
	static const Oid types[] = {INT4OID, INT8OID, TEXTOID, BOOLOID};
	Datum values[] = {
		Int32GetDatum(state->store_id), Int64GetDatum(count), copied_to, BoolGetDatum(all)};
	run("UPDATE session_store.repartitions SET copied_to = $3, copied_all = $4, "
		"copied = CASE WHEN $3 = '' THEN 0 ELSE copied + $2 END, "
		"stepped_at = pg_catalog.clock_timestamp() WHERE store_id = $1 RETURNING copied",
		lengthof(types), types, values);
	bool is_null;
	state->copied = DatumGetInt64(value_at(1, &is_null));
	state->copied_to = copied_to;
	state->copied_all = all;
}

int64 take_noted_sids(RepartitionState *state, int64 limit, Datum *sids, bool *truncated) {
	static const Oid types[] = {INT4OID, INT8OID};
	Datum values[] = {Int32GetDatum(state->store_id), Int64GetDatum(limit)};
	run("WITH taken AS (DELETE FROM session_store.repartition_changes WHERE store_id = $1 AND "
		"(xid, seq) IN (SELECT xid, seq FROM session_store.repartition_changes "
		"WHERE store_id = $1 LIMIT $2) RETURNING sid) "
		"SELECT count(*), coalesce(array_agg(DISTINCT sid) FILTER (WHERE sid IS NOT NULL), '{}'), "
		"coalesce(bool_or(sid IS NULL), false) FROM taken",
		lengthof(types), types, values);
	bool is_null;
	*sids = value_at(2, &is_null);
	*truncated = DatumGetBool(value_at(3, &is_null));
	return DatumGetInt64(value_at(1, &is_null));
}

int64 count_noted(const RepartitionState *state, int64 limit) {
	static const Oid types[] = {INT4OID, INT8OID};
	Datum values[] = {Int32GetDatum(state->store_id), Int64GetDatum(limit)};
	run("SELECT count(*) FROM (SELECT 1 FROM session_store.repartition_changes "
		"WHERE store_id = $1 LIMIT $2) AS noted",
		lengthof(types), types, values);
	bool is_null;
	return DatumGetInt64(value_at(1, &is_null));
}

void put_in_place(RepartitionState *state) {
	run_for_store("UPDATE session_store.registry r SET relation = s.target, "
				  "partition_interval = s.partition_interval "
				  "FROM session_store.repartitions s WHERE s.store_id = r.id AND r.id = $1",
		state->store_id);
	set_repartition_phase(state, RepartitionPhase::swapped);
}

void forget_repartition(const RepartitionState *state) {
	run_for_store("DELETE FROM session_store.repartitions WHERE store_id = $1", state->store_id);
	run_for_store(
		"DELETE FROM session_store.repartition_changes WHERE store_id = $1", state->store_id);
}

} // namespace session_store
