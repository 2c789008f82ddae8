// What the store of this mirror is now: its settings, its table and what is asked of it.
#include "mirror/old_writers.h"
#include "mirror/pending.h"
#include "mirror/report.h"
#include "worker/mirror_process.h"

extern "C" {
#include "storage/ipc.h"
}

namespace session_store {

namespace {

// How long a mirror that is not wanted any more goes on to copy what is pending.
constexpr int kLeaveMs = 10000;

constexpr int64 kCoalesceRows = 5000;
constexpr int64 kCountInterval = 5000 * kMicrosecondsPerMs;
constexpr int64 kCoalesceInterval = 10000 * kMicrosecondsPerMs;

constexpr const char *kPurge = "DELETE FROM session_store.outbox WHERE store_id = $1";

struct Refresh {
	bool found;
	StoreSettings store;
	Oid file;
	bool old_writers_ended;
	Backlog backlog;
};

void read_first(const Refresh *refresh) {
	mirror->old_writers = note_old_writers(refresh->store.relation);
	read_memory(refresh->store.id, &mirror->memory);
	mirror->evictions = count_evictions(refresh->store.id);
}

// Counting takes from the time of copying.
void count_unread(Refresh *refresh, TimestampTz now) {
	const OutboxReader *reader = &mirror->outbox;
	if (!reader->behind)
		return;
	refresh->backlog = mirror->backlog;
	if (now - mirror->counted_at < kCountInterval)
		return;
	mirror->counted_at = now;
	refresh->backlog = count_backlog(refresh->store.id, reader->next_xid, reader->next_seq);
}

// What waits in the outbox is said. While Redis is away it grows, and what is redundant goes.
void look_at_backlog(Refresh *refresh) {
	FeedState feed;
	feed_state(&feed);
	const TimestampTz now = GetCurrentTimestamp();
	if (feed.connected) {
		count_unread(refresh, now);
		return;
	}
	refresh->backlog = count_backlog(refresh->store.id, 0, 0);
	if (mirror->away_since == 0 || refresh->backlog.rows < kCoalesceRows ||
		now - mirror->coalesced_at < kCoalesceInterval)
		return;
	mirror->coalesced_at = now;
	if (coalesce_outbox(refresh->store.id, mirror->away_since))
		reset_outbox_reader(&mirror->outbox); // which knew what is gone now
}

void read_state(void *argument) {
	auto *refresh = static_cast<Refresh *>(argument);
	refresh->found = read_store(mirror->target.store.id, &refresh->store);
	if (!refresh->found)
		return;
	const Oid relation = refresh->store.relation;
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	if (HeapTupleIsValid(tuple)) {
		refresh->file = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relfilenode;
		ReleaseSysCache(tuple);
	}
	look_at_backlog(refresh);
	if (!mirror->known)
		read_first(refresh);
	else if (mirror->old_writers)
		refresh->old_writers_ended = old_writers_have_ended(relation);
}

bool same_redis_settings(const StoreSettings *a, const StoreSettings *b) {
	return a->has_redis_server == b->has_redis_server &&
		strcmp(NameStr(a->redis_server), NameStr(b->redis_server)) == 0 &&
		strcmp(a->redis_prefix, b->redis_prefix) == 0;
}

bool deletes_answered(const StoreSettings *before, const StoreSettings *after) {
	return holds_deletes(&mirror->comparison) &&
		before->max_delete_percent != after->max_delete_percent;
}

void begin_following(const Refresh *refresh) {
	mirror->known = true;
	// Of a Redis that nobody remembers nothing is known of what went before.
	mirror->continuity_broken = !mirror->memory.has_identity;
	reset_outbox_reader(&mirror->outbox);
	mirror->file = refresh->file;
	mirror->target.store = refresh->store;
}

void take_over(const Refresh *refresh) {
	const StoreSettings *before = &mirror->target.store;
	const StoreSettings *after = &refresh->store;
	if (!same_redis_settings(before, after))
		drop_feed();
	// What is gone with the table's file was not ended.
	if (mirror->file != refresh->file)
		mirror->continuity_broken = true;
	if (deletes_answered(before, after) || refresh->old_writers_ended ||
		mirror->file != refresh->file)
		mirror->comparison_wanted = true;
	mirror->old_writers = mirror->old_writers && !refresh->old_writers_ended;
	mirror->file = refresh->file;
	mirror->backlog = refresh->backlog;
	mirror->target.store = *after;
}

// The phase is over. What was accepted in it is still copied, by the rules that held then.
void begin_leaving() {
	FeedState feed;
	feed_state(&feed);
	if (!feed.connected)
		leave_mirror();
	if (mirror->leaving)
		return;
	mirror->leaving = true;
	mirror->leaves_at = after_ms(kLeaveMs);
	mirror->barrier = {0, GetCurrentTimestamp(), false};
}

void purge_outbox(void *) {
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(mirror->target.store.id)};
	SPI_connect();
	if (SPI_execute_with_args(kPurge, 1, types, values, nullptr, false, 0) < 0)
		elog(ERROR, "could not empty the outbox");
	SPI_finish();
}

} // namespace

void leave_mirror() {
	WorkerFailure failure;
	if (mirror->leaving &&
		!try_worker_transaction("session_store mirror: leaving", purge_outbox, nullptr, &failure))
		ereport(LOG,
			(errmsg("mirror of store \"%s\": %s", NameStr(mirror->target.store.name),
				failure.message)));
	give_up_lease();
	feed_discard();
	proc_exit(0);
}

void refresh_if_due() {
	const TimestampTz now = GetCurrentTimestamp();
	if (now - mirror->refreshed_at < kRefreshMs * kMicrosecondsPerMs && now >= mirror->refreshed_at)
		return;
	mirror->refreshed_at = now;
	Refresh refresh = {};
	WorkerFailure failure;
	if (!try_worker_transaction(
			"session_store mirror: reading settings", read_state, &refresh, &failure)) {
		if (!is_passing(&failure))
			set_failure(&mirror->target.store, MirrorState::failing, failure.message);
		return;
	}
	if (!refresh.found || !store_is_bound_here(&refresh.store))
		leave_mirror();
	if (mirror->leaving && is_dual(refresh.store.phase)) {
		// Another dual phase, whose changes are not this mirror's to forget.
		mirror->leaving = false;
		leave_mirror();
	}
	if (!mirror->known && is_dual(refresh.store.phase))
		begin_following(&refresh);
	else if (is_dual(refresh.store.phase))
		take_over(&refresh);
	else if (mirror->known)
		begin_leaving();
	else
		leave_mirror();
}

} // namespace session_store
