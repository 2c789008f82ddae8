// What a store's table looks like.
//
// Partitions are kept newest first, the catch-all last: a lookup tries them in this order, and most
// live sessions are in the newest. Whoever uses the list holds a lock on the table, under which no
// partition goes away; one that is made meanwhile shows in an invalidation message at the latest
// when the catch-all is locked, out of which its rows came.
#include "store/layout.h"

extern "C" {
#include "catalog/pg_am.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/partcache.h"
}

namespace session_store {

namespace {

AttrNumber column(Relation relation, const char *name, Oid type) {
	TupleDesc descriptor = RelationGetDescr(relation);
	for (int i = 0; i < descriptor->natts; i++) {
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);
		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0 &&
			attribute->atttypid == type)
			return attribute->attnum;
	}
	ereport(ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("table \"%s\" of a session store has no column \"%s\" of type %s",
				RelationGetRelationName(relation), name, format_type_be(type)),
			errhint("Restore the column, or take the store away with "
					"session_store.drop_store().")));
	return InvalidAttrNumber;
}

StoreColumns find_columns(Relation relation, Payload payload) {
	StoreColumns columns;
	columns.sid = column(relation, "sid", TEXTOID);
	columns.sess = column(relation, "sess", payload == Payload::jsonb ? JSONBOID : BYTEAOID);
	columns.user_id = column(relation, "user_id", TEXTOID);
	columns.expire = column(relation, "expire", TIMESTAMPTZOID);
	columns.created_at = column(relation, "created_at", TIMESTAMPTZOID);
	columns.updated_at = column(relation, "updated_at", TIMESTAMPTZOID);
	columns.version = column(relation, "version", INT8OID);
	columns.expire_bucket = column(relation, "expire_bucket", TIMESTAMPTZOID);
	return columns;
}

// The unique index that finds a sid: on sid alone, whole, and checked at once.
Oid find_sid_index(Relation relation, AttrNumber sid) {
	Oid result = InvalidOid;
	List *indexes = RelationGetIndexList(relation);
	ListCell *cell;
	foreach (cell, indexes) {
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;
		if (form->indisunique && form->indisvalid && form->indimmediate && form->indnkeyatts == 1 &&
			form->indkey.values[0] == sid && index->rd_rel->relam == BTREE_AM_OID &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, nullptr))
			result = RelationGetRelid(index);
		index_close(index, AccessShareLock);
		if (OidIsValid(result))
			break;
	}
	list_free(indexes);
	if (!OidIsValid(result))
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("table \"%s\" of a session store has no unique index on \"sid\"",
					RelationGetRelationName(relation)),
				errhint("Restore its primary key.")));
	return result;
}

StorePartition describe_partition(const Store *store, Oid relation) {
	StorePartition partition = {};
	Relation table = table_open(relation, AccessShareLock);
	if (table->rd_rel->relkind != RELKIND_RELATION)
		ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("partition \"%s\" of store \"%s\" is not a plain table",
					RelationGetRelationName(table), NameStr(store->name))));
	partition.relation = relation;
	partition.columns = find_columns(table, store->settings.payload);
	partition.sid_index = find_sid_index(table, partition.columns.sid);
	partition.direct_update = DirectWrites::unknown;
	table_close(table, AccessShareLock);
	return partition;
}

TimestampTz bound_at(PartitionBoundInfo bounds, int at) {
	switch (bounds->kind[at][0]) {
	case PARTITION_RANGE_DATUM_MINVALUE:
		return DT_NOBEGIN;
	case PARTITION_RANGE_DATUM_MAXVALUE:
		return DT_NOEND;
	default:
		return DatumGetTimestampTz(bounds->datums[at][0]);
	}
}

void require_range_of_expire(const Store *store, Relation table) {
	PartitionKey key = RelationGetPartitionKey(table);
	if (key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 ||
		key->partattrs[0] != store->columns.expire)
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("table \"%s\" of a session store is not partitioned by ranges of \"expire\"",
					RelationGetRelationName(table)),
				errhint("Take the store away with session_store.drop_store().")));
}

void describe_partitions(Store *store, Relation table) {
	require_range_of_expire(store, table);
	PartitionDesc descriptor = RelationGetPartitionDesc(table, true);
	PartitionBoundInfo bounds = descriptor->boundinfo;
	auto *partitions = static_cast<StorePartition *>(MemoryContextAlloc(
		CacheMemoryContext, Max(descriptor->nparts, 1) * sizeof(StorePartition)));
	int count = 0;
	// Bound i is the upper one of the partition at indexes[i].
	for (int i = descriptor->nparts > 0 ? bounds->ndatums - 1 : -1; i > 0; i--) {
		if (bounds->indexes[i] < 0)
			continue;
		StorePartition partition = describe_partition(store, descriptor->oids[bounds->indexes[i]]);
		partition.from = bound_at(bounds, i - 1);
		partition.to = bound_at(bounds, i);
		partitions[count++] = partition;
	}
	if (descriptor->nparts > 0 && partition_bound_has_default(bounds)) {
		partitions[count] = describe_partition(store, descriptor->oids[bounds->default_index]);
		partitions[count++].is_catch_all = true;
	}
	store->partitions = partitions;
	store->partition_count = count;
}

} // namespace

void describe_table(Store *store, Relation table) {
	if (store->partitions != nullptr)
		pfree(store->partitions);
	store->partitions = nullptr;
	store->partition_count = 0;
	store->columns = find_columns(table, store->settings.payload);
	store->is_partitioned = table->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	store->sid_index = InvalidOid;
	const uint64 stale_before = stale_descriptions();
	if (store->is_partitioned)
		describe_partitions(store, table);
	else
		store->sid_index = find_sid_index(table, store->columns.sid);
	store->direct_insert = store->direct_update = DirectWrites::unknown;
	store->may_select = store->may_update = store->may_insert = InvalidOid;
	// What changed while we read is read again at the next lookup.
	store->table_known = stale_descriptions() == stale_before;
}

bool has_partition(const Store *store, Oid relation) {
	for (int i = 0; i < store->partition_count; i++) {
		if (store->partitions[i].relation == relation || store->partitions[i].sid_index == relation)
			return true;
	}
	return false;
}

StorePartition *find_partition(const Store *store, Oid relation) {
	for (int i = 0; i < store->partition_count; i++) {
		if (store->partitions[i].relation == relation)
			return &store->partitions[i];
	}
	return nullptr;
}

StorePartition *catch_all_of(const Store *store) {
	StorePartition *last =
		store->partition_count > 0 ? &store->partitions[store->partition_count - 1] : nullptr;
	return last != nullptr && last->is_catch_all ? last : nullptr;
}

StorePartition *partition_for(const Store *store, TimestampTz expire) {
	for (int i = 0; i < store->partition_count; i++) {
		if (holds(&store->partitions[i], expire))
			return &store->partitions[i];
	}
	return catch_all_of(store);
}

} // namespace session_store
