// Random histories of one sid on both sides, copied by a model of the mirror that asks decide():
// what must come out of it, by rules that know nothing of decide().

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <random>
#include <vector>

#include "core/decide.h"

namespace session_store::core {
namespace {

// What a side holds. Every write has a number of its own, so that equal means "that very write".
struct State {
	bool there = false;
	int payload = 0;
	int expiry = 0;

	friend bool operator==(const State &a, const State &b) {
		return a.there == b.there && (!a.there || (a.payload == b.payload && a.expiry == b.expiry));
	}
};

struct Outbox {
	State base;         // what this write replaced
	bool payload_moved; // it changed the payload, or there was no row
	bool ended;
};

// Where a test may let somebody write in the middle of a step of the mirror.
using Between = std::function<void()>;

struct World {
	State redis;
	State postgres;
	std::vector<Outbox> outbox;
	Tombstone tombstone = Tombstone::none;
	Owner owner = Owner::redis;
	int last = 0;

	void write_redis(bool payload, bool expiry) {
		if (!redis.there)
			payload = expiry = true;
		if (payload)
			redis.payload = ++last;
		if (expiry)
			redis.expiry = ++last;
		redis.there = true;
	}
	void end_redis() { redis.there = false; }
	void write_postgres(bool payload, bool expiry) {
		if (!postgres.there && tombstone != Tombstone::none)
			return; // the guard refuses it
		if (!postgres.there)
			payload = expiry = true;
		outbox.push_back({postgres, payload, false});
		if (payload)
			postgres.payload = ++last;
		if (expiry)
			postgres.expiry = ++last;
		postgres.there = true;
	}
	void end_postgres() {
		if (!postgres.there)
			return;
		outbox.push_back({postgres, true, true});
		postgres.there = false;
		tombstone = Tombstone::by_postgres;
	}

	// As src/mirror/situation.cpp sees it.
	Situation situation(const State &read) const {
		Situation s;
		s.redis = read.there ? RedisState::value : RedisState::absent;
		s.postgres = postgres.there ? PostgresState::live : PostgresState::absent;
		s.owner = owner;
		s.tombstone = tombstone;
		bool payload = false;
		bool expiry = false;
		bool absence = false;
		bool mine_payload = true;
		bool mine_expiry = true;
		bool ended = false;
		for (const Outbox &one : outbox) {
			ended = ended || one.ended;
			absence = absence || !one.base.there;
			mine_payload = mine_payload && !one.payload_moved;
			if (!one.base.there) {
				mine_expiry = false;
				continue;
			}
			mine_expiry = mine_expiry && postgres.there && one.base.expiry == postgres.expiry;
			expiry = expiry || (read.there && one.base.expiry == read.expiry);
			payload =
				payload || (read.there && one.payload_moved && one.base.payload == read.payload);
		}
		s.pending = outbox.empty() ? Pending::none
			: !ended               ? Pending::changed
			: postgres.there       ? Pending::renewed
								   : Pending::ended;
		const auto changed = [&](bool same, bool is_base, bool mine_is_base) {
			return same          ? Changed::none
				: outbox.empty() ? Changed::redis
				: is_base        ? Changed::postgres
				: mine_is_base   ? Changed::redis
								 : Changed::both;
		};
		s.redis_is_base = read.there ? expiry : absence;
		if (read.there && postgres.there) {
			const bool same = read.payload == postgres.payload;
			s.payload = changed(same, payload, mine_payload);
			s.expiry = changed(read.expiry == postgres.expiry, expiry, mine_expiry);
			s.redis_is_base = (payload || (same && mine_payload)) && expiry;
		}
		return s;
	}

	// One step. False when there was nothing to do.
	bool step(const Between &between = [] {}) {
		const State read = redis;
		between();
		const std::size_t seen = outbox.size();
		const Decision decision = decide(situation(read));
		State pushed = read;
		bool pushes = false;
		switch (decision.action) {
		case Action::nothing:
			break;
		case Action::write:
			if (decision.payload == Direction::to_postgres)
				postgres.payload = read.payload;
			if (decision.expiry == Direction::to_postgres)
				postgres.expiry = read.expiry;
			if (!postgres.there) {
				postgres.there = true;
				tombstone = Tombstone::none;
			}
			pushed = postgres;
			pushes =
				decision.payload == Direction::to_redis || decision.expiry == Direction::to_redis;
			break;
		case Action::delete_postgres:
			postgres.there = false;
			if (decision.ended)
				tombstone = Tombstone::by_redis;
			break;
		case Action::delete_redis:
			pushed.there = false;
			pushes = true;
			break;
		case Action::hold:
		case Action::reject:
		case Action::retry:
			ADD_FAILURE() << "no reason for: " << action_name(decision.action);
		}
		between();
		if (pushes && !(redis == read))
			return true; // the compare failed: again
		if (pushes)
			redis = pushed;
		outbox.erase(outbox.begin(), outbox.begin() + static_cast<std::ptrdiff_t>(seen));
		return decision.action != Action::nothing || !outbox.empty() || !(redis == read);
	}

