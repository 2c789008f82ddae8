// The mirror's connection to Redis: options, lease, and what goes wrong with it.
#include "core/schedule.h"
#include "mirror/latch_waiter.h"
#include "mirror/redis_options.h"
#include "mirror/report.h"
#include "worker/mirror_process.h"

extern "C" {
#include "access/transam.h"
#include "access/xlog.h"
#include "storage/fd.h"
}

namespace session_store {

namespace {

constexpr int kConnections = 2;
constexpr int kLeaseMs = 15000;
constexpr int kLeaseRenewalMs = 4000;
constexpr int kLeaseRetryMs = 2000;
constexpr size_t kHolderBytes = 96;

bool options_changed = false;

void on_options_change(Datum, int, uint32) {
	options_changed = true;
}

void read_options(void *argument) {
	open_target(&mirror->target, AccessShareLock);
	const StoreSettings *store = &mirror->target.store;
	if (!store->has_redis_server)
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("store \"%s\" has no redis_server", NameStr(store->name))));
	MemoryContext transaction = MemoryContextSwitchTo(mirror->turn);
	load_redis_options(
		NameStr(store->redis_server), mirror->target.owner, static_cast<RedisOptions *>(argument));
	MemoryContextSwitchTo(transaction);
}

// Makes the feed fit the options as they are now. False when it cannot be made.
bool configure() {
	options_changed = false;
	RedisOptions options = {};
	WorkerFailure failure;
	if (!try_worker_transaction(
			"session_store mirror: reading options", read_options, &options, &failure)) {
		drop_feed();
		mirror->feed_failures++;
		set_failure(&mirror->target.store, MirrorState::failing, failure.message);
		return false;
	}
	const FeedOptions feed = feed_options(&options, mirror->target.store.redis_prefix);
	FeedError error;
	bool made = false;
	const bool configured = feed_configure(&feed, latch_waiter(), &made, &error);
	forget_password(&options);
	if (!configured) {
		mirror->feed_failures++;
		set_failure(&mirror->target.store, MirrorState::failing, error.message);
	}
	if (configured && made) {
		// What the old feed had found dirty is lost.
		reset_outbox_reader(&mirror->outbox);
		if (mirror->memory.has_identity && !feed_assume(&mirror->memory.identity, &error)) {
			set_failure(&mirror->target.store, MirrorState::failing, error.message);
			return false;
		}
	}
	return configured;
}

void holder_name(char *name) {
	snprintf(name, kHolderBytes, UINT64_FORMAT "/%u/%d", GetSystemIdentifier(), MyDatabaseId,
		mirror->target.store.id);
}

// False when another mirror has the lease, or the connection was lost.
bool take_lease() {
	char holder[kHolderBytes];
	char other[kHolderBytes];
	holder_name(holder);
	bool held = false;
	FeedError error;
	if (!feed_lease(holder, kLeaseMs, &held, other, sizeof(other), &error)) {
		note_feed_error(&error);
		return false;
	}
	mirror->leased_at = GetCurrentTimestamp();
	if (held)
		return true;
	drop_feed();
	char words[kReportTextBytes];
	snprintf(words, sizeof(words),
		"paused: the mirror of another cluster or database (%s) follows this Redis and prefix; end "
		"it there, or give this store a redis_prefix of its own",
		other);
	set_state(MirrorState::paused, words);
	return false;
}

} // namespace

void watch_options() {
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, on_options_change, 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, on_options_change, 0);
	for (int i = 0; i < kConnections; i++)
		ReserveExternalFD();
}

void drop_feed() {
	feed_discard();
	abandon_comparison(&mirror->comparison);
}

void note_feed_error(const FeedError *error) {
	abandon_comparison(&mirror->comparison);
	mirror->barrier.pinged = false;
	if (mirror->away_since == 0)
		mirror->away_since = U64FromFullTransactionId(ReadNextFullTransactionId());
	if (error->kind == FeedFailure::interrupted)
		return;
	mirror->feed_failures++;
	set_failure(&mirror->target.store,
		error->kind == FeedFailure::not_ready ? MirrorState::waiting : MirrorState::failing,
		error->message);
	// The connection is as good as before: nothing else keeps the same from being asked at once.
	if (error->kind == FeedFailure::refused) {
		publish(true);
		worker_wait(Min(mirror_backoff_ms(mirror->feed_failures), kLongestPauseMs));
	}
}

void connect_mirror() {
	abandon_comparison(&mirror->comparison);
	mirror->barrier.pinged = false;
	if (mirror->feed_failures == 0)
		set_state(MirrorState::connecting, "connecting to Redis");
	publish(true);
	// What was lost once is tried again at once.
	if (mirror->feed_failures > 1)
		worker_wait(Min(mirror_backoff_ms(mirror->feed_failures - 1), kLongestPauseMs));
	bool connected = configure();
	bool leased = false;
	if (connected) {
		FeedError error;
		connected = feed_connect(&error);
		if (!connected)
			note_feed_error(&error);
		else
			leased = take_lease();
	}
	finish_wait();
	publish(true);
	if (leased) {
		count_connect();
		mirror->away_since = 0;
	} else if (connected)
		worker_wait(kLeaseRetryMs);
}

void reconfigure_if_needed() {
	if (options_changed)
		(void)configure();
}

bool keep_lease() {
	const TimestampTz now = GetCurrentTimestamp();
	if (now - mirror->leased_at < kLeaseRenewalMs * kMicrosecondsPerMs && now >= mirror->leased_at)
		return true;
	return take_lease();
}

void give_up_lease() {
	char holder[kHolderBytes];
	holder_name(holder);
	FeedError ignored;
	FeedState feed;
	feed_state(&feed);
	if (feed.connected)
		(void)feed_release_lease(holder, &ignored);
}

} // namespace session_store
