// What every write of a session row must keep right, whoever writes it: the row trigger, and the
// functions where they update a row without a statement.
#pragma once

#include "store/registry.h"
#include "store/write_origin.h"

namespace session_store {

// The columns of a row that the rules look at. Datums point into the row.
struct SessionRow {
	Datum sid;
	bool has_sid;
	Datum sess;
	bool has_sess;
	Datum user_id;
	bool has_user_id;
	TimestampTz expire;
	bool has_expire;
	int64 version;
};

// `columns` are those of the table or partition that the row is in.
SessionRow session_row_of(const StoreColumns *columns, const Datum *values, const bool *nulls);
SessionRow read_session_row(const StoreColumns *columns, HeapTuple row, TupleDesc descriptor);

inline constexpr int kMaxChanges = 8;

// Columns of a row that are to be changed.
struct RowChanges {
	int count;
	int columns[kMaxChanges];
	Datum values[kMaxChanges];
	bool nulls[kMaxChanges];
	bool payload; // the payload is another one
};

void change(RowChanges *changes, AttrNumber column, Datum value, bool is_null);
HeapTuple changed_row(HeapTuple row, TupleDesc descriptor, RowChanges *changes);

// Adds what a new row needs: expire_bucket, and user_id where the caller gave none. ERROR when its
// sid is empty or too long. The row has a sid, a payload and an expiry.
void rules_of_insert(
	const Store *store, const StoreColumns *columns, const SessionRow *row, RowChanges *changes);

// The version of a row that is new now: microseconds from 1970.
int64 first_version(TimestampTz now);

// Adds what follows from an update: version, updated_at, expire_bucket, created_at when an expired
// session comes back (by the mirror only one that cleanup could have removed), and user_id where
// the payload changed and the caller gave none. Returns the version. Both rows have a payload and
// an expiry.
int64 rules_of_update(const Store *store, const StoreColumns *columns, WriteOrigin origin,
	const SessionRow *before, const SessionRow *after, bool user_id_is_settled, TimestampTz now,
	RowChanges *changes);

// Whether two values of one column are the same bytes, whatever their storage.
bool same_value(Datum a, Datum b);

} // namespace session_store
