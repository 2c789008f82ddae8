// Giving back the space of partitions that are over.
//
// A file system that is told to free hundreds of megabytes at once lets everybody's commits wait
// for it. A large partition is therefore detached, which ends its sessions, and stays as a table by
// itself, a leftover. That is cut from its end, a slice in each transaction, and dropped when
// hardly anything is left: first its indexes, then the heap, then its TOAST. Cutting is logged and
// not undone by an abort; an index is marked as dead in a transaction before, so that nobody goes
// by it. What a crash leaves is a smaller table, and what is left says what is to be done.
//
// What makes a table a leftover is that it depends on the store's table as a partition does: it
// goes when that is dropped, and no other table has such a dependency without being a partition, so
// that neither a reused oid nor a name can be taken for one. A leftover that somebody made a
// partition or a child of a table, or gave to another owner, is left alone.
#include "store/leftovers.h"

#include "postgres/identity.h"
#include "store/table_ddl.h"

extern "C" {
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_inherits.h"
#include "catalog/storage.h"
#include "storage/bufmgr.h"
}

namespace session_store {

namespace {

constexpr BlockNumber kLarge = 16 * 1024 * 1024 / BLCKSZ;
// Measured on ext4 with discard: a commit waits about a millisecond for each megabyte that is freed
// just then, and 40 for what was freed when the file system's journal is committed.
constexpr BlockNumber kSlice = 2 * 1024 * 1024 / BLCKSZ;
// The disk comes to rest after each, and the processor: who cuts looks through all shared buffers.
constexpr int64 kShortestRest = 60000; // microseconds
constexpr int64 kRestsPerStep = 4;     // times as long as the step took

// What pg_class says of a relation; false when it is gone.
bool describe(Oid relation, FormData_pg_class *result) {
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	if (!HeapTupleIsValid(tuple))
		return false;
	memcpy(result, GETSTRUCT(tuple), CLASS_TUPLE_SIZE);
	ReleaseSysCache(tuple);
	return true;
}

bool is_leftover(Oid relation, Oid owner) {
	FormData_pg_class form;
	return describe(relation, &form) && form.relkind == RELKIND_RELATION && !form.relispartition &&
		form.relowner == owner && !has_superclass(relation);
}

// Dead ones included. The table is locked.
List *all_indexes_of(Oid relation) {
	List *indexes = NIL;
	ScanKeyData key;
	ScanKeyInit(
		&key, Anum_pg_index_indrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relation));
	Relation catalog = table_open(IndexRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, IndexIndrelidIndexId, true, nullptr, 1, &key);
	while (HeapTuple tuple = systable_getnext(scan))
		indexes =
			lappend_oid(indexes, reinterpret_cast<Form_pg_index>(GETSTRUCT(tuple))->indexrelid);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return indexes;
}

// The relations in which a table's rows are, in the order in which they are cut.
List *parts_of(Oid relation) {
	return lappend_oid(all_indexes_of(relation), relation);
}

int64 count_blocks(Oid relation) {
	int64 blocks = 0;
	ListCell *cell;
	foreach (cell, parts_of(relation)) {
		Relation part = relation_open(lfirst_oid(cell), AccessShareLock);
		blocks += RelationGetNumberOfBlocks(part);
		relation_close(part, NoLock);
	}
	return blocks;
}

// Of a table that is locked, with its TOAST.
int64 count_all_blocks(const FormData_pg_class *table) {
	return count_blocks(table->oid) +
		(OidIsValid(table->reltoastrelid) ? count_blocks(table->reltoastrelid) : 0);
}

StepResult drop_in_vain(void *argument) {
	ObjectAddress address;
	ObjectAddressSet(address, RelationRelationId, *static_cast<Oid *>(argument));
	PushActiveSnapshot(GetTransactionSnapshot());
	performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	return StepResult::nothing;
}

// Nothing is destroyed of what could not be dropped in the end. ERROR says what hangs on it; false
// when somebody's lock is in the way. Only dropping it finds all, so that is done and undone.
bool can_be_dropped(Oid relation) {
	return try_ddl_step(drop_in_vain, &relation) == StepResult::nothing;
}

// Who deletes a row that a foreign key of it refers to would still be refused, or wait for us.
void drop_foreign_keys(Oid leftover) {
	static const Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(leftover)};
	if (SPI_execute_with_args("SELECT pg_catalog.quote_ident(conname) FROM "
							  "pg_catalog.pg_constraint WHERE conrelid = $1 AND contype = 'f'",
			1, const_cast<Oid *>(types), values, nullptr, false, 0) < 0)
		elog(ERROR, "could not list the foreign keys of a table");
	SPITupleTable *keys = SPI_tuptable;
	for (uint64 i = 0; i < keys->numvals; i++)
		execute_ddl(psprintf("ALTER TABLE %s DROP CONSTRAINT %s", qualified_name(leftover),
			SPI_getvalue(keys->vals[i], keys->tupdesc, 1)));
}

bool has_live_indexes(Oid table) {
	ListCell *cell;
	foreach (cell, all_indexes_of(table)) {
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);
		const bool is_live = index->rd_index->indislive;
		index_close(index, NoLock);
		if (is_live)
			return true;
	}
	return false;
}

// False when all of them were dead.
bool mark_as_dead(Oid table) {
	bool marked = false;
	ListCell *cell;
	foreach (cell, all_indexes_of(table)) {
		Relation index = index_open(lfirst_oid(cell), AccessExclusiveLock);
		const bool is_live = index->rd_index->indislive;
		index_close(index, NoLock);
		if (!is_live)
			continue;
		index_set_state_flags(lfirst_oid(cell), INDEX_DROP_CLEAR_VALID);
		CommandCounterIncrement();
		index_set_state_flags(lfirst_oid(cell), INDEX_DROP_SET_DEAD);
		marked = true;
	}
	if (marked)
		CacheInvalidateRelcacheByRelid(table);
	CommandCounterIncrement();
	return marked;
}

