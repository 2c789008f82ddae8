// The change feed of one store: which keys changed, and what they hold now.
//
// Redis' client tracking in broadcast mode, redirected to its own connection S, says which keys
// changed. That is a hint, never data: hints go into a dirty set, and fetch() reads key by key,
// value and absolute expiry in one transaction, over connection R. One reader, one order. Whatever
// may have lost a hint (a new connection, a flush, a swap, an overrun) shows in gap(): then a
// comparison is needed, which puts every key of Redis, and every sid of PostgreSQL that the SCAN
// did not report, into the same dirty set. Nothing is ever deleted because a SCAN did not see it.
//
// A turn of the worker:
//     if (!feed.connected()) feed.connect();                // Error: back off, try again
//     if (feed.gap() && !feed.comparing()) feed.begin_comparison();
//     if (feed.scanning()) feed.scan_step();
//     for (sids of PostgreSQL, once !scanning()) if (!feed.seen(sid)) feed.mark(sid);
//     feed.end_comparison();                                 // when that walk is over
//     items = feed.fetch(n); apply in one transaction; feed.put_back(those skipped); feed.commit();
//     if (nothing to do) feed.wait(naptime);
// Each method returns, or throws redis::Error or std::bad_alloc. After an Error the connections are
// closed, connected() is false, nothing dirty is lost, and what was in flight stays in flight until
// commit() or put_back_all(). No method calls back but for Waiter::wait.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/dirty_set.h"
#include "core/echoes.h"
#include "core/sid_filter.h"
#include "redis/conditional_writer.h"
#include "redis/connection.h"
#include "redis/endpoint.h"
#include "redis/announcements.h"
#include "redis/error.h"
#include "redis/feed_types.h"
#include "redis/lease.h"
#include "redis/remote_clock.h"
#include "redis/server_info.h"
#include "redis/waiter.h"

#include "core/cpp_only.h"

namespace session_store::redis {

class Feed {
public:
	using Clock = std::chrono::steady_clock;

	// The waiter must outlive the feed. An empty prefix means every key of the database.
	Feed(Endpoint endpoint, std::string prefix, Waiter &waiter, FeedLimits limits = {});
	~Feed();
	Feed(const Feed &) = delete;
	Feed &operator=(const Feed &) = delete;

	// Drops what connections there are and makes new ones, tracking acknowledged, Redis not
	// loading. Sets kGapConnected, and what else it finds out about the time in between.
	void connect();
	void disconnect() noexcept;
	bool connected() const noexcept { return subscriber_ != nullptr && reader_ != nullptr; }
	// The Redis of the last connect(); fresh to a second while connected.
	const ServerInfo &server() const noexcept { return server_; }

	// Takes in every hint that is here, without waiting; keeps S alive with PINGs.
	void pump();
	// Waits for hints, a latch or the timeout, whichever comes first, and pumps. Keeps to the PING
	// and INFO intervals meanwhile, so it may return timeout early.
	Wake wait(std::chrono::milliseconds timeout);

	// Why a comparison is needed, kGapNone when it is not. Stays until begin_comparison().
	unsigned gap() const noexcept;
	// What the comparison under way answers; also once it has begun to be applied.
	unsigned answering() const noexcept { return answering_; }

	// For the next process, or the next connection, to know whether it is the same Redis. What is
	// assumed before the first connect() counts as the last one seen.
	Identity identity() const;
	void assume(const Identity &identity);

	// Whether continuity still holds: S is drained behind two PINGs, and R is asked who it is.
	// False when a gap that breaks it waits to be answered. What was read before this returns true
	// was read from the Redis that has been followed.
	bool confirm();
	// Redis' clock minus this one's, by the quickest of the last answers to TIME; nothing when
	// Redis does not let us ask.
	std::optional<std::chrono::microseconds> clock_difference() const;

	// How changes are noticed, and why not by tracking; as of the last connect().
	Mode mode() const noexcept { return mode_; }
	const std::string &mode_reason() const noexcept { return mode_reason_; }
	// Whether an eviction is told from an end.
	bool evictions_known() const noexcept;

