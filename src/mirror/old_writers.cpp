// The barrier at a change of phase.
//
// The mirror does not wait for old writers: it compares at once, and again when the last of them
// has ended. So a transaction that stays open for hours, or a prepared one, holds up nothing.
#include "mirror/old_writers.h"

extern "C" {
#include "storage/lock.h"
}

namespace session_store {

namespace {

VirtualTransactionId *noted = nullptr; // in TopMemoryContext
int noted_count = 0;

// ShareLock conflicts with every lock that a writer takes, and not with readers'.
VirtualTransactionId *writers(Oid relation, int *count) {
	LOCKTAG tag;
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relation);
	return GetLockConflicts(&tag, ShareLock, count);
}

bool is_among(VirtualTransactionId one, const VirtualTransactionId *many, int count) {
	for (int i = 0; i < count; i++)
		if (VirtualTransactionIdEquals(one, many[i]))
			return true;
	return false;
}

} // namespace

bool note_old_writers(Oid relation) {
	int count;
	const VirtualTransactionId *now = writers(relation, &count);
	if (noted != nullptr)
		pfree(noted);
	noted = static_cast<VirtualTransactionId *>(
		MemoryContextAlloc(TopMemoryContext, (count + 1) * sizeof(VirtualTransactionId)));
	memcpy(noted, now, count * sizeof(VirtualTransactionId));
	noted_count = count;
	return count > 0;
}

bool old_writers_have_ended(Oid relation) {
	if (noted_count == 0)
		return false;
	int count;
	const VirtualTransactionId *now = writers(relation, &count);
	for (int i = 0; i < noted_count; i++)
		if (is_among(noted[i], now, count))
			return false;
	noted_count = 0;
	return true;
}

} // namespace session_store
