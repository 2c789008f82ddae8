// The statements that a mirror runs on a session table, prepared once.
#include "mirror/rows.h"

#include "postgres/yield.h"
#include "store/bulk_insert.h"
#include "store/row_lock.h"
#include "store/write_origin.h"

extern "C" {
#include "utils/datum.h"
}

namespace session_store {

namespace {

constexpr int kPlans = 8;
constexpr int kMostArguments = 3;

struct Statement {
	const char *format; // of the table's name
	int arguments;
	Oid types[kMostArguments];
};

// Stands for the array type of the store's payload.
constexpr Oid kPayloads = InvalidOid;

// Order as in RowPlan. A partitioned table has no unique index on sid: its row trigger leaves out a
// row that is there.
constexpr Statement kStatements[kPlans] = {
	{"SELECT sid, sess, expire FROM %s WHERE sid = ANY ($1)", 1, {TEXTARRAYOID}},
	{"SELECT sid, sess, expire FROM %s WHERE sid = ANY ($1) ORDER BY sid FOR UPDATE SKIP LOCKED", 1,
		{TEXTARRAYOID}},
	{"INSERT INTO %s (sid, sess, expire) SELECT * FROM unnest($1, $2, $3)"
	 " ON CONFLICT (sid) DO NOTHING",
		3, {TEXTARRAYOID, kPayloads, TIMESTAMPTZARRAYOID}},
	{"INSERT INTO %s (sid, sess, expire) SELECT * FROM unnest($1, $2, $3)", 3,
		{TEXTARRAYOID, kPayloads, TIMESTAMPTZARRAYOID}},
	{"UPDATE %s AS t SET sess = n.sess, expire = n.expire"
	 " FROM unnest($1, $2, $3) AS n (sid, sess, expire) WHERE t.sid = n.sid",
		3, {TEXTARRAYOID, kPayloads, TIMESTAMPTZARRAYOID}},
	{"UPDATE %s AS t SET expire = n.expire FROM unnest($1, $2) AS n (sid, expire)"
	 " WHERE t.sid = n.sid",
		2, {TEXTARRAYOID, TIMESTAMPTZARRAYOID}},
	{"DELETE FROM %s WHERE sid = ANY ($1)", 1, {TEXTARRAYOID}},
	{"SELECT sid FROM %s WHERE sid > $1 AND expire > clock_timestamp() ORDER BY sid LIMIT $2", 2,
		{TEXTOID, INT8OID}},
};

// Saved plans, for the name and payload type they were made for.
SPIPlanPtr plans[kPlans];
char planned_name[kQualifiedNameBytes];
Payload planned_payload;

void forget_plans() {
	for (SPIPlanPtr &plan : plans) {
		if (plan != nullptr)
			SPI_freeplan(plan);
		plan = nullptr;
	}
}

SPIPlanPtr find_plan(const MirrorTarget *target, RowPlan which) {
	if (strcmp(planned_name, target->name) != 0 || planned_payload != target->store.payload) {
		forget_plans();
		strlcpy(planned_name, target->name, sizeof(planned_name));
		planned_payload = target->store.payload;
	}
	SPIPlanPtr &saved = plans[static_cast<int>(which)];
	if (saved != nullptr)
		return saved;
	const Statement &statement = kStatements[static_cast<int>(which)];
	Oid types[kMostArguments];
	for (int i = 0; i < statement.arguments; i++)
		types[i] = statement.types[i] != kPayloads ? statement.types[i]
			: planned_payload == Payload::jsonb    ? JSONBARRAYOID
												   : BYTEAARRAYOID;
	StringInfoData sql;
	initStringInfo(&sql);
	for (const char *at = statement.format; *at != '\0'; at++) {
		if (at[0] == '%' && at[1] == 's') {
			appendStringInfoString(&sql, target->name);
			at++;
		} else {
			appendStringInfoChar(&sql, *at);
		}
	}
	SPIPlanPtr plan = SPI_prepare(sql.data, statement.arguments, types);
	if (plan == nullptr || SPI_keepplan(plan) != 0)
		elog(ERROR, "%s: %s", sql.data, SPI_result_code_string(SPI_result));
	saved = plan;
	return saved;
}

void execute(const MirrorTarget *target, RowPlan which, Datum *values) {
	MemoryContext caller = CurrentMemoryContext; // SPI leaves us in its own
	const int result = SPI_execute_plan(find_plan(target, which), values, nullptr, false, 0);
	MemoryContextSwitchTo(caller);
	if (result < 0)
		elog(ERROR, "a statement of the mirror failed: %s", SPI_result_code_string(result));
}

Datum make_array(Datum *values, int count, Oid type) {
	const bool is_time = type == TIMESTAMPTZOID;
	return PointerGetDatum(construct_array(values, count, type, is_time ? 8 : -1,
		is_time && FLOAT8PASSBYVAL, is_time ? TYPALIGN_DOUBLE : TYPALIGN_INT));
}

enum class Field : uint8_t { sid, sess, expire };

// What the row is to hold: of Redis, but where that goes to Redis.
Datum field_of(const MirrorRow *row, Field field) {
	switch (field) {
	case Field::sid:
		return row->judged.sid;
	case Field::sess:
		return row->judged.sess;
	case Field::expire:
		break;
	}
	const bool stays = row->in_table && row->decision.expiry != core::Direction::to_postgres;
	return TimestampTzGetDatum(stays ? row->expire : row->judged.expire);
}

Datum array_of(MirrorRow **rows, int count, Field field, Oid type) {
	auto *values = static_cast<Datum *>(palloc(count * sizeof(Datum)));
	for (int i = 0; i < count; i++)
		values[i] = field_of(rows[i], field);
	const Datum array = make_array(values, count, type);
	pfree(values);
	return array;
}

void execute_as_mirror(const MirrorTarget *target, RowPlan which, Datum *values) {
	begin_write(target->store.relation, WriteOrigin::mirror, false);
	execute(target, which, values);
	end_write();
}

void write_payloads(const MirrorTarget *target, RowPlan which, MirrorRow **rows, int count) {
	const Oid payload = target->store.payload == Payload::jsonb ? JSONBOID : BYTEAOID;
	Datum values[] = {array_of(rows, count, Field::sid, TEXTOID),
		array_of(rows, count, Field::sess, payload),
		array_of(rows, count, Field::expire, TIMESTAMPTZOID)};
	execute_as_mirror(target, which, values);
}

// False when the table is not one for that.
bool insert_at_once(const MirrorTarget *target, MirrorRow **rows, int count) {
	Relation table = table_open(target->store.relation, RowExclusiveLock);
	Store *store = find_store_of(table);
	auto *sessions = static_cast<NewSession *>(palloc(count * sizeof(NewSession)));
	for (int i = 0; i < count; i++)
		sessions[i] = {rows[i]->judged.sid, rows[i]->judged.sess, rows[i]->judged.expire};
	const bool done =
		store != nullptr && insert_many(store, table, sessions, count, GetCurrentTimestamp());
	pfree(sessions);
	table_close(table, NoLock);
	return done;
}

std::string_view text_view(Datum value) {
	const auto *bytes = DatumGetTextPP(value);
	return {VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)};
}

// The row of that sid among those, sorted by sid; null when it is not one of them.
MirrorRow *find_row(MirrorRow **rows, int count, std::string_view sid) {
	int low = 0;
	int high = count;
	while (low < high) {
		const int middle = low + (high - low) / 2;
		if (rows[middle]->item->sid < sid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && rows[low]->item->sid == sid ? rows[low] : nullptr;
}

void read_probed(Probe *probe, MirrorRow *row, bool locks) {
	if (!find(probe, DatumGetTextPP(row->judged.sid), 0, false).present)
		return;
	TableProbe *at = table_of(probe);
	if (locks && !lock_found(at, probe->snapshot, LockWaitSkip))
		return;
	const Datum sess = slot_getattr(at->slot, at->columns.sess, &row->sess_is_null);
	row->sess = row->sess_is_null ? 0 : datumCopy(sess, false, -1);
	bool is_null;
	const Datum expire = slot_getattr(at->slot, at->columns.expire, &is_null);
	row->expire = is_null ? DT_NOBEGIN : DatumGetTimestampTz(expire);
	row->writer =
		DatumGetTransactionId(slot_getsysattr(at->slot, MinTransactionIdAttributeNumber, &is_null));
	row->in_table = true;
}

// Reads by the index, without a statement. What the row holds stays as it is stored: a large
// payload is fetched when it is looked at. A statement's SKIP LOCKED waits after all, for who has
// changed a row again just as it was to be locked. False when the table is not one for that.
bool read_at_once(const MirrorTarget *target, MirrorRow **rows, int count, bool locks) {
	Relation table = table_open(target->store.relation, NoLock);
	Store *store = find_store_of(table);
	const bool possible =
		store != nullptr && (locks ? may_lock(store, table) : may_probe(store, table));
	if (possible) {
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
		Probe probe = begin_probe(store, table, snapshot, Wanted::any);
		for (int i = 0; i < count; i++)
			if (rows[i]->judged.valid_sid) {
				yield_if_due();
				read_probed(&probe, rows[i], locks);
			}
		end_probe(&probe);
		UnregisterSnapshot(snapshot);
	}
	table_close(table, NoLock);
	return possible;
}

} // namespace

void read_rows(const MirrorTarget *target, RowPlan plan, MirrorRow **rows, int count) {
	if (read_at_once(target, rows, count, plan == RowPlan::lock))
		return;
	auto *sids = static_cast<Datum *>(palloc(count * sizeof(Datum)));
	int n = 0;
	for (int i = 0; i < count; i++)
		if (rows[i]->judged.valid_sid)
			sids[n++] = rows[i]->judged.sid;
	if (n == 0)
		return;
	Datum values[] = {make_array(sids, n, TEXTOID)};
	execute(target, plan, values);
	SPITupleTable *found = SPI_tuptable;
	for (uint64 i = 0; i < found->numvals; i++) {
		bool is_null;
		const Datum sid = SPI_getbinval(found->vals[i], found->tupdesc, 1, &is_null);
		MirrorRow *row = find_row(rows, count, text_view(sid));
		if (row == nullptr)
			continue;
		row->in_table = true;
		row->writer = InvalidTransactionId;
		row->sess = SPI_getbinval(found->vals[i], found->tupdesc, 2, &row->sess_is_null);
		const Datum expire = SPI_getbinval(found->vals[i], found->tupdesc, 3, &is_null);
		row->expire = is_null ? DT_NOBEGIN : DatumGetTimestampTz(expire);
	}
}

void insert_rows(const MirrorTarget *target, MirrorRow **rows, int count, bool carefully) {
	if (count == 0 || (!carefully && insert_at_once(target, rows, count)))
		return;
	write_payloads(target, target->is_partitioned ? RowPlan::insert_partitioned : RowPlan::insert,
		rows, count);
	if (SPI_processed != static_cast<uint64>(count))
		ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("a session was stored while the mirror stored it")));
}

