// Who writes a session row.
#include "store/write_origin.h"

namespace session_store {

uint64 guarded_inserts = 0;

namespace {

struct CurrentWrite {
	Oid relation; // InvalidOid: none
	WriteOrigin origin;
	bool user_id_is_settled;
	SubTransactionId began_in;
};

CurrentWrite current = {InvalidOid, WriteOrigin::application, false, InvalidSubTransactionId};
bool callbacks_registered = false;

void reset_at_end(XactEvent, void *) {
	end_write();
}

// Later subtransactions have higher ids: one that a trigger of the user began and rolled back, by
// an EXCEPTION block say, leaves the write as it is.
void reset_at_abort(SubXactEvent event, SubTransactionId aborted, SubTransactionId, void *) {
	if (event == SUBXACT_EVENT_ABORT_SUB && aborted <= current.began_in)
		end_write();
}

} // namespace

void begin_write(Oid relation, WriteOrigin origin, bool user_id_is_settled) {
	if (!callbacks_registered) {
		RegisterXactCallback(reset_at_end, nullptr);
		RegisterSubXactCallback(reset_at_abort, nullptr);
		callbacks_registered = true;
	}
	current = {relation, origin, user_id_is_settled, GetCurrentSubTransactionId()};
}

void end_write() {
	current.relation = InvalidOid;
}

WriteOrigin write_origin(Oid relation) {
	return current.relation == relation ? current.origin : WriteOrigin::application;
}

bool user_id_is_settled(Oid relation) {
	return current.relation == relation && current.user_id_is_settled;
}

} // namespace session_store
