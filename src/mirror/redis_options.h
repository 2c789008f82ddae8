// The options of a Redis: of the foreign server that names it and of its user mappings.
#pragma once

#include "mirror/feed_link.h"
#include "postgres/pg.h"
#include "store/registry.h"

namespace session_store {

// Where a store's Redis is and how to get in. Strings are palloc'd; null where there is none.
struct RedisOptions {
	char *host;
	int port;
	char *path;
	int database;
	bool tls;
	char *tls_ca_file;
	char *tls_cert_file;
	char *tls_key_file;
	int connect_timeout_ms;
	int command_timeout_ms;
	char *username;
	char *password; // of the mapping, or what its password_file holds now
};

// The options of the server, and of the user mapping of `table_owner` or of PUBLIC, if any. ERROR
// when the server is missing, is of another wrapper, or the owner may not use it, or when the
// password file cannot be read. No message holds a password. Needs a transaction.
void load_redis_options(const char *server, Oid table_owner, RedisOptions *options);

// The same for a link of C++; shares the strings.
FeedOptions feed_options(const RedisOptions *options, const char *prefix);

// Overwrites the password in memory.
void forget_password(RedisOptions *options);

// Checks redis_server and redis_prefix of a store that is about to be written: the server can be
// used by the owner of the table, and no other store on the same Redis has an overlapping prefix.
// ERROR when not.
void check_redis_settings(const StoreSettings *settings, Oid table_owner);

} // namespace session_store
