// The table that a mirror writes to: found by OID, so that it may be renamed, moved or given away.
#include "mirror/target.h"

namespace session_store {

void open_target(MirrorTarget *target, LOCKMODE lockmode) {
	Relation relation = try_relation_open(target->store.relation, lockmode);
	if (relation == nullptr)
		ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
				errmsg("the table of store \"%s\" does not exist", NameStr(target->store.name)),
				errhint("Take the store away with session_store.drop_store().")));
	target->owner = relation->rd_rel->relowner;
	target->is_partitioned = relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	const char *schema = get_namespace_name(RelationGetNamespace(relation));
	strlcpy(target->name, quote_qualified_identifier(schema, RelationGetRelationName(relation)),
		sizeof(target->name));
	relation_close(relation, NoLock);
}

} // namespace session_store
