// Updating a session in place, without a statement: what upsert and touch do when the row is there.
//
// An UPDATE locks the row before its triggers run, with a WAL record of its own, and prepares and
// runs a plan; none of that is needed where the only trigger is ours, whose rules apply here too.
#pragma once

#include "store/probe.h"
#include "store/row_rules.h"

namespace session_store {

// What is to become of a session.
struct DirectUpdate {
	TimestampTz expire;
	Datum sess; // unless keeps_sess
	bool keeps_sess;
	Datum user_id; // unless keeps_user_id
	bool user_id_is_null;
	bool keeps_user_id;
};

// Updates the row that `probe` stands on, and moves it to another partition where its new expiry
// belongs there. False, and nothing changed, when that cannot be done this
// way: somebody else changed the row meanwhile, or the table has triggers, rules or constraints of
// its user's. The caller then runs the statement. ERROR when the caller may not update the table.
bool update_directly(Store *store, Relation table, Probe *probe, const DirectUpdate *update,
	TimestampTz now, int64 *version);

} // namespace session_store
