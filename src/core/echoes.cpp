// A few digests at each place that a key's hash can give it.

#include <algorithm>

#include "core/echoes.h"

#include "core/cpp_only.h"

namespace session_store::core {

void Echoes::note(std::string_view key, const KeyState &written) {
	const std::uint64_t hashed = keyed_hash(key, seed_);
	Known *known = find(hashed);
	if (known == nullptr) {
		Set &set = sets_[hashed % sets_.size()];
		known =
			std::find_if(set.begin(), set.end(), [](const Known &one) { return one.state == 0; });
		if (known == set.end())
			known = &set[next_way_++ % kWays];
	}
	*known = {hashed, digest(hashed, written)};
	any_ = true;
}

bool Echoes::take(std::string_view key, const KeyState &read) {
	if (!any_)
		return false;
	const std::uint64_t hashed = keyed_hash(key, seed_);
	Known *known = find(hashed);
	if (known == nullptr)
		return false;
	const bool same = known->state == digest(hashed, read);
	*known = {};
	return same;
}

void Echoes::forget(std::string_view key) {
	if (!any_)
		return;
	if (Known *known = find(keyed_hash(key, seed_)); known != nullptr)
		*known = {};
}

void Echoes::clear() {
	if (any_)
		std::fill(sets_.begin(), sets_.end(), Set{});
	any_ = false;
}

// What is known of the key; null when nothing is.
Echoes::Known *Echoes::find(std::uint64_t key) {
	for (Known &known : sets_[key % sets_.size()])
		if (known.key == key && known.state != 0)
			return &known;
	return nullptr;
}

std::uint64_t Echoes::digest(std::uint64_t key, const KeyState &state) const noexcept {
	const std::array<std::uint64_t, 4> parts{key, state.absent ? 1U : 0U,
		state.absent ? 0 : static_cast<std::uint64_t>(state.expire_ms),
		state.absent ? 0 : keyed_hash(state.value, seed_)};
	const std::uint64_t hashed =
		keyed_hash({reinterpret_cast<const char *>(parts.data()), sizeof(parts)}, seed_);
	return hashed == 0 ? 1 : hashed;
}

} // namespace session_store::core
