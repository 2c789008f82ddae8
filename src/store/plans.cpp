// The statements of the session functions.
// Every value is a parameter and every name is quoted; they run with the rights of the caller.
#include "store/plans.h"

namespace session_store {

namespace {

constexpr int kMaxPlanArguments = 6;

struct PlanText {
	const char *sql; // %s: the quoted table
	int arguments;
	Oid types[kMaxPlanArguments]; // InvalidOid: the store's payload type
};

// By StorePlan. In all of them $1 is the sid (or the user) and the last timestamp "now".
constexpr PlanText kPlans[kStorePlans] = {
	// upsert: sid, sess, user_id, expire, now
	{"INSERT INTO %s AS s (sid, sess, user_id, expire) VALUES ($1, $2, $3, $4) "
	 "ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire, user_id = "
	 "CASE WHEN s.expire > $5 THEN coalesce(excluded.user_id, s.user_id) "
	 "ELSE excluded.user_id END RETURNING version",
		5, {TEXTOID, InvalidOid, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID}},
	// insert_not_live: sid, sess, user_id, expire, now
	{"INSERT INTO %s AS s (sid, sess, user_id, expire) VALUES ($1, $2, $3, $4) "
	 "ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire, "
	 "user_id = excluded.user_id WHERE s.expire <= $5 RETURNING version",
		5, {TEXTOID, InvalidOid, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID}},
	// update_version: sid, sess, user_id, expire, now, expected version
	{"UPDATE %s SET sess = $2, expire = $4, user_id = coalesce($3, user_id) "
	 "WHERE sid = $1 AND version = $6 "
	 "AND expire > $5 RETURNING version",
		6, {TEXTOID, InvalidOid, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID}},
	// touch: sid, what to set when expire is earlier than asked, asked, the latest that stays, now
	{"UPDATE %s SET expire = CASE WHEN expire < $3 THEN $2 ELSE $3 END "
	 "WHERE sid = $1 AND expire > $5 "
	 "AND (expire < $3 OR expire > $4)",
		5, {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}},
	// expire: sid, now
	{"DELETE FROM %s WHERE sid = $1 AND expire > $2", 2, {TEXTOID, TIMESTAMPTZOID}},
	// destroy: sid
	{"DELETE FROM %s WHERE sid = $1 RETURNING expire", 1, {TEXTOID}},
	// merge: sid, now
	{"SELECT sess, version FROM %s WHERE sid = $1 AND expire > $2 FOR NO KEY UPDATE", 2,
		{TEXTOID, TIMESTAMPTZOID}},
	// expire_user: user, the sid to keep, now
	{"WITH theirs AS MATERIALIZED (SELECT sid FROM %1$s WHERE user_id = $1 "
	 "AND expire > $3 AND ($2 IS NULL OR sid <> $2) "
	 "ORDER BY sid FOR UPDATE) "
	 "DELETE FROM %1$s WHERE sid IN (SELECT sid FROM theirs) "
	 "AND user_id = $1 AND expire > $3",
		3, {TEXTOID, TEXTOID, TIMESTAMPTZOID}},
	// user_sessions: user, now
	{"SELECT sid, sess, created_at, updated_at, expire FROM %s "
	 "WHERE user_id = $1 AND expire > $2 "
	 "ORDER BY created_at, sid",
		2, {TEXTOID, TIMESTAMPTZOID}},
	// insert: sid, sess, user_id, expire
	{"INSERT INTO %s (sid, sess, user_id, expire) VALUES ($1, $2, $3, $4) RETURNING version", 4,
		{TEXTOID, InvalidOid, TEXTOID, TIMESTAMPTZOID}},
	// update: sid, sess, user_id, expire, now
	{"UPDATE %s SET sess = $2, expire = $4, user_id = "
	 "CASE WHEN expire > $5 THEN coalesce($3, user_id) ELSE $3 END "
	 "WHERE sid = $1 RETURNING version",
		5, {TEXTOID, InvalidOid, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID}},
	// update_not_live: sid, sess, user_id, expire, now
	{"UPDATE %s SET sess = $2, expire = $4, user_id = $3 "
	 "WHERE sid = $1 AND expire <= $5 RETURNING version",
		5, {TEXTOID, InvalidOid, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID}},
	// user_sids: user, the sid to keep, now
	{"SELECT sid FROM %s WHERE user_id = $1 AND expire > $3 AND ($2 IS NULL OR sid <> $2) "
	 "ORDER BY sid",
		3, {TEXTOID, TEXTOID, TIMESTAMPTZOID}},
	// expire_sids: user, sids, now
	{"DELETE FROM %s WHERE sid = ANY ($2) AND user_id = $1 AND expire > $3", 3,
		{TEXTOID, TEXTARRAYOID, TIMESTAMPTZOID}},
};

} // namespace

char *quoted_table(const Store *store) {
	Oid relation = store->settings.relation;
	return quote_qualified_identifier(
		get_namespace_name(get_rel_namespace(relation)), get_rel_name(relation));
}

SPIPlanPtr store_plan(Store *store, StorePlan kind) {
	SPIPlanPtr *plan = &store->plans[static_cast<int>(kind)];
	if (*plan != nullptr)
		return *plan;
	const PlanText &text = kPlans[static_cast<int>(kind)];
	Oid types[kMaxPlanArguments];
	for (int i = 0; i < text.arguments; i++) {
		types[i] = text.types[i];
		if (types[i] == InvalidOid)
			types[i] = store->settings.payload == Payload::jsonb ? JSONBOID : BYTEAOID;
	}
	SPIPlanPtr prepared =
		SPI_prepare(psprintf(text.sql, quoted_table(store)), text.arguments, types);
	if (prepared == nullptr)
		elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(prepared);
	*plan = prepared;
	return prepared;
}

} // namespace session_store
