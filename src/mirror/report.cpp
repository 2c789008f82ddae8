// The report of this process's mirror.
#include "mirror/report.h"

#include "mirror/feed_link.h"
#include "mirror/rejects.h"

extern "C" {
#include "mb/pg_wchar.h"
}

namespace session_store {

namespace {

constexpr int64 kPublishInterval = 50000; // microseconds

MirrorReport report;
MirrorReport published;
TimestampTz published_at = 0;
char logged[kReportTextBytes] = "";
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

void fill_report(const Comparison *comparison) {
	FeedState feed;
	feed_state(&feed);
	report.lag_keys = feed.dirty + feed.in_flight;
	report.lag_milliseconds = report.lag_keys == 0 ? 0 : feed.oldest_ms;
	report.redis_sessions = feed.database_keys < 0 || feed.other_keys < 0
		? -1
		: Max(feed.database_keys - feed.other_keys, int64{0});
	report.rejects_over_limit = rejects_over_limit();
	report.hints += progress(feed.hints, last_feed.hints);
	noticed_gaps += progress(feed.gaps, last_feed.gaps);
	report.gaps = Max(noticed_gaps - 1, int64{0});
	last_feed = feed;
	report.reconnects = Max(connects - 1, int64{0});
	report.comparisons = comparison->finished;
	if (comparison->stage == ComparisonStage::idle)
		return;
	// Both sides are walked: Redis once, PostgreSQL for what Redis did not report.
	report.comparison_done = feed.scanned + comparison->walked;
	report.comparison_total =
		Max(feed.database_keys, feed.scanned) + Max(comparison->live, comparison->walked);
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
	if (strcmp(logged, report.last_error) == 0)
		return;
	copy_text(logged, message);
	ereport(LOG, (errmsg("mirror of store \"%s\": %s", NameStr(store->name), message)));
}

void note_recovery(const StoreSettings *store) {
	if (logged[0] != '\0')
		ereport(LOG, (errmsg("mirror of store \"%s\" follows Redis again", NameStr(store->name))));
	logged[0] = '\0';
}

void count_applied(int64 applied, int64 unchanged) {
	report.applied += applied;
	report.unchanged += unchanged;
}

void count_connect() {
	connects++;
}

void publish(int32 store_id, const Comparison *comparison, bool now) {
	fill_report(comparison);
	if (!now && !worth_publishing())
		return;
	publish_mirror_report(MyDatabaseId, store_id, &report);
	published = report;
	published_at = GetCurrentTimestamp();
}

} // namespace session_store
