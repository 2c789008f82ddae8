// The only way in which the Redis side waits: the worker fills it with its latch, a test with poll.
#pragma once

#include <chrono>
#include <cstdint>

namespace session_store::redis {

enum class Wake : std::uint8_t {
	ready,       // the socket can be read (or written, when asked)
	timeout,     // the time is over
	interrupted, // stop waiting: somebody wants the process for something else
};

// A command that is cut short by `interrupted` throws Error kind interrupted and loses its
// connection, since the rest of the reply would come later: so wait() answers it only when the
// process must stop. Feed::wait() waits for nothing in particular: it asks wait_idle(), returns
// `interrupted` and keeps everything, so any latch is a reason there.
class Waiter {
public:
	Waiter() = default;
	Waiter(const Waiter &) = delete;
	Waiter &operator=(const Waiter &) = delete;
	virtual ~Waiter() = default;

	// Waits until fd can be read, or written if want_write, for at most timeout (zero: only looks).
	// An error or hang-up on fd counts as ready. May wake early with timeout.
	virtual Wake wait(int fd, bool want_write, std::chrono::milliseconds timeout) noexcept = 0;
	// The same for reading, where nothing is lost by breaking off.
	virtual Wake wait_idle(int fd, std::chrono::milliseconds timeout) noexcept {
		return wait(fd, false, timeout);
	}
};

} // namespace session_store::redis
