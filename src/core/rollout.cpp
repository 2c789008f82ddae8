// The rollout bucket of a sid.

#include <zlib.h>

#include <limits>

#include "core/rollout.h"

#include "core/cpp_only.h"

namespace session_store::core {

unsigned rollout_bucket(std::string_view sid) noexcept {
	constexpr unsigned kBuckets = 100;
	constexpr std::size_t kChunk = std::numeric_limits<uInt>::max();
	uLong crc = crc32(0, nullptr, 0);
	while (!sid.empty()) {
		const std::string_view chunk = sid.substr(0, kChunk);
		crc = crc32(
			crc, reinterpret_cast<const Bytef *>(chunk.data()), static_cast<uInt>(chunk.size()));
		sid.remove_prefix(chunk.size());
	}
	return static_cast<unsigned>(crc % kBuckets);
}

bool postgres_owns(std::string_view sid, int rollout_percent) noexcept {
	return rollout_percent > 0 && rollout_bucket(sid) < static_cast<unsigned>(rollout_percent);
}

} // namespace session_store::core
