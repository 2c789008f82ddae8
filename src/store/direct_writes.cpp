// Whether the rows of a table can be written without a statement.
#include "store/direct_writes.h"

extern "C" {
#include "catalog/pg_am.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
}

namespace session_store {

namespace {

// Whoever owns the table need not have rights on our schema.
Oid row_trigger_function() {
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum("row_trigger"),
		PointerGetDatum(buildoidvector(nullptr, 0)),
		ObjectIdGetDatum(get_namespace_oid("session_store", true)));
}

bool is_our_trigger(const Trigger *trigger, Oid function) {
	return trigger->tgfoid == function && TRIGGER_FOR_ROW(trigger->tgtype) &&
		trigger->tgqual == nullptr && trigger->tgnattr == 0 &&
		(trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
			trigger->tgenabled == TRIGGER_FIRES_ALWAYS);
}

bool fires_on(const Trigger *trigger, DirectWrite write) {
	switch (write) {
	case DirectWrite::insert:
		return TRIGGER_FOR_INSERT(trigger->tgtype);
	case DirectWrite::update:
		return TRIGGER_FOR_UPDATE(trigger->tgtype);
	case DirectWrite::any:
		break;
	}
	return true;
}

bool has_deferrable_index(Relation table) {
	bool found = false;
	List *indexes = RelationGetIndexList(table);
	ListCell *cell;
	foreach (cell, indexes) {
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);
		found = found || !index->rd_index->indimmediate || index->rd_index->indisexclusion;
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
}

} // namespace

bool has_our_triggers_only(Relation table, DirectWrite write) {
	const Oid function = row_trigger_function();
	bool before = false;
	bool after = false;
	for (int i = 0; table->trigdesc != nullptr && i < table->trigdesc->numtriggers; i++) {
		const Trigger *trigger = &table->trigdesc->triggers[i];
		if (!fires_on(trigger, write))
			continue;
		if (!is_our_trigger(trigger, function))
			return false;
		(TRIGGER_FOR_BEFORE(trigger->tgtype) ? before : after) = true;
	}
	// The second look at the logout guard is for insertions, and not for partitions.
	return before && after == (write == DirectWrite::insert);
}

bool allows_direct_writes(Relation table, DirectWrite write) {
	const TupleConstr *constraints = RelationGetDescr(table)->constr;
	return table->rd_rel->relkind == RELKIND_RELATION &&
		table->rd_rel->relam == HEAP_TABLE_AM_OID && !table->rd_rel->relhasrules &&
		(constraints == nullptr ||
			(constraints->num_check == 0 && !constraints->has_generated_stored)) &&
		has_our_triggers_only(table, write) && !has_deferrable_index(table);
}

} // namespace session_store
