#include "store/row_number.h"

namespace session_store {

namespace {

RowNumber last = {};

} // namespace

RowNumber next_row_number() {
	const auto xid = static_cast<int64>(U64FromFullTransactionId(GetTopFullTransactionId()));
	last = {xid, xid == last.xid ? last.seq + 1 : 1};
	return last;
}

} // namespace session_store
