// Changing the layout of a filled store under traffic: plain, partitioned, or by another interval.
//
// A new table is filled beside the old one and takes its place:
//   made     the new table is there, empty, with its partitions and triggers. Each table of the old
//            layout gets a trigger that notes the sids that are written.
//   copying  sessions are copied in the order of their sids; those noted are copied again, or
//            removed. Which change came last does not matter: what is copied is what is there now.
//   swapped  with few changes left, the old table is locked, the rest is copied, and the new one
//            takes its name and its place in the registry. Then the old one is dropped.
// Each step is one transaction, with what it changes in session_store.repartitions: a crash leaves
// the store as it was before the step, and who comes next goes on. Only the noting triggers and the
// swap take locks that others wait for. Copying fires no row trigger: it is no change of a session.
#include "store/repartition.h"

#include "postgres/identity.h"
#include "postgres/interval.h"
#include "store/layout.h"
#include "store/procedure.h"
#include "store/repartition_state.h"
#include "store/table_ddl.h"
#include "worker/progress.h"

extern "C" {
#include "catalog/pg_inherits.h"
}

namespace session_store {

namespace {

// A step keeps a processor and the disk busy for some milliseconds: the application's requests of
// that time are late, and it catches up while we rest.
constexpr int kRowsPerStep = 200;
constexpr int kChangesPerStep = 1000;
constexpr int kRestPerStep = 3;        // times as long as the step took, unless changes pile up
constexpr int64 kLongestRest = 100000; // microseconds
constexpr int64 kFewChanges = 200;
constexpr int64 kMostChangesInSwap = 1000;
constexpr const char *kNotingTrigger = "session_store_repartition";

struct Step {
	Store *store;
	RepartitionState state;
	const char *columns;
	Oid owner;
	int wait_ms;
	bool behind; // only changes are left, or more wait than a step copies: it is to catch up
};

// What the owner's triggers and ours would do, they did when the session was written.
int begin_silent_copy() {
	static constexpr const char *kSettings[][2] = {{"session_replication_role", "replica"},
		{"enable_seqscan", "off"}, {"enable_bitmapscan", "off"}, {"enable_hashjoin", "off"},
		{"enable_mergejoin", "off"}, {"jit", "off"}};
	const int level = NewGUCNestLevel();
	for (const auto &setting : kSettings)
		(void)set_config_option(
			setting[0], setting[1], PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

void end_silent_copy(int level) {
	AtEOXact_GUC(false, level);
}

void run(const char *sql, int count, const Oid *types, Datum *values) {
	if (SPI_execute_with_args(sql, count, const_cast<Oid *>(types), values, nullptr, false, 0) < 0)
		elog(ERROR, "could not copy sessions to another layout");
}

Datum result_at(int column, bool *is_null) {
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, is_null);
}

// The tables that hold the rows of a table.
List *leaves_of(Oid table) {
	if (get_rel_relkind(table) != RELKIND_PARTITIONED_TABLE)
		return lappend_oid(NIL, table);
	return find_inheritance_children(table, NoLock);
}

// A partition that somebody attached since notes nothing.
bool all_tables_note(const Step *step) {
	ListCell *cell;
	foreach (cell, leaves_of(step->state.source)) {
		if (!OidIsValid(get_trigger_oid(lfirst_oid(cell), kNotingTrigger, true)))
			return false;
	}
	return true;
}

StepResult add_noting_trigger(void *argument) {
	auto *step = static_cast<Step *>(argument);
	ListCell *cell;
	foreach (cell, leaves_of(step->state.source)) {
		const Oid leaf = lfirst_oid(cell);
		if (OidIsValid(get_trigger_oid(leaf, kNotingTrigger, true)))
			continue;
		if (!lock_for_ddl(leaf, ShareRowExclusiveLock, step->wait_ms))
			return StepResult::in_the_way;
		const char *name = qualified_name(leaf);
		execute_ddl(psprintf("CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s "
							 "FOR EACH ROW EXECUTE FUNCTION session_store.note_written('%d')",
			kNotingTrigger, name, step->store->settings.id));
		execute_ddl(psprintf("CREATE TRIGGER %s_truncate AFTER TRUNCATE ON %s "
							 "FOR EACH STATEMENT EXECUTE FUNCTION session_store.note_written('%d')",
			kNotingTrigger, name, step->store->settings.id));
		for (const char *suffix : {"", "_truncate"})
			execute_ddl(psprintf("ALTER TRIGGER %s%s ON %s DEPENDS ON EXTENSION session_store",
				kNotingTrigger, suffix, name));
		return StepResult::done;
	}
	set_repartition_phase(&step->state, RepartitionPhase::copying);
	return StepResult::done;
}

StepResult copy_some(void *argument) {
	auto *step = static_cast<Step *>(argument);
	static const Oid types[] = {TEXTOID, INT4OID};
	Datum values[] = {step->state.copied_to, Int32GetDatum(kRowsPerStep)};
	commit_without_waiting();
	const int level = begin_silent_copy();
	run(psprintf("WITH batch AS MATERIALIZED (SELECT %s FROM %s WHERE sid > $1 ORDER BY sid "
				 "LIMIT $2), copied AS (INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM "
				 "batch) SELECT count(*), max(sid) FROM batch",
			step->columns, qualified_name(step->state.source), qualified_name(step->state.target),
			step->columns, step->columns),
		lengthof(types), types, values);
	end_silent_copy(level);
	bool is_null;
	const int64 count = DatumGetInt64(result_at(1, &is_null));
	const Datum last = result_at(2, &is_null);
	note_copied(
		&step->state, count, count > 0 ? last : step->state.copied_to, count < kRowsPerStep);
	return StepResult::done;
}

// Copies again what the noted sids are now. What the copying has not reached it will find itself.
void copy_again(Step *step, Datum sids) {
	static const Oid types[] = {TEXTARRAYOID, BOOLOID, TEXTOID};
	Datum values[] = {sids, BoolGetDatum(step->state.copied_all), step->state.copied_to};
	const int level = begin_silent_copy();
	run(psprintf("DELETE FROM %s WHERE sid = ANY ($1)", qualified_name(step->state.target)), 1,
		types, values);
	run(psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s "
				 "WHERE sid = ANY ($1) AND ($2 OR sid <= $3)",
			qualified_name(step->state.target), step->columns, step->columns,
			qualified_name(step->state.source)),
		lengthof(types), types, values);
	end_silent_copy(level);
}

// Returns how many notes were worked off.
int64 copy_changes(Step *step, int64 limit) {
	Datum sids;
	bool truncated;
	const int64 taken = take_noted_sids(&step->state, limit, &sids, &truncated);
	if (truncated) {
		const int level = begin_silent_copy();
		execute_ddl(psprintf("TRUNCATE %s", qualified_name(step->state.target)));
		end_silent_copy(level);
		note_copied(&step->state, 0, CStringGetTextDatum(""), false);
	} else if (taken > 0) {
		copy_again(step, sids);
	}
	return taken;
}

bool lock_old_layout(const Step *step) {
	if (!lock_for_ddl(step->state.source, AccessExclusiveLock, step->wait_ms))
		return false;
	ListCell *cell;
	foreach (cell, leaves_of(step->state.source)) {
		if (!lock_for_ddl(lfirst_oid(cell), AccessExclusiveLock, 0))
			return false;
	}
	return true;
}

// The rights that others have on the old table.
void copy_rights(const Step *step) {
	static const Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(step->state.source)};
	run("SELECT a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' "
		"ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, "
		"CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END "
		"FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a "
		"WHERE c.oid = $1 AND a.grantee <> c.relowner",
		1, types, values);
	SPITupleTable *rights = SPI_tuptable;
	for (uint64 i = 0; i < rights->numvals; i++)
		execute_ddl(psprintf("GRANT %s ON %s TO %s%s",
			SPI_getvalue(rights->vals[i], rights->tupdesc, 1), qualified_name(step->state.target),
			SPI_getvalue(rights->vals[i], rights->tupdesc, 2),
			SPI_getvalue(rights->vals[i], rights->tupdesc, 3)));
}

StepResult swap(void *argument) {
	auto *step = static_cast<Step *>(argument);
	if (!lock_old_layout(step))
		return StepResult::in_the_way;
	if (!all_tables_note(step) ||
		count_noted(&step->state, kMostChangesInSwap + 1) > kMostChangesInSwap)
		return StepResult::in_the_way;
	while (copy_changes(step, kMostChangesInSwap) > 0)
		;
	if (!step->state.copied_all)
		return StepResult::done; // truncated just now: copying begins anew
	copy_rights(step);
	const char *name = pstrdup(get_rel_name(step->state.source));
	execute_ddl(psprintf("ALTER TABLE %s RENAME TO %s", qualified_name(step->state.source),
		quote_identifier(choose_name(step->state.source, name, "old"))));
	execute_ddl(psprintf(
		"ALTER TABLE %s RENAME TO %s", qualified_name(step->state.target), quote_identifier(name)));
	put_in_place(&step->state);
	return StepResult::done;
}

StepResult copy_or_swap(void *argument) {
	auto *step = static_cast<Step *>(argument);
	if (!step->state.copied_all) {
		const StepResult copied = copy_some(step);
		step->behind = copy_changes(step, kChangesPerStep) == kChangesPerStep;
		return copied;
	}
	if (count_noted(&step->state, kFewChanges + 1) <= kFewChanges)
		return swap(step);
	(void)copy_changes(step, kChangesPerStep);
	step->behind = true;
	return StepResult::done;
}

StepResult drop_old(void *argument) {
	auto *step = static_cast<Step *>(argument);
	if (get_rel_name(step->state.source) != nullptr) {
		if (!lock_for_ddl(step->state.source, AccessExclusiveLock, step->wait_ms))
			return StepResult::in_the_way;
		execute_ddl(psprintf("DROP TABLE %s", qualified_name(step->state.source)));
	}
	forget_repartition(&step->state);
	return StepResult::done;
}

// Both have the same columns, or somebody changed the store's table since.
bool columns_are_the_same(Step *step) {
	Relation source = try_table_open(step->state.source, AccessShareLock);
	Relation target = try_table_open(step->state.target, AccessShareLock);
	bool same = source != nullptr && target != nullptr;
	if (same) {
		step->columns = copied_columns(source);
		same = strcmp(step->columns, copied_columns(target)) == 0;
	}
	if (source != nullptr)
		table_close(source, NoLock);
	if (target != nullptr)
		table_close(target, NoLock);
	return same;
}

// It is begun anew by who called for it.
StepResult give_up(void *argument) {
	auto *step = static_cast<Step *>(argument);
	if (!lock_old_layout(step))
		return StepResult::in_the_way;
	abandon_repartition(step->store);
	return StepResult::done;
}

StepResult take_step(Step *step) {
	if (step->state.phase == RepartitionPhase::swapped)
		return try_ddl_step(drop_old, step);
	if (step->store->settings.relation != step->state.source || !columns_are_the_same(step))
		return try_ddl_step(give_up, step);
	if (step->state.phase == RepartitionPhase::made)
		return try_ddl_step(add_noting_trigger, step);
	return try_ddl_step(all_tables_note(step) ? copy_or_swap : give_up, step);
}

StepResult step_if(Store *store, int wait_ms, bool only_if_left, PartitionWork *work) {
	const TimestampTz began = GetCurrentTimestamp();
	*work = {};
	Relation table = open_store_table(store, AccessShareLock);
	Step step = {store, {}, nullptr, table->rd_rel->relowner, wait_ms, false};
	table_close(table, NoLock);
	SPI_connect();
	StepResult result = StepResult::nothing;
	Identity caller = enter_owner(step.owner);
	switch (lock_repartition(store, only_if_left, &step.state)) {
	case StateLock::none:
		end_progress(store->settings.id, Operation::repartition);
		break;
	case StateLock::busy:
		result = StepResult::in_the_way;
		break;
	case StateLock::locked:
		result = take_step(&step);
		report_progress(store->settings.id, Operation::repartition, step.state.copied,
			Max(step.state.total, step.state.copied));
		break;
	}
	leave_identity(&caller);
	SPI_finish();
	const int64 took = GetCurrentTimestamp() - began;
	work->rest = Max(Min((step.behind ? 1 : kRestPerStep) * took, kLongestRest), 0);
	return result;
}

} // namespace

StepResult repartition_step(Store *store, int wait_ms, PartitionWork *work) {
	return step_if(store, wait_ms, false, work);
}

StepResult resume_repartition_step(Store *store, int wait_ms, PartitionWork *work) {
	return step_if(store, wait_ms, true, work);
}

void abandon_repartition(const Store *store) {
	RepartitionState state;
	if (lock_repartition(store, false, &state) != StateLock::locked)
		return;
	// The table that is not the store's goes.
	const bool swapped = state.phase == RepartitionPhase::swapped;
	const Oid other = swapped ? state.source : state.target;
	ListCell *cell;
	foreach (cell, swapped ? NIL : leaves_of(state.source)) {
		for (const char *suffix : {"", "_truncate"})
			execute_ddl(psprintf("DROP TRIGGER IF EXISTS %s%s ON %s", kNotingTrigger, suffix,
				qualified_name(lfirst_oid(cell))));
	}
	if (get_rel_name(other) != nullptr)
		execute_ddl(psprintf("DROP TABLE %s", qualified_name(other)));
	forget_repartition(&state);
}

} // namespace session_store
