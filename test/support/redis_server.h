// A redis-server of the test's own, on a unix socket in a directory of its own.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "redis/connection.h"
#include "support/poll_waiter.h"

namespace session_store::test {

class RedisServer {
public:
	// Starts it and waits until it answers.
	explicit RedisServer(std::vector<std::string> options = {});
	~RedisServer();
	RedisServer(const RedisServer &) = delete;
	RedisServer &operator=(const RedisServer &) = delete;

	void start();
	void stop(); // kill -9: nothing is saved
	redis::Endpoint endpoint() const;
	pid_t pid() const { return pid_; }

	// Sends one command over a connection of its own and returns the reply.
	redis::ReplyPtr run(std::initializer_list<std::string_view> arguments);
	redis::Connection &client();

private:
	std::vector<std::string> options_;
	std::string directory_;
	pid_t pid_ = -1;
	PollWaiter waiter_;
	std::unique_ptr<redis::Connection> client_;
};

// A TCP port that nobody listens on.
int free_port();

} // namespace session_store::test
