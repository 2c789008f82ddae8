// Whether the rows of a table can be written without a statement.
#pragma once

#include "store/registry.h"

namespace session_store {

// What is to be written: a partition's row may become a deletion and an insertion.
enum class DirectWrite : uint8_t { insert, update, any };

// Nothing of its user's would fire, check or rewrite: the only trigger is ours, and there are no
// rules, checks, generated columns or deferrable indexes.
bool allows_direct_writes(Relation table, DirectWrite write);
bool has_our_triggers_only(Relation table, DirectWrite write);

} // namespace session_store