// Takes a slice off a table and its indexes. False when there was nothing any more.
bool cut(Oid table) {
	if (mark_as_dead(table))
		return true;
	BlockNumber left = kSlice;
	ListCell *cell;
	foreach (cell, parts_of(table)) {
		Relation part = relation_open(lfirst_oid(cell), AccessExclusiveLock);
		const BlockNumber blocks = RelationGetNumberOfBlocks(part);
		const BlockNumber taken = Min(blocks, left);
		if (taken > 0)
			RelationTruncate(part, blocks - taken);
		relation_close(part, NoLock);
		left -= taken;
		if (left == 0)
			break;
	}
	return left < kSlice;
}

struct FreeStep {
	Store *store;
	Oid leftover;
	Oid owner;
};

StepResult free_slice(const FreeStep *step) {
	FormData_pg_class form;
	if (!lock_for_drop(step->leftover) || !is_leftover(step->leftover, step->owner) ||
		!describe(step->leftover, &form))
		return StepResult::in_the_way;
	const int64 blocks = count_all_blocks(&form);
	// Trying to drop it writes WAL: before the first slice, before the last, and now and then.
	const bool asks =
		blocks <= kSlice || blocks % kLarge < kSlice || has_live_indexes(step->leftover);
	if (asks && !can_be_dropped(step->leftover))
		return StepResult::in_the_way;
	if (blocks > kSlice) {
		if (!cut(step->leftover))
			(void)cut(form.reltoastrelid);
		return StepResult::done;
	}
	execute_ddl(psprintf("DROP TABLE %s", qualified_name(step->leftover)));
	note_action(step->store, step->leftover, nullptr);
	return StepResult::done;
}

StepResult free_leftover(void *argument) {
	const int level = limit_lock_waits(kDependentsWait);
	const StepResult result = free_slice(static_cast<FreeStep *>(argument));
	AtEOXact_GUC(false, level);
	return result;
}

} // namespace

bool lock_for_drop(Oid partition) {
	FormData_pg_class form;
	return lock_for_ddl(partition, AccessExclusiveLock, 0) && describe(partition, &form) &&
		(!OidIsValid(form.reltoastrelid) ||
			lock_for_ddl(form.reltoastrelid, AccessExclusiveLock, 0));
}

bool is_worth_detaching(Oid partition, Oid owner) {
	FormData_pg_class form;
	return describe(partition, &form) && form.relowner == owner &&
		form.relam == HEAP_TABLE_AM_OID && count_all_blocks(&form) > kLarge;
}

bool detach_as_leftover(Oid table, Oid partition) {
	if (!can_be_dropped(partition))
		return false;
	execute_ddl(psprintf(
		"ALTER TABLE %s DETACH PARTITION %s", qualified_name(table), qualified_name(partition)));
	ObjectAddress leftover;
	ObjectAddress former;
	ObjectAddressSet(leftover, RelationRelationId, partition);
	ObjectAddressSet(former, RelationRelationId, table);
	recordDependencyOn(&leftover, &former, DEPENDENCY_AUTO);
	CommandCounterIncrement();
	drop_foreign_keys(partition);
	return true;
}

List *leftovers_of(Oid table) {
	FormData_pg_class form;
	if (!describe(table, &form))
		return NIL;
	List *leftovers = NIL;
	ScanKeyData keys[3];
	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
		ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(
		&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(table));
	ScanKeyInit(
		&keys[2], Anum_pg_depend_refobjsubid, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(0));
	Relation catalog = table_open(DependRelationId, AccessShareLock);
	SysScanDesc scan =
		systable_beginscan(catalog, DependReferenceIndexId, true, nullptr, lengthof(keys), keys);
	while (HeapTuple tuple = systable_getnext(scan)) {
		auto *depend = reinterpret_cast<Form_pg_depend>(GETSTRUCT(tuple));
		if (depend->classid == RelationRelationId && depend->objsubid == 0 &&
			depend->deptype == DEPENDENCY_AUTO && is_leftover(depend->objid, form.relowner))
			leftovers = lappend_oid(leftovers, depend->objid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	list_sort(leftovers, list_oid_cmp);
	return leftovers;
}

int64 bytes_of_leftover(Oid leftover) {
	Relation table = try_table_open(leftover, AccessShareLock);
	if (table == nullptr)
		return -1;
	const int64 blocks = count_all_blocks(table->rd_rel);
	table_close(table, NoLock);
	return blocks * BLCKSZ;
}

void drop_leftovers(Oid table) {
	ListCell *cell;
	foreach (cell, leftovers_of(table))
		execute_ddl(psprintf("DROP TABLE %s", qualified_name(lfirst_oid(cell))));
}

// Without waiting for a lock: nobody uses it.
StepResult free_leftover_step(Store *store, int, PartitionWork *work) {
	*work = {};
	Relation table = open_store_table(store, AccessShareLock);
	FreeStep step = {store, InvalidOid, table->rd_rel->relowner};
	List *leftovers = store->is_partitioned ? leftovers_of(RelationGetRelid(table)) : NIL;
	table_close(table, NoLock);
	if (leftovers == NIL)
		return StepResult::nothing;
	step.leftover = work->partition = linitial_oid(leftovers);
	const TimestampTz began = GetCurrentTimestamp();
	SPI_connect();
	Identity caller = enter_owner(step.owner);
	StepResult result = try_ddl_step(free_leftover, &step);
	leave_identity(&caller);
	SPI_finish();
	work->rest = Max(kRestsPerStep * (GetCurrentTimestamp() - began), kShortestRest);
	return result;
}

} // namespace session_store
