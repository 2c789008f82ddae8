// The lease on one prefix of one database: two clusters never mirror the same sessions.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "redis/connection.h"
#include "redis/script.h"

#include "core/cpp_only.h"

namespace session_store::redis {

// Keys under this are never mirrored, whatever the prefix.
inline constexpr std::string_view kLeaseKeys = "session_store:lease:";

class Lease {
public:
	Lease(int database, std::string_view prefix);

	// Takes or renews it for `holder`, which is not empty; false when another holds it, who goes to
	// *other. Throws Error kind refused when Redis refuses it and the connection is as good as
	// before.
	bool take(Connection &connection, std::string_view holder, std::chrono::milliseconds ttl,
		std::string *other);
	// Gives it back, unless another holds it.
	void release(Connection &connection, std::string_view holder);

	const std::string &key() const noexcept { return key_; }
	// After a new connection, which may have other rights.
	void reset();

private:
	std::string change(Connection &connection, std::string_view holder, std::string_view ttl);
	std::string change_watched(
		Connection &connection, std::string_view holder, std::string_view ttl);

	std::string key_;
	Script script_;
};

} // namespace session_store::redis
