// Inserting many sessions at once, without a statement: the fastest path PostgreSQL offers.
#pragma once

#include "store/registry.h"

namespace session_store {

struct NewSession {
	Datum sid;
	Datum sess;
	TimestampTz expire;
};

// Inserts sessions that are not there, as the mirror: without the logout guard and the outbox.
// False, and nothing changed, when the table is not as create_store made it: partitioned, or with
// columns, triggers, rules or constraints of its user's. ERROR unique_violation when a sid is there
// after all. The caller owns the table and has locked it.
bool insert_many(
	Store *store, Relation table, const NewSession *sessions, int count, TimestampTz now);

} // namespace session_store
