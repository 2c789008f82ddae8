// The settings of postgresql.conf, and what session_store.databases means.
#include "worker/worker.h"

extern "C" {
#include "parser/scansup.h"
}

namespace session_store {

char *worker_databases = nullptr;
int worker_naptime_ms = 1000;
bool track_statistics = true;

namespace {

constexpr int kMinNaptimeMs = 10;
constexpr int kMaxNaptimeMs = 60 * 60 * 1000;

// Steps to the next name of a comma separated list, quotes and outer spaces taken off. Returns
// where to go on, or null at the end of the list. A name that is too long for a database comes out
// empty.
const char *next_name(const char *list, char *name) {
	name[0] = '\0';
	while (scanner_isspace(*list))
		list++;
	if (*list == '\0')
		return nullptr;
	size_t length = 0;
	size_t without_spaces = 0;
	bool quoted = false;
	for (; *list != '\0' && (quoted || *list != ','); list++) {
		if (*list == '"' && (!quoted || list[1] != '"')) {
			quoted = !quoted;
			continue;
		}
		if (*list == '"')
			list++;
		if (length < NAMEDATALEN)
			name[length] = *list;
		length++;
		if (quoted || !scanner_isspace(*list))
			without_spaces = length;
	}
	if (without_spaces >= NAMEDATALEN)
		without_spaces = 0;
	name[without_spaces] = '\0';
	return *list == ',' ? list + 1 : list;
}

bool check_databases(char **value, void **, GucSource) {
	bool quoted = false;
	for (const char *c = *value; *c != '\0'; c++) {
		if (*c == '"')
			quoted = !quoted;
	}
	if (quoted)
		GUC_check_errdetail("A double quote is not closed.");
	return !quoted;
}

} // namespace

bool database_is_listed(const char *database) {
	char name[NAMEDATALEN];
	for (const char *list = next_name(worker_databases, name); list != nullptr;
		 list = next_name(list, name)) {
		if (strcmp(name, database) == 0)
			return true;
	}
	return false;
}

void init_worker_settings() {
	DefineCustomStringVariable("session_store.databases",
		"Names the databases in which the workers of session_store run.",
		"A comma separated list. A database that does not exist is waited for.", &worker_databases,
		"postgres", PGC_SIGHUP, GUC_LIST_INPUT, check_databases, nullptr, nullptr);
	DefineCustomIntVariable("session_store.naptime",
		"Sets the longest sleep of a worker of session_store.", nullptr, &worker_naptime_ms, 1000,
		kMinNaptimeMs, kMaxNaptimeMs, PGC_SIGHUP, GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomBoolVariable("session_store.track",
		"Collects statistics about the work of session_store.",
		"While it is off, the counters of session_store.stat_mirror stay 0.", &track_statistics,
		true, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
	MarkGUCPrefixReserved("session_store");
}

} // namespace session_store
