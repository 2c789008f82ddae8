// A Waiter on poll(2), which can be told to interrupt.
#pragma once

#include <poll.h>

#include <algorithm>
#include <chrono>

#include "redis/waiter.h"

namespace session_store::test {

class PollWaiter : public redis::Waiter {
public:
	redis::Wake wait(int fd, bool want_write, std::chrono::milliseconds timeout) noexcept override {
		waits++;
		if (interrupt_at != 0 && waits >= interrupt_at)
			return redis::Wake::interrupted;
		pollfd poller{fd, static_cast<short>(want_write ? POLLOUT : POLLIN), 0};
		const auto limit = std::clamp<std::chrono::milliseconds::rep>(timeout.count(), 0, 60'000);
		return poll(&poller, 1, static_cast<int>(limit)) > 0 ? redis::Wake::ready
															 : redis::Wake::timeout;
	}

	int waits = 0;
	int interrupt_at = 0; // the wait, counted from 1, from which on all are interrupted; 0: never
};

} // namespace session_store::test
