// What was last written to Redis, to know it again: in 16 bytes a key.
//
// Every write of ours comes back as a hint. When the key then still holds exactly what was written,
// the hint says nothing: what that state replaced has been settled, and whatever PostgreSQL has
// changed since asks for the key by itself. So what is kept of a key is the state on which both
// sides agreed last, or nothing: whoever reads the key for another reason has to forget() it, since
// the two may then agree on something else. Forgetting costs one look more and is always right.
//
// A digest of key and state under a random key; two states are taken for the same about once in
// 2^64 questions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/sid_filter.h"

#include "core/cpp_only.h"

namespace session_store::core {

// What a key holds; nothing when it is absent.
struct KeyState {
	bool absent;
	std::int64_t expire_ms;
	std::string_view value;
};

class Echoes {
public:
	// Remembers at most so many keys; where too many fall together the later ones.
	Echoes(const HashSeed &seed, std::size_t keys) : seed_(seed), sets_(keys / kWays + 1) {}

	void note(std::string_view key, const KeyState &written);
	// Whether this is what was noted last of the key. It is forgotten either way.
	bool take(std::string_view key, const KeyState &read);
	void forget(std::string_view key);
	void clear();

private:
	static constexpr std::size_t kWays = 4;
	struct Known {
		std::uint64_t key = 0;   // its hash
		std::uint64_t state = 0; // with the key; 0: free
	};
	using Set = std::array<Known, kWays>;

	Known *find(std::uint64_t key);
	std::uint64_t digest(std::uint64_t key, const KeyState &state) const noexcept;

	HashSeed seed_;
	std::vector<Set> sets_;
	std::size_t next_way_ = 0; // to be given up in a set that is full
	bool any_ = false;
};

} // namespace session_store::core
