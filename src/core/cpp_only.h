// Last include of every C++-only file: makes seeing PostgreSQL's headers there a compile error.
//
// Code that owns objects with destructors must never call what can longjmp past them, and the
// surest way is that it cannot name it. Headers that hold nothing but plain data and noexcept
// functions (decide.h, schedule.h, rollout.h, text.h, redis/waiter.h) do not include this file,
// so that the glue may use them.

#ifdef POSTGRES_H
#error "this file is C++ only and must not be compiled together with postgres.h"
#endif
