// Fuzzes what becomes of single replies: hiredis' reader, TIME, error codes and their texts.

#include <hiredis/hiredis.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/text.h"
#include "redis/remote_clock.h"
#include "redis/script.h"

namespace {

using namespace session_store::redis;

void look_at(const redisReply &reply) {
	try {
		(void)time_micros(reply);
	} catch (const Error &) {
	}
	if (!is_error(reply))
		return;
	(void)is_outage(reply);
	const std::string code(refusal_code(reply));
	Script script("return 1");
	(void)script.not_run(reply);
	for (const Show show : {Show::code_only, Show::text})
		if (!session_store::core::valid_utf8(server_error(reply, "a test", show).what()))
			std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
	redisReader *reader = redisReaderCreate();
	redisReaderFeed(reader, reinterpret_cast<const char *>(data), size);
	void *reply = nullptr;
	while (redisReaderGetReply(reader, &reply) == REDIS_OK && reply != nullptr) {
		look_at(*static_cast<redisReply *>(reply));
		freeReplyObject(reply);
		reply = nullptr;
	}
	redisReaderFree(reader);
	return 0;
}
