// Reads many keys, value and absolute expiry together, in bounded memory: all under a prefix, some
// of them at random, or those that are named.
//
// Requests are sent ahead: while the caller looks at one group of keys, Redis works at the next.
// Sizes are asked first, so that one group brings at most some megabytes, unless one value is
// larger; of a value larger than the limit only the size is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "redis/connection.h"
#include "redis/feed.h"

#include "core/cpp_only.h"

namespace session_store::redis {

class KeyReader {
public:
	struct Limits {
		std::size_t max_value = std::size_t{255} << 20;
		std::size_t group_bytes = std::size_t{4} << 20;
	};

	// The connection must outlive the reader and carries nothing else meanwhile.
	KeyReader(Connection &connection, std::string prefix, Limits limits);
	KeyReader(Connection &connection, std::string prefix)
		: KeyReader(connection, std::move(prefix), Limits()) {}

	// What to read; to be called while nothing is under way.
	void start_scan();
	// Every key when the database has no more than `count`, as far as Redis says how many it has;
	// else about that many of places chosen at random, fewer where keys under the prefix are rare.
	void start_sample(std::size_t count);
	void add(std::string_view sid);

	// The next group, perhaps empty, in any order, a key perhaps more than once; false when there
	// is nothing more. Items are valid until the next call. A key that was SCANned and is gone by
	// now comes as absent.
	bool next(std::span<const Item> *items);

	// Keys under the prefix that SCAN has named so far.
	std::uint64_t scanned() const noexcept { return scanned_; }

private:
	struct Group {
		std::vector<std::string> keys;
		std::vector<std::uint64_t> sizes;
	};

	void send();
	void send_scan();
	void send_sizes();
	void send_values();
	void receive();
	void receive_scan();
	void receive_sizes();
	void receive_exec(std::size_t queued);
	void receive_values();
	void split(Group &&group);
	void set_item(
		Item *item, const redisReply *value, const redisReply &expiry, std::int64_t now_ms) const;
	bool wants_scan() const noexcept;

	Connection &connection_;
	std::string prefix_;
	std::string pattern_;
	Limits limits_;
	bool has_pexpiretime_ = false;

	// SCAN: from one cursor to the end, or a page at each of some cursors.
	std::deque<std::string> cursors_;
	bool to_the_end_ = false;
	std::size_t sample_left_ = 0;
	std::uint64_t scanned_ = 0;

	std::vector<std::string> named_; // added, not yet in a group
	std::deque<Group> unsized_;      // sizes not asked yet
	std::deque<Group> ready_;        // to be read
	bool scan_sent_ = false;
	bool sizes_sent_ = false;
	bool values_sent_ = false;
	Group sizing_;
	Group reading_;
	std::vector<Item> items_;
	Group shown_;    // what the items point into
	ReplyPtr reply_; // and their values
};

// Keys under the prefix, by a SCAN of all of them.
std::uint64_t count_keys(Connection &connection, std::string_view prefix);

} // namespace session_store::redis