	// Writes have stopped: both sides must become equal, and stay so.
	void settle() {
		for (int i = 0; i < 10 && step(); i++) {
		}
		ASSERT_FALSE(step()) << "goes round in circles";
		ASSERT_EQ(redis, postgres);
		ASSERT_TRUE(outbox.empty());
		tombstone = Tombstone::none; // the guard is over
	}
};

class Simulation : public testing::Test {
protected:
	int below(int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); }
	// Somebody does something somewhere. True when it was a logout that ended something.
	bool act(World *world) {
		const bool payload = below(2) == 0;
		const bool expiry = !payload || below(2) == 0;
		switch (below(6)) {
		case 0:
			world->end_redis();
			return false;
		case 1: {
			const bool ends = world->postgres.there;
			world->end_postgres();
			return ends;
		}
		case 2:
		case 3:
			world->write_redis(payload, expiry);
			return false;
		default:
			world->write_postgres(payload, expiry);
			return false;
		}
	}
	World settled() {
		World world;
		world.owner = below(2) == 0 ? Owner::redis : Owner::postgres;
		if (below(4) != 0) {
			world.write_redis(true, true);
			world.settle();
		}
		return world;
	}

	std::mt19937 random{7};
	static constexpr int kHistories = 200'000;
};

TEST_F(Simulation, BothSidesBecomeEqualWhateverHappensWhen) {
	for (int i = 0; i < kHistories; i++) {
		World world = settled();
		bool ended_last = false;
		const auto maybe_act = [&] {
			if (below(4) == 0)
				ended_last = act(&world);
		};
		for (int j = below(8); j >= 0; j--)
			world.step(maybe_act);
		ASSERT_NO_FATAL_FAILURE(world.settle()) << i;
		if (ended_last) {
			ASSERT_FALSE(world.redis.there) << "a logout is a logout, history " << i;
		}
	}
}

TEST_F(Simulation, AChangeOfOneSideAloneIsCopied) {
	for (int i = 0; i < kHistories; i++) {
		World world = settled();
		const bool in_redis = below(2) == 0;
		for (int j = below(4); j >= 0; j--) {
			const bool payload = below(2) == 0;
			if (below(5) == 0)
				in_redis ? world.end_redis() : world.end_postgres();
			else if (in_redis)
				world.write_redis(payload, !payload);
			else
				world.write_postgres(payload, !payload);
		}
		const State expected = in_redis ? world.redis : world.postgres;
		ASSERT_NO_FATAL_FAILURE(world.settle()) << i;
		ASSERT_EQ(world.redis, expected) << i;
	}
}

TEST_F(Simulation, InAConflictTheOwnerWinsFieldByField) {
	for (int i = 0; i < kHistories; i++) {
		World world = settled();
		if (!world.redis.there)
			continue;
		const State base = world.redis;
		for (int j = below(4); j > 0; j--)
			world.write_redis(below(2) == 0, below(2) == 0);
		for (int j = below(4); j > 0; j--)
			world.write_postgres(below(2) == 0, below(2) == 0);
		const State redis = world.redis;
		const State postgres = world.postgres;
		const bool redis_owns = world.owner == Owner::redis;
		const auto winner = [&](int was, int there, int here) {
			return there == was ? here : here == was ? there : redis_owns ? there : here;
		};
		ASSERT_NO_FATAL_FAILURE(world.settle()) << i;
		ASSERT_EQ(world.redis.payload, winner(base.payload, redis.payload, postgres.payload)) << i;
		ASSERT_EQ(world.redis.expiry, winner(base.expiry, redis.expiry, postgres.expiry)) << i;
	}
}

TEST_F(Simulation, ALogoutBeatsEveryWriteMadeBeforeItOnTheOtherSide) {
	for (int i = 0; i < kHistories; i++) {
		World world = settled();
		if (!world.redis.there)
			continue;
		for (int j = below(4); j > 0; j--)
			world.write_redis(below(2) == 0, below(2) == 0);
		for (int j = below(4); j > 0; j--)
			world.write_postgres(below(2) == 0, below(2) == 0);
		if (below(2) == 0)
			world.end_postgres();
		else
			world.end_redis();
		ASSERT_NO_FATAL_FAILURE(world.settle()) << i;
		ASSERT_FALSE(world.redis.there) << i;
	}
}

TEST_F(Simulation, ALateWriteWithinTheGuardComesBackOnlyWhereItMay) {
	for (const Owner owner : {Owner::redis, Owner::postgres})
		for (const bool ended_here : {false, true}) {
			World world;
			world.owner = owner;
			world.write_redis(true, true);
			world.settle();
			if (ended_here)
				world.end_postgres();
			else
				world.end_redis();
			while (world.step()) {
			}
			world.write_redis(true, true); // the guard is not over
			while (world.step()) {
			}
			EXPECT_EQ(world.redis.there, owner == Owner::redis && !ended_here);
			EXPECT_EQ(world.redis, world.postgres);
		}
}

} // namespace
} // namespace session_store::core
