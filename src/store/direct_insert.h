// Inserting a session without a statement: what upsert does when there is none.
#pragma once

#include "store/registry.h"

namespace session_store {

struct DirectInsert {
	Datum sid;
	Datum sess;
	Datum user_id;
	bool user_id_is_null;
	TimestampTz expire;
};

enum class Inserted : uint8_t {
	done,
	guarded,   // the sid was ended within logout_guard
	undecided, // nothing changed: run the statement
};

// Inserts into the open table. Undecided when somebody else inserted the sid, when the table has
// triggers, rules, constraints or columns of its user's, when it is partitioned, or when the caller
// lacks a right that the statement wants: then it also says what is wrong.
Inserted insert_directly(Store *store, Relation table, const DirectInsert *insert, int64 *version);

} // namespace session_store
