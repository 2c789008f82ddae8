// From a row and what is pending of it to the situation that is decided about.
#include "mirror/situation.h"

#include "store/outbox.h"
#include "store/ownership.h"

namespace session_store {

namespace {

// A key that is gone so shortly before its time has expired: Redis' clock is known no better.
constexpr int64 kClockSlack = 50 * 1000; // microseconds

// Which fields of Redis are what a write that is pending replaced.
struct Bases {
	bool payload;
	bool expiry;
	bool absence;
	bool mine_payload; // the row's own payload is what it was before
	bool mine_expiry;
};

bool has_expired(TimestampTz expire, const MirrorStance *stance, TimestampTz now) {
	return expire <= now + stance->clock_difference + kClockSlack;
}

Bases find_bases(const MirrorRow *row, const MirrorStance *stance, TimestampTz now) {
	Bases bases = {false, false, false, true, true};
	const bool holds_value = row->judged.state == core::RedisState::value;
	int64 digest = 0;
	bool digested = false;
	for (int i = 0; i < row->pending_count; i++) {
		const OutboxRow *pending = &row->pending[i];
		if (!pending->has_base) {
			bases.absence = true;
			bases.mine_payload = bases.mine_expiry = false;
			continue;
		}
		bases.absence |= has_expired(pending->base_expire, stance, now);
		bases.mine_expiry &= row->in_table && pending->base_expire == row->expire;
		if (holds_value)
			bases.expiry |= pending->base_expire == row->judged.expire;
		if (!pending->has_digest)
			continue;
		bases.mine_payload = false;
		if (row->judged.sess == 0)
			continue;
		if (!digested)
			digest = payload_digest(row->judged.sess);
		digested = true;
		bases.payload |= pending->digest == digest;
	}
	return bases;
}

// Whether what becomes of the session depends on the payload in Redis. It does not where
// PostgreSQL owns the session and has changed the payload: Redis gets that, whatever it holds.
bool payload_matters(const MirrorRow *row, core::Owner owner, TimestampTz now) {
	if (owner != core::Owner::postgres || !row->in_table || row->expire <= now)
		return true;
	bool changed = false;
	for (int i = 0; i < row->pending_count; i++) {
		if (row->pending[i].ended)
			return true;
		changed |= row->pending[i].has_digest;
	}
	return !changed;
}

core::Pending pending_of(const MirrorRow *row, bool live) {
	bool ended = false;
	for (int i = 0; i < row->pending_count; i++)
		ended |= row->pending[i].ended;
	if (ended)
		return live ? core::Pending::renewed : core::Pending::ended;
	return row->pending_count > 0 ? core::Pending::changed : core::Pending::none;
}

core::Changed changed(bool same, bool pending, bool redis_is_base, bool mine_is_base) {
	if (same)
		return core::Changed::none;
	if (!pending)
		return core::Changed::redis;
	if (redis_is_base)
		return core::Changed::postgres;
	return mine_is_base ? core::Changed::redis : core::Changed::both;
}

void compare_fields(const MirrorRow *row, const Bases *bases, bool same_sess, bool same_expiry,
	core::Situation *situation) {
	const bool pending = row->pending_count > 0;
	situation->payload = changed(same_sess, pending, bases->payload, bases->mine_payload);
	situation->expiry = changed(same_expiry, pending, bases->expiry, bases->mine_expiry);
	// A payload that stayed as it was: what both sides had is the base.
	situation->redis_is_base =
		(bases->payload || (same_sess && bases->mine_payload)) && bases->expiry;
}

void describe_value(
	const MirrorRow *row, const Bases *bases, Payload type, TimestampTz now, core::Situation *s) {
	s->redis_is_base = false;
	if (!row->in_table) {
		s->redis_is_base = bases->expiry;
		return;
	}
	const bool same_sess = row->judged.sess != 0 && same_payload(row, type);
	const bool same_expiry = row->expire == row->judged.expire;
	// Even a row past its expiry needs nothing when Redis holds the same.
	if (row->expire > now || (same_sess && same_expiry))
		s->postgres = core::PostgresState::live;
	compare_fields(row, bases, same_sess, same_expiry, s);
}

void describe_absence(const MirrorRow *row, const Bases *bases, const MirrorStance *stance,
	TimestampTz now, core::Situation *s) {
	s->redis_is_base = bases->absence;
	if (row->in_table && row->expire > now && !has_expired(row->expire, stance, now))
		s->postgres = core::PostgresState::live;
}

void take_stance(const MirrorStance *stance, const MirrorRow *row, core::Situation *s) {
	s->continuity = stance->continuity;
	s->postgres_deletes = stance->postgres_deletes;
	s->redis_deletes = stance->redis_deletes;
	// It was there after the gap, so that its end was seen as such.
	if (s->redis == core::RedisState::absent && s->continuity == core::Continuity::broken &&
		feed_seen(row->item->sid)) {
		s->continuity = core::Continuity::kept;
		s->postgres_deletes = core::Deletes::allowed;
	}
}

} // namespace

core::Owner owner_of(const StoreSettings *store, std::string_view sid) {
	return postgres_owns(store, sid) ? core::Owner::postgres : core::Owner::redis;
}

void decide_row(const StoreSettings *store, const MirrorStance *stance, Look look, MirrorRow *row,
	TimestampTz now) {
	core::Situation situation;
	situation.owner = owner_of(store, row->item->sid);
	if (payload_matters(row, situation.owner, now))
		convert_payload(row->item, store->payload, look, &row->judged);
	const Bases bases = find_bases(row, stance, now);
	situation.redis = row->judged.state;
	situation.tombstone = row->tombstone;
	situation.eviction =
		row->evicted || (row->item->evicted && store->on_eviction == OnEviction::keep)
		? core::Eviction::kept
		: core::Eviction::none;
	take_stance(stance, row, &situation);
	if (situation.redis == core::RedisState::value)
		describe_value(row, &bases, store->payload, now, &situation);
	else
		describe_absence(row, &bases, stance, now, &situation);
	situation.pending = pending_of(row, row->in_table && row->expire > now);
	row->decision = core::decide(situation);
	// What Redis evicted was no logout.
	if (row->item->evicted)
		row->decision.ended = false;
}

} // namespace session_store
