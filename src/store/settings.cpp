// Settings of a store: checked before they are written, announced after.
#include "mirror/redis_options.h"
#include "postgres/interval.h"
#include "postgres/pg.h"
#include "store/registry.h"
#include "store/table_ddl.h"
#include "worker/shared_state.h"

namespace session_store {

namespace {

struct DurationSetting {
	const char *name;
	bool may_be_zero;
};
constexpr DurationSetting kDurations[] = {
	{"default_ttl", false},
	{"touch_granularity", true},
	{"logout_guard", true},
	{"cleanup_interval", false},
	{"cleanup_max_duration", false},
	{"cleanup_delay", true},
	{"cleanup_grace", true},
	{"verify_interval", false},
};

struct NumberSetting {
	const char *name;
	int minimum;
	int maximum;
};
constexpr NumberSetting kNumbers[] = {
	{"partitions_ahead", 1, 1000},
	{"cleanup_batch_size", 1, 100000},
	{"verify_sample_size", 1, 1000000},
	{"max_delete_percent", 0, 100},
};

bool wake_at_commit = false;

Datum setting(HeapTuple row, TupleDesc descriptor, const char *name, bool *is_null) {
	return SPI_getbinval(row, descriptor, SPI_fnumber(descriptor, name), is_null);
}

Datum required_setting(HeapTuple row, TupleDesc descriptor, const char *name) {
	bool is_null;
	Datum value = setting(row, descriptor, name, &is_null);
	if (is_null)
		ereport(
			ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name)));
	return value;
}

void check_values(HeapTuple row, TupleDesc descriptor) {
	for (const DurationSetting &duration : kDurations) {
		Interval *value = DatumGetIntervalP(required_setting(row, descriptor, duration.name));
		int64 microseconds;
		if (!interval_to_microseconds(value, &microseconds))
			ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("%s is out of range", duration.name)));
		if (microseconds < 0 || (microseconds == 0 && !duration.may_be_zero))
			ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("%s must %s", duration.name,
						duration.may_be_zero ? "not be negative" : "be positive")));
	}
	for (const NumberSetting &number : kNumbers) {
		int value = DatumGetInt32(required_setting(row, descriptor, number.name));
		if (value < number.minimum || value > number.maximum)
			ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("%s must be between %d and %d", number.name, number.minimum,
						number.maximum)));
	}
	const char *eviction = TextDatumGetCString(required_setting(row, descriptor, "on_eviction"));
	if (strcmp(eviction, "keep") != 0 && strcmp(eviction, "delete") != 0)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("on_eviction must be \"keep\" or \"delete\"")));
	text *prefix = DatumGetTextPP(required_setting(row, descriptor, "redis_prefix"));
	if (VARSIZE_ANY_EXHDR(prefix) > kMaxPrefixBytes)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("redis_prefix is longer than %d bytes", kMaxPrefixBytes)));
}

void check_user_id_path(HeapTuple row, TupleDesc descriptor) {
	bool is_null;
	Datum value = setting(row, descriptor, "user_id_path", &is_null);
	if (is_null)
		return;
	ArrayType *path = DatumGetArrayTypeP(value);
	if (ARR_NDIM(path) != 1 || array_contains_nulls(path))
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("user_id_path must be a list of keys, such as {passport,user}")));
	if (strcmp(TextDatumGetCString(required_setting(row, descriptor, "payload")), "jsonb") != 0)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("user_id_path needs a store of jsonb payloads")));
}

// What an existing store may not change, and what it may not change now.
void check_change(const StoreSettings *before, const StoreSettings *after) {
	if (before->id != after->id || before->payload != after->payload ||
		namestrcmp(const_cast<NameData *>(&before->name), NameStr(after->name)) != 0)
		ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("the name and the payload type of a store cannot be changed")));
	bool redis_changed = before->has_redis_server != after->has_redis_server ||
		strcmp(NameStr(before->redis_server), NameStr(after->redis_server)) != 0 ||
		strcmp(before->redis_prefix, after->redis_prefix) != 0;
	if (!redis_changed)
		return;
	if (is_dual(before->phase))
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
				errmsg("redis_server and redis_prefix of store \"%s\" are fixed in phase %s",
					NameStr(before->name), phase_name(before->phase)),
				errhint("Leave the phase with session_store.set_phase() first.")));
	HeapTuple table = SearchSysCache1(RELOID, ObjectIdGetDatum(after->relation));
	if (!HeapTupleIsValid(table))
		return;
	Oid owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(table))->relowner;
	ReleaseSysCache(table);
	check_redis_settings(after, owner);
}

void wake_workers_at_commit(XactEvent event, void *) {
	if (event == XACT_EVENT_COMMIT && wake_at_commit && shared_state_available())
		wake_workers(MyDatabaseId);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wake_at_commit = false;
}

void check_partitions(const StoreSettings *before, const StoreSettings *after) {
	if (after->partition_interval == 0 ||
		(before->default_ttl == after->default_ttl &&
			before->partitions_ahead == after->partitions_ahead &&
			before->partition_interval == after->partition_interval))
		return;
	const core::PartitionRule rule = partition_rule(after);
	warn_of_many_partitions(NameStr(after->name), &rule);
}

} // namespace

} // namespace session_store

using namespace session_store;

// BEFORE INSERT OR UPDATE of the registry. A restored dump inserts rows before it restores the
// rights on servers, so what another object must allow is checked when it is changed only.
SESSION_STORE_FUNCTION(session_store_check_settings) {
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "check_settings: not called as a trigger");
	auto *trigger = reinterpret_cast<TriggerData *>(fcinfo->context);
	TupleDesc descriptor = RelationGetDescr(trigger->tg_relation);
	bool is_update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	HeapTuple row = is_update ? trigger->tg_newtuple : trigger->tg_trigtuple;
	if (RelationGetRelid(trigger->tg_relation) != registry_relation())
		elog(ERROR, "check_settings: not a trigger of the registry");
	check_values(row, descriptor);
	check_user_id_path(row, descriptor);
	if (is_update) {
		StoreSettings before;
		StoreSettings after;
		settings_of_row(trigger->tg_trigtuple, descriptor, &before);
		settings_of_row(row, descriptor, &after);
		check_change(&before, &after);
		check_partitions(&before, &after);
	}
	return PointerGetDatum(row);
}

// AFTER any statement that wrote the registry.
SESSION_STORE_FUNCTION(session_store_registry_changed) {
	static bool callback_registered = false;
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "registry_changed: not called as a trigger");
	auto *trigger = reinterpret_cast<TriggerData *>(fcinfo->context);
	CacheInvalidateRelcache(trigger->tg_relation);
	if (!callback_registered) {
		RegisterXactCallback(wake_workers_at_commit, nullptr);
		callback_registered = true;
	}
	wake_at_commit = true;
	return PointerGetDatum(nullptr);
}