	// Starts a SCAN from the beginning and returns the gap it answers; a gap noticed from here on
	// needs another comparison. A comparison that is not ended, because another one begins or the
	// connection is lost, leaves its gap to the next. Call fetch() and scan_step() in any order.
	unsigned begin_comparison();
	// One SCAN call: its keys are dirty afterwards. Does nothing once finished, nor while more than
	// scan_backlog keys are dirty. Returns whether the SCAN goes on.
	bool scan_step();
	bool scanning() const noexcept { return phase_ == Phase::scanning; }
	// From begin_comparison() to end_comparison() or the loss of the connection.
	bool comparing() const noexcept { return phase_ != Phase::idle; }
	// Scans once more within the comparison, which keeps what it has met.
	void rescan();
	// Whether the comparison under way has met the sid, in its SCAN or by note_seen(). False when
	// in doubt; only once the SCAN has ended does it say what Redis does not have.
	bool seen(std::string_view sid) const noexcept;
	void note_seen(std::string_view sid);
	// Makes the key of this sid dirty, as a candidate for having ended.
	void mark(std::string_view sid);
	// The walk over PostgreSQL is done and every candidate marked: the gap is answered, once what
	// is dirty has been committed. Frees the memory of the SCAN. Does nothing while scanning().
	void end_comparison() noexcept;

	// Reads at most max (and at most kMaxFetch) dirty keys, fewer when they are large, and without
	// those that turn out to be echoes of what was pushed; empty when nothing is dirty, or all of
	// it was that. They are in flight until commit(). What an earlier fetch() left in flight
	// is put back first. When it throws, what it had taken is dirty again.
	std::span<const Item> fetch(std::size_t max);
	// What the last fetch() returned, until commit() or put_back_all().
	std::span<const Item> items() const noexcept { return current_.items; }
	// Asks for the batch after the one in flight, so that Redis reads it while the first is
	// applied; the next fetch() returns it. None of its keys is in flight.
	void prefetch(std::size_t max);
	// The index-th item of the last fetch() is dirty again, behind the others.
	void put_back(std::size_t index);
	void put_back_all();
	// The rest of the batch is copied. Frees the values.
	void commit();
	// Begins to write to Redis what is asked of items of the last fetch(), each only if its key is
	// as it was read. Pipelined, with few megabytes under way; what the pushes show must stay until
	// finish_pushes(), which comes before commit() or put_back_all().
	void start_push(std::span<const Push> pushes);
	// results[i] says what became of the i-th push since the last call. Of what Redis refuses the
	// first reason goes to *refusal, a code such as OOM or NOPERM.
	void finish_pushes(std::span<PushResult> results, std::string *refusal);

	// Takes or renews the lease on this prefix for so long; false when another holds it, who goes
	// to *other. Error kind refused when Redis does not let us; the connections stay.
	bool lease(std::string_view holder, std::chrono::milliseconds ttl, std::string *other);
	void release_lease(std::string_view holder);

	std::size_t dirty() const noexcept { return dirty_.size(); }
	std::size_t in_flight() const noexcept { return dirty_.in_flight(); }
	// How long the oldest change has waited to be committed.
	std::chrono::milliseconds oldest_age() const;

	// The barrier: everything Redis had accepted when start_barrier() was called has been hinted at
	// once barrier_passed(), and has been committed once caught_up(). Two PINGs, the second after
	// the first PONG, since Redis may answer one before a hint of the same loop. Lost with the
	// connection. Means nothing while gap() or comparing().
	void start_barrier();
	bool barrier_passed() const noexcept { return barrier_ == Barrier::passed; }
	bool caught_up() const;

	const FeedCounters &counters() const noexcept { return counters_; }

private:
	enum class Phase : std::uint8_t { idle, scanning, walking };
	enum class Barrier : std::uint8_t { none, first, second, passed };

	// Runs fn; whatever it throws closes the connections, which may be in the middle of a reply,
	// but for a refusal, which is a whole one.
	template <typename Fn>
	auto guarded(Fn &&fn) {
		try {
			return fn();
		} catch (const Error &error) {
			if (error.kind() != ErrorKind::refused)
				disconnect();
			throw;
		} catch (...) {
			disconnect();
			throw;
		}
	}

	// What R has been asked and has not answered yet, in this order.
	enum class Pending : std::uint8_t { scan, batch, pushes };
	struct Asked {
		Pending what;
		std::size_t count;
	};
	// A write that was begun.
	struct Begun {
		Push push;
		PushResult result;
	};
	// Keys that were read, and what owns what the items show.
	struct Batch {
		std::vector<Item> items;
		std::vector<ReplyPtr> replies;

