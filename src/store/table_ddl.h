// The statements that make a store's table and its partitions. All of them need an SPI connection
// and act with the rights of the current user.
#pragma once

#include "core/partitions.h"
#include "store/registry.h"

namespace session_store {

// Runs a utility statement.
void execute_ddl(const char *statement);

// The quoted and qualified name of a relation, palloc'd.
char *qualified_name(Oid relation);

// Makes the table of a store with its indexes, and with a catch-all when it is partitioned; no
// triggers. `columns` is what stands between the parentheses, see session_columns and columns_like.
// `base` is what the catch-all's name starts with.
Oid create_table(
	const char *schema, const char *name, const char *base, const char *columns, bool partitioned);
// The columns of a new store.
char *session_columns(const char *payload);
// The columns, defaults and checks of another table of ours, whatever was added to it.
char *columns_like(Oid table);

// The columns whose values can be copied from one table of ours to another, as a list.
char *copied_columns(Relation table);

// A name in the schema of `table` that is free: `base`, which is cut where it is long, and
// `suffix`.
char *choose_name(Oid table, const char *base, const char *suffix);

// The triggers that make it a store's table; they go with the extension.
void create_triggers(Oid table, bool partitioned);

// Makes the partition that holds `range`, which is empty as yet. For a table that nobody uses.
// `base` is what its name starts with.
void create_partition(Oid table, const char *base, core::PartitionRange range);
// The same as a table by itself, to be attached later.
Oid create_detached_partition(Oid table, core::PartitionRange range);
void attach_partition(Oid table, Oid partition, core::PartitionRange range);

// An interval of partitions as its caller gave it. ERROR when it is not between an hour and a
// month.
core::PartitionInterval partition_interval_of(const Interval *interval);
// What decides how far the partitions of a store reach.
core::PartitionRule partition_rule(const StoreSettings *settings);
// WARNING when that many partitions would be live that looking a session up takes long.
void warn_of_many_partitions(const char *store, const core::PartitionRule *rule);

} // namespace session_store
