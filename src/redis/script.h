// A Lua script in Redis: by its digest, by its text where SCRIPT LOAD is refused, or not at all.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "redis/connection.h"

#include "core/cpp_only.h"

namespace session_store::redis {

class Script {
public:
	// The text must outlive the script. It has one key.
	explicit Script(std::string_view text) : text_(text) {}

	// Whether Redis lets us run scripts, as far as is known.
	bool usable() const noexcept { return way_ != Way::none; }
	// Whether it can be called without load().
	bool ready() const noexcept {
		return way_ == Way::text || (way_ == Way::digest && !digest_.empty());
	}
	// Sees that Redis has the script, as far as it lets us; nothing may be under way.
	void load(Connection &connection);
	// Puts one call behind the commands not sent yet.
	void append(Connection &connection, std::string_view key,
		std::initializer_list<std::string_view> arguments);
	// Whether this answer says that the script has not been run and is to be called again, after
	// load(), or in another way when usable() says so.
	bool not_run(const redisReply &reply);
	// Calls it and waits; null when scripts are not usable.
	ReplyPtr run(Connection &connection, std::string_view key,
		std::initializer_list<std::string_view> arguments);

private:
	enum class Way : std::uint8_t { digest, text, none };

	std::string_view text_;
	Way way_ = Way::digest;
	std::string digest_; // empty: not loaded
	bool forgotten_ = false;
	std::vector<std::string_view> call_; // scratch of append()
};

// The code word that says why Redis refused to write: of an error reply that a script passes on
// the one inside.
std::string_view refusal_code(const redisReply &reply) noexcept;

// Whether the error says that Redis as a whole is not there for us now, rather than that it refuses
// this command.
bool is_outage(const redisReply &reply) noexcept;

} // namespace session_store::redis