		void release() noexcept {
			items.clear();
			replies.clear();
		}
	};

	// feed.cpp: connections, hints, barrier
	void require_connected() const;
	void open_reader(const std::string &run_id);
	void note_gap(unsigned reason) noexcept;
	void drain();
	void handle_invalidation(const redisReply &payload);
	void handle_pong(std::string_view token);
	void hint(std::string_view key, Clock::time_point now);
	void hint_evicted(std::string_view key, Clock::time_point now);
	void send_ping();
	bool is_ours(std::string_view key) const noexcept;
	bool awaits(Pending what) const;
	void settle();
	Connection &settled_reader();
	void note_pushed();
	void give_up_pushes() noexcept;
	static core::HashSeed random_seed();

	// feed_subscribe.cpp: S, and how changes are noticed
	std::string open_subscriber();
	std::string track();
	void check_tracking(std::string_view client_id);
	void follow_notifications();
	void refresh_announcements();
	std::string subscribe(std::string_view command, const std::string &channel);
	void handle_message(const redisReply &message);
	void handle_notification(std::string_view channel, std::string_view event);

	// feed_scan.cpp: the comparison
	bool scan_has_room() const;
	void send_scan();
	void receive_scan();
	void finish_scan();

	// feed_health.cpp: who Redis is, and what its clock says
	ServerInfo read_info(std::size_t sections);
	void meet_server(const std::string &run_id);
	void poll_if_due();
	void poll_now();
	void poll(std::size_t sections);
	void wait_for_pong();
	std::chrono::milliseconds until_chores() const;

	// feed_fetch.cpp: reading batches
	bool prepare(std::size_t max);
	void send_batch();
	void forget_read_ahead();
	std::size_t exchange_keys() const;
	void receive_batch();
	void receive_exchange(std::size_t from, std::size_t count);
	void read_long_values();
	void ask_sizes(std::span<const std::size_t> indexes);
	std::size_t fit_batch() const;
	std::size_t exchange_size(std::span<const std::size_t> indexes) const;
	void read_exchange(std::span<const std::size_t> indexes);
	void read_head(std::size_t index);
	void append_expiry_read(std::string_view key);
	void ask_types();
	void see_evictions();
	void drop_echoes();
	bool is_echo(std::size_t index);
	ReplyPtr read_exec(std::size_t queued);
	std::size_t read_cost(std::size_t index) const;
	bool is_too_large(std::size_t index) const { return sizes_[index] > limits_.max_value; }

	Endpoint endpoint_;
	std::string prefix_;
	std::string pattern_;
	Waiter &waiter_;
	FeedLimits limits_;

	std::unique_ptr<Connection> subscriber_; // S
	std::unique_ptr<Connection> reader_;     // R
	bool has_pexpiretime_ = true;            // Redis 7.0; else TIME and PTTL
	ServerInfo server_;                      // of the last connect() or poll
	bool seen_server_ = false;

	Mode mode_ = Mode::comparison_only;
	std::string mode_reason_;
	Announcements announced_;
	bool evictions_subscribed_ = false;
	bool evicted_seen_ = false;
	Clock::time_point connected_at_{};
	unsigned polls_ = 0; // since then

	core::DirtySet dirty_;
	core::Echoes echoes_;
	unsigned gap_ = kGapNone;
	unsigned answering_ = kGapNone; // what the comparison under way answers

	Phase phase_ = Phase::idle;
	std::string cursor_;
	bool scan_over_ = false;
	std::optional<core::SidFilter> seen_;

	std::uint64_t ping_number_ = 0; // of the last PING sent
	std::uint64_t pong_number_ = 0; // of the last PONG received
	Clock::time_point ping_sent_{};
	Clock::time_point polled_{};
	Barrier barrier_ = Barrier::none;
	std::uint64_t barrier_ping_ = 0;
	Clock::time_point barrier_time_{};

	RemoteClock clock_;
	std::optional<ConditionalWriter> writer_; // on R
	Lease lease_;

	std::deque<Asked> pending_;
	std::deque<Begun> pushes_;         // until finish_pushes()
	Batch current_;                    // in flight
	Batch next_;                       // of the prepared keys, when it has been read
	std::vector<std::uint64_t> sizes_; // of what is in flight; of a long value as STRLEN says it
	FeedCounters counters_;
};

} // namespace session_store::redis
