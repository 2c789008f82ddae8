// Waiting for Redis on the worker's latch.
//
// wait() runs below C++ frames, so nothing may longjmp out of it: errors of WaitLatchOrSocket are
// kept as text for finish_wait(). Interrupts are not served here but for process barriers, which
// others (DROP DATABASE) wait for; a stalled Redis must not make them wait.
#include <poll.h>

#include <algorithm>
#include <chrono>

#include "mirror/latch_waiter.h"
#include "postgres/pg.h"

extern "C" {
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "utils/wait_event.h"
}

namespace session_store {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

char failure[256] = "";

// A backend is also asked to give up a statement.
bool must_stop() {
	return QueryCancelPending || ProcDiePending || ShutdownRequestPending;
}

// The socket alone, without waiting.
bool is_ready(int fd, bool want_write) {
	pollfd one = {fd, static_cast<short>(want_write ? POLLOUT : POLLIN), 0};
	return poll(&one, 1, 0) > 0;
}

// Events that came, 0 after a timeout, or -1 with `failure` set.
int wait_for_events(int fd, bool want_write, long timeout) {
	volatile int events = -1;
	MemoryContext context = CurrentMemoryContext;
	PG_TRY();
	{
		if (ProcSignalBarrierPending)
			ProcessProcSignalBarrier();
		events = WaitLatchOrSocket(MyLatch,
			WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH |
				(want_write ? WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE),
			fd, timeout, PG_WAIT_EXTENSION);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		ErrorData *error = CopyErrorData();
		FlushErrorState();
		strlcpy(
			failure, error->message == nullptr ? "unknown error" : error->message, sizeof(failure));
		FreeErrorData(error);
	}
	PG_END_TRY();
	return events;
}

class LatchWaiter : public redis::Waiter {
public:
	redis::Wake wait(int fd, bool want_write, milliseconds timeout) noexcept override {
		return wait_for(fd, want_write, timeout, false);
	}
	redis::Wake wait_idle(int fd, milliseconds timeout) noexcept override {
		return wait_for(fd, false, timeout, true);
	}

private:
	static redis::Wake wait_for(int fd, bool want_write, milliseconds timeout, bool idle) noexcept {
		const Clock::time_point deadline = Clock::now() + timeout;
		if (must_stop() || failure[0] != '\0')
			return redis::Wake::interrupted;
		if (is_ready(fd, want_write))
			return redis::Wake::ready;
		if (timeout <= milliseconds::zero())
			return redis::Wake::timeout;
		for (;;) {
			const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
			const int events =
				wait_for_events(fd, want_write, std::max<long>(0, static_cast<long>(left.count())));
			if (events < 0 || must_stop())
				return redis::Wake::interrupted;
			if ((events & WL_LATCH_SET) != 0) {
				ResetLatch(MyLatch);
				if (idle)
					return redis::Wake::interrupted;
			}
			if ((events & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE)) != 0)
				return redis::Wake::ready;
			if (Clock::now() >= deadline)
				return redis::Wake::timeout;
		}
	}
};

} // namespace

redis::Waiter *latch_waiter() {
	static LatchWaiter waiter;
	return &waiter;
}

void finish_wait() {
	if (failure[0] != '\0')
		ereport(ERROR,
			(errcode(ERRCODE_SYSTEM_ERROR), errmsg("could not wait for Redis: %s", failure)));
	CHECK_FOR_INTERRUPTS();
}

} // namespace session_store
