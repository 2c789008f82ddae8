// A set of keyed hashes in one vector.

#include <bit>
#include <cstring>

#include "core/sid_filter.h"

#include "core/cpp_only.h"

namespace session_store::core {

namespace {

constexpr std::size_t kFirstSlots = 1024;

struct SipState {
	std::uint64_t v0, v1, v2, v3;

	void round() noexcept {
		v0 += v1;
		v1 = std::rotl(v1, 13) ^ v0;
		v0 = std::rotl(v0, 32);
		v2 += v3;
		v3 = std::rotl(v3, 16) ^ v2;
		v0 += v3;
		v3 = std::rotl(v3, 21) ^ v0;
		v2 += v1;
		v1 = std::rotl(v1, 17) ^ v2;
		v2 = std::rotl(v2, 32);
	}

	void absorb(std::uint64_t word) noexcept {
		v3 ^= word;
		round();
		v0 ^= word;
	}
};

} // namespace

std::uint64_t keyed_hash(std::string_view bytes, const HashSeed &seed) noexcept {
	SipState state{seed[0] ^ 0x736f6d6570736575U, seed[1] ^ 0x646f72616e646f6dU,
		seed[0] ^ 0x6c7967656e657261U, seed[1] ^ 0x7465646279746573U};
	std::uint64_t last = static_cast<std::uint64_t>(bytes.size()) << 56;
	for (; bytes.size() >= sizeof(std::uint64_t); bytes.remove_prefix(sizeof(std::uint64_t))) {
		std::uint64_t word = 0;
		std::memcpy(&word, bytes.data(), sizeof(word));
		state.absorb(word);
	}
	for (std::size_t i = 0; i < bytes.size(); i++)
		last |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
	state.absorb(last);
	state.v2 ^= 0xffU;
	for (int i = 0; i < 3; i++)
		state.round();
	return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

std::uint64_t SidFilter::hash(std::string_view sid) const noexcept {
	const std::uint64_t hashed = keyed_hash(sid, seed_);
	return hashed == 0 ? 1 : hashed;
}

bool SidFilter::insert(std::string_view sid) {
	if (size_ >= slots_.size() / 4 * 3 && !grow()) {
		const bool known = seen(sid);
		overflowed_ = overflowed_ || !known;
		return !known;
	}
	const std::uint64_t hashed = hash(sid);
	const std::size_t mask = slots_.size() - 1;
	for (std::size_t slot = hashed & mask;; slot = (slot + 1) & mask) {
		if (slots_[slot] == hashed)
			return false;
		if (slots_[slot] == 0) {
			slots_[slot] = hashed;
			size_++;
			return true;
		}
	}
}

bool SidFilter::seen(std::string_view sid) const noexcept {
	if (slots_.empty())
		return false;
	const std::uint64_t hashed = hash(sid);
	const std::size_t mask = slots_.size() - 1;
	for (std::size_t slot = hashed & mask; slots_[slot] != 0; slot = (slot + 1) & mask)
		if (slots_[slot] == hashed)
			return true;
	return false;
}

// Doubles the slots; false when that would go past the limit.
bool SidFilter::grow() {
	const std::size_t length = slots_.empty() ? kFirstSlots : slots_.size() * 2;
	if (length * sizeof(std::uint64_t) > max_bytes_)
		return false;
	std::vector<std::uint64_t> larger(length, 0);
	const std::size_t mask = length - 1;
	for (const std::uint64_t hashed : slots_) {
		if (hashed == 0)
			continue;
		std::size_t slot = hashed & mask;
		while (larger[slot] != 0)
			slot = (slot + 1) & mask;
		larger[slot] = hashed;
	}
	slots_.swap(larger);
	return true;
}

} // namespace session_store::core
