// Numbers for the rows of our own tables that a transaction writes: no two rows have the same one.
#pragma once

#include "postgres/pg.h"

namespace session_store {

struct RowNumber {
	int64 xid; // of the top transaction, with its epoch
	int32 seq; // counted within it
};

RowNumber next_row_number();

} // namespace session_store
