// The library's entry point, and nothing else.
#include "postgres/pg.h"
#include "worker/shared_state.h"
#include "worker/worker.h"

extern "C" {
PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
}

void _PG_init(void) {
	session_store::init_worker_settings();
	// Without preloading there are no workers; every SQL function works all the same.
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	session_store::request_shared_state();
	session_store::register_launcher();
	session_store::install_utility_hook();
}