void update_rows(const MirrorTarget *target, MirrorRow **rows, int count) {
	if (count > 0)
		write_payloads(target, RowPlan::update, rows, count);
}

void touch_rows(const MirrorTarget *target, MirrorRow **rows, int count) {
	if (count == 0)
		return;
	Datum values[] = {array_of(rows, count, Field::sid, TEXTOID),
		array_of(rows, count, Field::expire, TIMESTAMPTZOID)};
	execute_as_mirror(target, RowPlan::touch, values);
}

void remove_rows(const MirrorTarget *target, MirrorRow **rows, int count) {
	if (count == 0)
		return;
	Datum values[] = {array_of(rows, count, Field::sid, TEXTOID)};
	execute_as_mirror(target, RowPlan::remove, values);
}

int walk_sids(const MirrorTarget *target, Datum after, int limit, Datum **sids) {
	Datum values[] = {after, Int64GetDatum(limit)};
	execute(target, RowPlan::walk, values);
	SPITupleTable *found = SPI_tuptable;
	*sids = static_cast<Datum *>(palloc(Max(found->numvals, uint64{1}) * sizeof(Datum)));
	for (uint64 i = 0; i < found->numvals; i++) {
		bool is_null;
		const Datum sid = SPI_getbinval(found->vals[i], found->tupdesc, 1, &is_null);
		(*sids)[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(sid));
	}
	return static_cast<int>(found->numvals);
}

bool same_payload(const MirrorRow *row, Payload payload) {
	if (row->sess_is_null)
		return false;
	auto *mine = DatumGetByteaPP(row->sess);
	const auto *theirs = DatumGetByteaPP(row->judged.sess);
	const Size size = VARSIZE_ANY_EXHDR(mine);
	bool same = size == VARSIZE_ANY_EXHDR(theirs) &&
		memcmp(VARDATA_ANY(mine), VARDATA_ANY(theirs), size) == 0;
	if (!same && payload == Payload::jsonb)
		same = DatumGetBool(DirectFunctionCall2(jsonb_eq, PointerGetDatum(mine), row->judged.sess));
	if (PointerGetDatum(mine) != row->sess)
		pfree(mine);
	return same;
}

} // namespace session_store
