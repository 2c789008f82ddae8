// Writes to Redis that happen only while what they replace is exactly as it was read.
//
// By a script, pipelined: value and expiry are compared and written in one step. Of a write that
// leaves one of them as it is that one is not compared, and keeps what it is by then. Where Redis
// lets us run no script, by WATCH, a look, and MULTI; then a key that changes meanwhile makes its
// whole group count as changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "redis/connection.h"
#include "redis/feed_types.h"
#include "redis/script.h"

#include "core/cpp_only.h"

namespace session_store::redis {

class ConditionalWriter {
public:
	// Redis before 7.0 has no PEXPIRETIME; before 6.2 it has no SET with PXAT either.
	ConditionalWriter(Connection &connection, bool has_pexpiretime);

	// Whether start() can send; prepare() sees to that as far as Redis lets it. Nothing may be
	// under way then.
	bool ready() const noexcept { return script_.ready(); }
	void prepare() { script_.load(connection_); }

	// See Feed::start_push(). Puts one write behind what is to be sent, or keeps it for finish().
	// An expiry at or before now_ms means remove. Returns whether receive() will have its answer.
	bool start(
		std::span<const Item> items, const Push &push, PushResult *result, std::int64_t now_ms);
	// Bytes that are under way.
	std::size_t bytes() const noexcept { return bytes_; }
	// Reads the answers of the next `count` writes that were sent.
	void receive(std::size_t count);
	// Once all is received: does what is left, with at most max_bytes under way unless one write
	// alone is larger, and says why Redis refused the first that it refused.
	void finish(std::string *refusal, std::size_t max_bytes);

private:
	// One write that is still to be done.
	struct Task {
		const Item *item;
		const Push *push;
		PushResult *result;
		bool remove;

		bool value_stays() const;
		std::size_t bytes() const;
	};
	using Tasks = std::vector<Task>;

	void take_answer(const Task &task, const redisReply &reply);
	Tasks by_script(const Tasks &tasks);
	void by_watch(std::span<const Task> group);
	void append_call(const Task &task);
	std::vector<Task> look(std::span<const Task> group);
	std::size_t append_commands(const Task &task);
	void exec(const std::vector<Task> &tasks);
	bool expiry_stays(const Task &task) const;
	static bool holds_as_read(const Task &task, const redisReply &value);
	bool expires_as_read(const Task &task, std::int64_t expiry) const;
	void refuse(const redisReply &reply);
	void send(const Tasks &tasks);

	Connection &connection_;
	bool has_pexpiretime_;
	Script script_;
	std::deque<Task> sent_;
	Tasks left_;            // to be done by finish()
	std::size_t bytes_ = 0; // of what is sent
	std::string refusal_;   // the first since the last finish()
};

} // namespace session_store::redis
