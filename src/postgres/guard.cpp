// C++ failures as PostgreSQL errors.
#include "postgres/guard.h"

#include <cstring>

#include "postgres/pg.h"

extern "C" {
#include "mb/pg_wchar.h"
}

namespace session_store {

void set_cpp_error(CppError *error, int sqlstate, const char *message) noexcept {
	error->sqlstate = sqlstate;
	size_t length = strlen(message);
	if (length >= sizeof(error->message)) {
		length = sizeof(error->message) - 1;
		// Back to the start of a UTF-8 character: databases of other encodings are refused.
		while (length > 0 && (static_cast<unsigned char>(message[length]) & 0xC0) == 0x80)
			--length;
	}
	memcpy(error->message, message, length);
	error->message[length] = '\0';
}

void set_out_of_memory(CppError *error) noexcept {
	set_cpp_error(error, ERRCODE_OUT_OF_MEMORY, "out of memory");
}

void set_cpp_failure(CppError *error, const char *message) noexcept {
	set_cpp_error(error, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, message);
}

void report_cpp_error(const CppError *error) {
	ereport(ERROR, (errcode(error->sqlstate), errmsg("%s", error->message)));
	pg_unreachable();
}

} // namespace session_store
