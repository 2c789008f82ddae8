// Which sids a SCAN reported, in 11 to 22 bytes each: a set of keyed 64-bit hashes.
//
// Answers "seen" wrongly about once in 2^64 / n questions, with other keys at every comparison, so
// a deleted session that one comparison overlooks is found by the next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/cpp_only.h"

namespace session_store::core {

// SipHash-1-3 under a 128-bit key.
using HashSeed = std::array<std::uint64_t, 2>;
std::uint64_t keyed_hash(std::string_view bytes, const HashSeed &seed) noexcept;

class SidFilter {
public:
	SidFilter(const HashSeed &seed, std::size_t max_bytes) : seed_(seed), max_bytes_(max_bytes) {}

	// True when the sid was not there. At the byte limit it is not taken, the answer is true, and
	// overflowed() says that seen() no longer means much: a sid not seen may have been.
	bool insert(std::string_view sid);
	bool seen(std::string_view sid) const noexcept;

	std::size_t size() const { return size_; }
	std::size_t bytes() const { return slots_.size() * sizeof(std::uint64_t); }
	bool overflowed() const { return overflowed_; }

private:
	std::uint64_t hash(std::string_view sid) const noexcept;
	bool grow();

	HashSeed seed_;
	std::size_t max_bytes_;
	std::vector<std::uint64_t> slots_; // open addressing, 0 is free, a power of two long
	std::size_t size_ = 0;
	bool overflowed_ = false;
};

} // namespace session_store::core
