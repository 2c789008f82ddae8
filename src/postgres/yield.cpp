// sched_yield(), not more often than needed.
#include "postgres/yield.h"

#include <sched.h>

extern "C" {
#include "portability/instr_time.h"
}

namespace session_store {

namespace {

constexpr uint64 kLongestRunUs = 100;

bool gives_way = false;
instr_time yielded_at;

} // namespace

void give_way(bool on) {
	gives_way = on;
}

void yield_if_due() {
	if (!gives_way)
		return;
	instr_time now;
	INSTR_TIME_SET_CURRENT(now);
	instr_time ran = now;
	INSTR_TIME_SUBTRACT(ran, yielded_at);
	if (INSTR_TIME_GET_MICROSEC(ran) < kLongestRunUs)
		return;
	(void)sched_yield();
	INSTR_TIME_SET_CURRENT(yielded_at);
}

} // namespace session_store
