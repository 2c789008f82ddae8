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
Oid our_trigger_function(const char *name) {
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
		PointerGetDatum(buildoidvector(nullptr, 0)),
		ObjectIdGetDatum(get_namespace_oid("session_store", true)));
}

bool calls_for_each_row(const Trigger *trigger, Oid function) {
	return trigger->tgfoid == function && TRIGGER_FOR_ROW(trigger->tgtype) &&
		trigger->tgqual == nullptr && trigger->tgnattr == 0 &&
		(trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
			trigger->tgenabled == TRIGGER_FIRES_ALWAYS);
}

bool fires_on(const Trigger *trigger, DirectWrite write) {
	const bool on_insert = TRIGGER_FOR_INSERT(trigger->tgtype);
	const bool on_update = TRIGGER_FOR_UPDATE(trigger->tgtype);
	const bool on_delete = TRIGGER_FOR_DELETE(trigger->tgtype);
	switch (write) {
	case DirectWrite::insert:
		return on_insert;
	case DirectWrite::update:
		return on_update;
	case DirectWrite::remove:
		return on_delete;
	case DirectWrite::any:
		break;
	}
	return on_insert || on_update || on_delete;
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

DirectWrites direct_writes_past_triggers(Relation table, DirectWrite write) {
	const Oid rules = our_trigger_function("row_trigger");
	const Oid noting = our_trigger_function("note_written");
	bool before = false;
	bool after = false;
	bool noted = false;
	for (int i = 0; table->trigdesc != nullptr && i < table->trigdesc->numtriggers; i++) {
		const Trigger *trigger = &table->trigdesc->triggers[i];
		if (!fires_on(trigger, write))
			continue;
		if (calls_for_each_row(trigger, rules))
			(TRIGGER_FOR_BEFORE(trigger->tgtype) ? before : after) = true;
		else if (calls_for_each_row(trigger, noting))
			noted = true;
		else
			return DirectWrites::refused;
	}
	// The second look at the logout guard is for insertions, and not for partitions.
	if (!before || after != (write == DirectWrite::insert))
		return DirectWrites::refused;
	return noted ? DirectWrites::noted : DirectWrites::allowed;
}

DirectWrites direct_writes_to(Relation table, DirectWrite write) {
	const TupleConstr *constraints = RelationGetDescr(table)->constr;
	const bool plain = table->rd_rel->relkind == RELKIND_RELATION &&
		table->rd_rel->relam == HEAP_TABLE_AM_OID && !table->rd_rel->relhasrules &&
		(constraints == nullptr ||
			(constraints->num_check == 0 && !constraints->has_generated_stored)) &&
		!has_deferrable_index(table);
	return plain ? direct_writes_past_triggers(table, write) : DirectWrites::refused;
}

} // namespace session_store
