// The way to Redis.
//
// A push is conditional: Redis takes it only while it still holds what the batch had read. So a
// write there that came in between is never lost, and the sid is decided about anew.
#include "mirror/push.h"

#include "mirror/timestamps.h"

namespace session_store {

namespace {

// The text of a jsonb payload, or the bytes.
void copy_payload(Datum sess, Payload payload, MemoryContext kept, Push *push) {
	auto *bytes = DatumGetByteaPP(sess);
	MemoryContext scratch = MemoryContextSwitchTo(kept);
	if (payload == Payload::jsonb) {
		Jsonb *jsonb = DatumGetJsonbP(PointerGetDatum(bytes));
		StringInfoData text;
		initStringInfo(&text);
		(void)JsonbToCString(&text, &jsonb->root, static_cast<int>(VARSIZE(jsonb)));
		push->value = text.data;
		push->size = static_cast<size_t>(text.len);
	} else {
		const size_t size = VARSIZE_ANY_EXHDR(bytes);
		auto *copy = static_cast<char *>(palloc(size + 1));
		memcpy(copy, VARDATA_ANY(bytes), size);
		push->value = copy;
		push->size = size;
	}
	MemoryContextSwitchTo(scratch);
}

} // namespace

void prepare_push(MirrorRow *row, Payload payload, MemoryContext kept) {
	const core::Decision *decision = &row->decision;
	row->push = {};
	// A kept eviction is forgotten when the value is read.
	const bool settles = !row->evicted && !row->item->evicted;
	if (decision->action == core::Action::delete_redis) {
		row->push.wanted = row->push.removes = true;
		row->push.settles = settles;
		return;
	}
	if (decision->action != core::Action::write ||
		(decision->payload != core::Direction::to_redis &&
			decision->expiry != core::Direction::to_redis))
		return;
	row->push.wanted = true;
	row->push.expire =
		decision->expiry == core::Direction::to_postgres ? row->judged.expire : row->expire;
	row->push.settles = settles && is_whole_milliseconds(row->push.expire);
	// The expiry alone: what Redis holds is written again as it is.
	if (decision->payload == core::Direction::to_redis)
		copy_payload(row->sess, payload, kept, &row->push);
	else
		row->push.value = row->item->value.data(), row->push.size = row->item->value.size();
}

bool start_pushes(MirrorRow **rows, int count, FeedError *error) {
	auto *commands = static_cast<PushCommand *>(palloc(count * sizeof(PushCommand)));
	for (int i = 0; i < count; i++) {
		const Push *push = &rows[i]->push;
		commands[i] = {rows[i]->index, push->removes, {push->value, push->size},
			to_redis_milliseconds(push->expire), push->settles};
	}
	const bool started = feed_start_push(commands, count, error);
	pfree(commands);
	return started;
}

bool finish_pushes(int count, bool *changed, FeedError *error) {
	auto *outcomes = static_cast<PushOutcome *>(palloc(count * sizeof(PushOutcome)));
	const bool finished = feed_finish_pushes(outcomes, count, error);
	for (int i = 0; finished && i < count; i++)
		changed[i] = outcomes[i] != PushOutcome::done;
	pfree(outcomes);
	return finished;
}

} // namespace session_store
