// The boundary between C++ exceptions and ereport: neither crosses it.
#pragma once

#include <exception>
#include <new>

namespace session_store {

// What a C++ failure leaves behind: plain data, so that it survives a longjmp.
struct CppError {
	int sqlstate;
	char message[256];
};

// Fills `error`; the message is clipped on a character boundary. Defined in guard.cpp.
void set_cpp_error(CppError *error, int sqlstate, const char *message) noexcept;
void set_out_of_memory(CppError *error) noexcept;
void set_cpp_failure(CppError *error, const char *message) noexcept;

// Runs `fn`, which must call no PostgreSQL function that can ereport. Returns true, or false with
// `error` filled. The caller reports only after this has returned: never inside a catch block.
template <typename Fn>
bool run_cpp(CppError *error, Fn &&fn) noexcept {
	try {
		fn();
		return true;
	} catch (const std::bad_alloc &) {
		set_out_of_memory(error);
	} catch (const std::exception &e) {
		set_cpp_failure(error, e.what());
	} catch (...) {
		set_cpp_failure(error, "unknown C++ exception");
	}
	return false;
}

// Raises `error` as a PostgreSQL ERROR. For glue only, outside any catch block.
[[noreturn]] void report_cpp_error(const CppError *error);

} // namespace session_store
