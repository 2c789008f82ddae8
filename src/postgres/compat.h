// Where PostgreSQL 15, 17 and 18 differ: one name for each, the newest version's where there is
// one.
#pragma once

#include "postgres/pg.h"

extern "C" {
#include "access/nbtree.h"
#include "catalog/pg_namespace.h"
}

namespace session_store {

inline bool owns_relation(Oid relation, Oid user) {
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relation, user);
#else
	return pg_class_ownercheck(relation, user);
#endif
}

inline bool may_use_schema(Oid schema, Oid role) {
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, role, ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(schema, role, ACL_USAGE) == ACLCHECK_OK;
#endif
}

inline IndexScanDesc begin_index_scan(Relation table, Relation index, Snapshot snapshot, int keys) {
#if PG_VERSION_NUM >= 180000
	return index_beginscan(table, index, snapshot, nullptr, keys, 0);
#else
	return index_beginscan(table, index, snapshot, keys, 0);
#endif
}

// Whether a B-tree's leaf page can be searched for; not known of versions to come.
inline constexpr bool kHasLeafSearch = PG_VERSION_NUM < 190000;

// The read-locked leaf page on which the key belongs; invalid when the index is empty.
inline Buffer search_leaf(Relation table, Relation index, BTScanInsert key, Snapshot snapshot) {
	Buffer leaf = InvalidBuffer;
#if PG_VERSION_NUM >= 190000
	(void)table, (void)index, (void)key, (void)snapshot;
#elif PG_VERSION_NUM >= 170000
	(void)snapshot;
	_bt_freestack(_bt_search(index, table, key, &leaf, BT_READ));
#elif PG_VERSION_NUM >= 160000
	_bt_freestack(_bt_search(index, table, key, &leaf, BT_READ, snapshot));
#else
	(void)table;
	_bt_freestack(_bt_search(index, key, &leaf, BT_READ, snapshot));
#endif
	return leaf;
}

// Which index entries an updated row needs, as table_tuple_update says.
#if PG_VERSION_NUM >= 160000
using IndexUpdates = TU_UpdateIndexes;
inline constexpr IndexUpdates kAllIndexes = TU_All;
inline bool needs_index_entries(IndexUpdates updates) {
	return updates != TU_None;
}
#else
using IndexUpdates = bool;
inline constexpr IndexUpdates kAllIndexes = true;
inline bool needs_index_entries(IndexUpdates updates) {
	return updates;
}
#endif

inline void insert_index_tuples(
	ResultRelInfo *result, TupleTableSlot *slot, EState *state, IndexUpdates updates) {
#if PG_VERSION_NUM >= 160000
	bool only_summarizing = updates == TU_Summarizing;
	(void)ExecInsertIndexTuples(result, slot, state, false, false, nullptr, NIL, only_summarizing);
#else
	(void)updates;
	(void)ExecInsertIndexTuples(result, slot, state, false, false, nullptr, NIL);
#endif
}

// Sets *conflict, and says no more, when a unique index of `arbiters` has the row's key already.
inline void insert_index_tuples_unless(
	ResultRelInfo *result, TupleTableSlot *slot, EState *state, bool *conflict, List *arbiters) {
#if PG_VERSION_NUM >= 160000
	list_free(ExecInsertIndexTuples(result, slot, state, false, true, conflict, arbiters, false));
#else
	list_free(ExecInsertIndexTuples(result, slot, state, false, true, conflict, arbiters));
#endif
}

} // namespace session_store
