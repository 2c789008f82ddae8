// The report of this process's mirror.
#include "mirror/report.h"

#include "mirror/feed_link.h"
#include "mirror/rejects.h"
#include "worker/mirror_process.h"

extern "C" {
#include "mb/pg_wchar.h"
}

namespace session_store {

namespace {

constexpr int64 kPublishInterval = 50000; // microseconds

MirrorReport report;
MirrorReport published;
TimestampTz published_at = 0;
// What was logged last, since all was well: failures may take turns.
constexpr int kRemembered = 4;
char logged[kRemembered][kReportTextBytes];
int logged_count = 0;
int64 connects = 0;
int64 noticed_gaps = 0; // the first connection is one
FeedState last_feed;    // when its counters were last taken over

void copy_text(char *to, const char *text) {
	const int length = pg_mbcliplen(text, static_cast<int>(strlen(text)), kReportTextBytes - 1);
	memcpy(to, text, length);
	to[length] = '\0';
}

// How far a counter of the feed has come; a new feed starts from 0.
int64 progress(int64 now, int64 before) {
	return now >= before ? now - before : now;
}

constexpr const char *mode_name(FeedMode mode) {
	switch (mode) {
	case FeedMode::tracking:
		return "tracking";
	case FeedMode::notifications:
		return "notifications";
	case FeedMode::comparison_only:
		break;
	}
	return "comparisons only";
}

void fill_feed(const FeedState *feed) {
	report.lag_keys = feed->dirty + feed->in_flight;
	report.lag_milliseconds = report.lag_keys == 0 ? 0 : feed->oldest_ms;
	report.redis_sessions = feed->database_keys < 0 || feed->other_keys < 0
		? -1
		: Max(feed->database_keys - feed->other_keys, int64{0});
	report.hints += progress(feed->hints, last_feed.hints);
	noticed_gaps += progress(feed->gaps, last_feed.gaps);
	report.gaps = Max(noticed_gaps - 1, int64{0});
	report.clock_known = feed->clock_known;
	report.clock_difference_ms = feed->clock_difference_us / kMicrosecondsPerMs;
	if (feed->connected)
		snprintf(report.mode, sizeof(report.mode), "%s%s%s", mode_name(feed->mode),
			feed->mode_reason[0] == '\0' ? "" : ": ", feed->mode_reason);
}

void fill_comparison(const Comparison *comparison, const FeedState *feed) {
	report.comparisons = comparison->finished;
	report.comparison_started_at = comparison->started_at;
	report.comparison_ended_at = comparison->ended_at;
	report.held_postgres = comparison->postgres.held ? comparison->postgres.wanted : 0;
	report.held_redis = comparison->redis.held ? comparison->redis.wanted : 0;
	if (!is_comparing(comparison))
		return;
	// Both sides are walked: Redis once, PostgreSQL for what Redis did not report.
	report.comparison_done = feed->scanned + comparison->walked;
	report.comparison_total =
		Max(feed->database_keys, feed->scanned) + Max(comparison->live, comparison->walked);
}

void fill_report() {
	FeedState feed;
	feed_state(&feed);
	fill_feed(&feed);
	last_feed = feed;
	report.rejects_over_limit = rejects_over_limit();
	report.reconnects = Max(connects - 1, int64{0});
	report.evictions_kept = mirror->evictions;
	report.copied_until = mirror->copied_until;
	report.outbox_keys = mirror->backlog.rows;
	report.outbox_oldest_ms = mirror->backlog.oldest == 0
		? 0
		: (GetCurrentTimestamp() - mirror->backlog.oldest) / kMicrosecondsPerMs;
	fill_comparison(&mirror->comparison, &feed);
}

bool worth_publishing() {
	return report.state != published.state || strcmp(report.detail, published.detail) != 0 ||
		(report.lag_keys == 0) != (published.lag_keys == 0) ||
		report.comparisons != published.comparisons ||
		GetCurrentTimestamp() - published_at >= kPublishInterval;
}

} // namespace

void set_state(MirrorState state, const char *words) {
	report.state = state;
	copy_text(report.detail, words);
}

void set_failure(const StoreSettings *store, MirrorState state, const char *message) {
	char words[kReportTextBytes];
	snprintf(words, sizeof(words), "%s: %s; it tries again by itself",
		state == MirrorState::waiting ? "waiting" : "failing", message);
	set_state(state, words);
	copy_text(report.last_error, message);
	report.last_error_at = GetCurrentTimestamp();
	for (const char *known : logged)
		if (strcmp(known, report.last_error) == 0)
			return;
	copy_text(logged[logged_count++ % kRemembered], message);
	ereport(LOG, (errmsg("mirror of store \"%s\": %s", NameStr(store->name), message)));
}

void note_recovery(const StoreSettings *store) {
	if (logged_count > 0)
		ereport(LOG, (errmsg("mirror of store \"%s\" follows Redis again", NameStr(store->name))));
	logged_count = 0;
	memset(logged, 0, sizeof(logged));
}

void count_work(const ApplyResult *result) {
	report.applied += result->applied;
	report.unchanged += result->unchanged;
	report.pushed += result->pushed;
	report.push_conflicts += result->conflicts;
}

void count_connect() {
	connects++;
}

void describe_state() {
	const Comparison *comparison = &mirror->comparison;
	const char *name = NameStr(mirror->target.store.name);
	char words[kReportTextBytes];
	FeedState feed;
	feed_state(&feed);
	if (!feed.connected || mirror->feed_failures > 0 || mirror->apply_failures > 0 ||
		mirror->compare_failures > 0)
		return;
	if (is_comparing(comparison) || feed.gap) {
		snprintf(words, sizeof(words), "copying: " INT64_FORMAT " keys of Redis read so far",
			feed.scanned);
		set_state(MirrorState::copying, words);
		return;
	}
	if (holds_deletes(comparison)) {
		const bool here = comparison->postgres.held;
		const Deletions *held = here ? &comparison->postgres : &comparison->redis;
		snprintf(words, sizeof(words),
			"paused: " INT64_FORMAT " of " INT64_FORMAT
			" live sessions are not in %s and none of them is "
			"deleted; call session_store.resync('%s', allow_mass_delete => true) to delete them%s",
			held->wanted, held->live, here ? "Redis" : "PostgreSQL", name,
			here ? ", or refill_redis => true to restore them" : "");
		set_state(MirrorState::paused, words);
	} else {
		set_state(MirrorState::in_sync, "in sync");
	}
	note_recovery(&mirror->target.store);
}

void publish(bool now) {
	fill_report();
	if (!now && !worth_publishing())
		return;
	publish_mirror_report(MyDatabaseId, mirror->target.store.id, &report);
	published = report;
	published_at = GetCurrentTimestamp();
}

} // namespace session_store
