// Who writes a session row.
#include "store/write_origin.h"

namespace session_store {

uint64 guarded_inserts = 0;

namespace {

// Triggers of users may call session functions within a write of ours: the last one counts.
constexpr int kMaxDepth = 32;

struct Write {
	Oid relation;
	WriteOrigin origin;
	bool user_id_is_settled;
	bool sid_is_free;
	SubTransactionId began_in;
};

Write writes[kMaxDepth];
int depth = 0;
bool callbacks_registered = false;

void reset_at_end(XactEvent, void *) {
	depth = 0;
}

// Later subtransactions have higher ids: what began in the aborted one or within it is over.
void reset_at_abort(SubXactEvent event, SubTransactionId aborted, SubTransactionId, void *) {
	while (event == SUBXACT_EVENT_ABORT_SUB && depth > 0 && writes[depth - 1].began_in >= aborted)
		depth--;
}

const Write *current_write(Oid relation) {
	return depth > 0 && writes[depth - 1].relation == relation ? &writes[depth - 1] : nullptr;
}

} // namespace

void begin_write(Oid relation, WriteOrigin origin, bool user_id_is_settled, bool sid_is_free) {
	if (!callbacks_registered) {
		RegisterXactCallback(reset_at_end, nullptr);
		RegisterSubXactCallback(reset_at_abort, nullptr);
		callbacks_registered = true;
	}
	if (depth == kMaxDepth)
		ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("writes of sessions are nested too deeply")));
	writes[depth++] = {
		relation, origin, user_id_is_settled, sid_is_free, GetCurrentSubTransactionId()};
}

void end_write() {
	Assert(depth > 0);
	depth--;
}

WriteOrigin write_origin(Oid relation) {
	const Write *write = current_write(relation);
	return write == nullptr ? WriteOrigin::application : write->origin;
}

bool user_id_is_settled(Oid relation) {
	const Write *write = current_write(relation);
	return write != nullptr && write->user_id_is_settled;
}

bool sid_is_free(Oid relation) {
	const Write *write = current_write(relation);
	return write != nullptr && write->sid_is_free;
}

} // namespace session_store
