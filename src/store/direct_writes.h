// Whether the rows of a table can be written without a statement.
#pragma once

#include "store/registry.h"

namespace session_store {

// What is to be written: a partition's row may become a deletion and an insertion.
enum class DirectWrite : uint8_t { insert, update, remove, any };

// Allowed where nothing of its user's would fire, check or rewrite: the only triggers are ours, and
// there are no rules, checks, generated columns or deferrable indexes. Noted while a repartition
// wants to know what is written.
DirectWrites direct_writes_to(Relation table, DirectWrite write);
// As far as triggers are concerned.
DirectWrites direct_writes_past_triggers(Relation table, DirectWrite write);

} // namespace session_store
