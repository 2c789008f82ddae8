// Options of session_store_redis servers and user mappings: checked when written, read when used.
#include <climits>

#include "mirror/redis_options.h"

extern "C" {
#include "access/reloptions.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "storage/fd.h"
#include "storage/lmgr.h"
}

#include "core/text.h"

namespace session_store {

namespace {

constexpr const char *kWrapper = "session_store_redis";
constexpr int kDefaultPort = 6379;
constexpr int kHighestPort = 65535;
constexpr int kDefaultTimeoutMs = 3000;
constexpr int kLongestTimeoutMs = 600000;
constexpr int kLongestSocketPath = 107; // sun_path, with its NUL
constexpr int kLongestPassword = 4096;

enum class Kind : uint8_t { text, port, number, flag, duration, socket_path, file };

struct OptionRule {
	const char *name;
	Oid catalog;
	Kind kind;
};

constexpr OptionRule kRules[] = {
	{"host", ForeignServerRelationId, Kind::text},
	{"port", ForeignServerRelationId, Kind::port},
	{"path", ForeignServerRelationId, Kind::socket_path},
	{"database", ForeignServerRelationId, Kind::number},
	{"tls", ForeignServerRelationId, Kind::flag},
	{"tls_ca_file", ForeignServerRelationId, Kind::file},
	{"tls_cert_file", ForeignServerRelationId, Kind::file},
	{"tls_key_file", ForeignServerRelationId, Kind::file},
	{"connect_timeout", ForeignServerRelationId, Kind::duration},
	{"command_timeout", ForeignServerRelationId, Kind::duration},
	{"username", UserMappingRelationId, Kind::text},
	{"password", UserMappingRelationId, Kind::text},
	{"password_file", UserMappingRelationId, Kind::file},
};

const OptionRule *find_rule(const char *name, Oid catalog) {
	for (const OptionRule &rule : kRules)
		if (rule.catalog == catalog && strcmp(rule.name, name) == 0)
			return &rule;
	return nullptr;
}

// A statement with a rejected option is never logged: it may hold a password.
[[noreturn]] void reject_option_name(const char *name, Oid catalog) {
	StringInfoData valid;
	initStringInfo(&valid);
	for (const OptionRule &rule : kRules)
		if (rule.catalog == catalog)
			appendStringInfo(&valid, "%s%s", valid.len > 0 ? ", " : "", rule.name);
	ereport(ERROR,
		(errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errhidestmt(true),
			errmsg("invalid option \"%s\"", name),
			valid.len > 0 ? errhint("Valid options in this context are: %s.", valid.data)
						  : errhint("There are no valid options in this context.")));
	pg_unreachable();
}

[[noreturn]] void reject_value(const char *option, const char *expected) {
	ereport(ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errhidestmt(true),
			errmsg("invalid value for option \"%s\"", option), errhint("%s", expected)));
	pg_unreachable();
}

[[noreturn]] void reject_pair(const char *option, const char *other) {
	ereport(ERROR,
		(errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errhidestmt(true),
			errmsg("option \"%s\" cannot be given together with \"%s\"", option, other)));
	pg_unreachable();
}

// Decimal digits alone, unlike parse_int, which also takes fractions and other bases.
int parse_number(const char *option, const char *value, int least, int most, const char *expected) {
	char *end = nullptr;
	errno = 0;
	const long number = strtol(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 || number < least ||
		number > most)
		reject_value(option, expected);
	return static_cast<int>(number);
}

int parse_duration(const char *option, const char *value) {
	int milliseconds;
	if (!parse_int(value, &milliseconds, GUC_UNIT_MS, nullptr) || milliseconds < 1 ||
		milliseconds > kLongestTimeoutMs)
		reject_value(option,
			"It is a time of 1 ms to 10 min: milliseconds, or a number with a "
			"unit, such as '5s'.");
	return milliseconds;
}

bool parse_flag(const char *option, const char *value) {
	bool flag;
	if (!parse_bool(value, &flag))
		reject_value(option, "It is on or off.");
	return flag;
}

void require_file_rights(const char *option) {
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errhidestmt(true),
				errmsg("permission denied to use option \"%s\"", option),
				errdetail("Only a superuser or a member of role \"pg_read_server_files\" may name "
						  "files of the server.")));
}

void check_value(const OptionRule *rule, const char *value) {
	switch (rule->kind) {
	case Kind::text:
		if (value[0] == '\0')
			reject_value(rule->name, "It must not be empty.");
		break;
	case Kind::port:
		parse_number(rule->name, value, 1, kHighestPort, "It is a number from 1 to 65535.");
		break;
	case Kind::number:
		parse_number(rule->name, value, 0, INT_MAX, "It is a number of at least 0.");
		break;
	case Kind::flag:
		parse_flag(rule->name, value);
		break;
	case Kind::duration:
		parse_duration(rule->name, value);
		break;
	case Kind::socket_path:
		require_file_rights(rule->name);
		if (value[0] != '/' || strlen(value) > kLongestSocketPath)
			reject_value(rule->name, "It is an absolute path of at most 107 bytes.");
		break;
	case Kind::file:
		require_file_rights(rule->name);
		if (value[0] != '/')
			reject_value(rule->name, "It is an absolute path.");
		break;
	}
}

const char *option_value(List *options, const char *name) {
	ListCell *cell;
	foreach (cell, options) {
		auto *option = static_cast<DefElem *>(lfirst(cell));
		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return nullptr;
}

void check_server_options(List *options) {
	static constexpr const char *kNotWithPath[] = {
		"host", "port", "tls", "tls_ca_file", "tls_cert_file", "tls_key_file"};
	static constexpr const char *kOnlyWithTls[] = {"tls_ca_file", "tls_cert_file", "tls_key_file"};
	if (option_value(options, "path") != nullptr)
		for (const char *other : kNotWithPath)
			if (option_value(options, other) != nullptr)
				reject_pair("path", other);
	const char *tls = option_value(options, "tls");
	for (const char *option : kOnlyWithTls)
		if (option_value(options, option) != nullptr && (tls == nullptr || !parse_flag("tls", tls)))
			ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errhidestmt(true),
					errmsg("option \"%s\" needs option \"tls\"", option)));
	if ((option_value(options, "tls_cert_file") == nullptr) !=
		(option_value(options, "tls_key_file") == nullptr))
		ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errhidestmt(true),
				errmsg("options \"tls_cert_file\" and \"tls_key_file\" need each other")));
}

char *copy_option(List *options, const char *name) {
	const char *value = option_value(options, name);
	return value == nullptr ? nullptr : pstrdup(value);
}

int duration_option(List *options, const char *name) {
	const char *value = option_value(options, name);
	return value == nullptr ? kDefaultTimeoutMs : parse_duration(name, value);
}

void fill_server_options(List *server, RedisOptions *options) {
	const char *port = option_value(server, "port");
	const char *database = option_value(server, "database");
	const char *tls = option_value(server, "tls");
	options->path = copy_option(server, "path");
	options->host = copy_option(server, "host");
	if (options->host == nullptr)
		options->host = pstrdup("localhost");
	options->port =
		port == nullptr ? kDefaultPort : parse_number("port", port, 1, kHighestPort, "");
	options->database =
		database == nullptr ? 0 : parse_number("database", database, 0, INT_MAX, "");
	options->tls = tls != nullptr && parse_flag("tls", tls);
	options->tls_ca_file = copy_option(server, "tls_ca_file");
	options->tls_cert_file = copy_option(server, "tls_cert_file");
	options->tls_key_file = copy_option(server, "tls_key_file");
	options->connect_timeout_ms = duration_option(server, "connect_timeout");
	options->command_timeout_ms = duration_option(server, "command_timeout");
}

[[noreturn]] void report_password_file(const char *what, const char *server, int error) {
	errno = error;
	ereport(ERROR,
		(errcode_for_file_access(),
			errmsg("could not %s the password file for server \"%s\": %s", what, server,
				strerror(error))));
	pg_unreachable();
}

// What the file holds, without the end of its line.
char *read_password_file(const char *path, const char *server) {
	FILE *file = AllocateFile(path, PG_BINARY_R);
	if (file == nullptr)
		report_password_file("open", server, errno);
	auto *password = static_cast<char *>(palloc0(kLongestPassword + 3));
	size_t length = fread(password, 1, kLongestPassword + 2, file);
	const bool failed = ferror(file) != 0;
	const int error = errno;
	FreeFile(file);
	if (failed)
		report_password_file("read", server, error);
	while (length > 0 && (password[length - 1] == '\n' || password[length - 1] == '\r'))
		password[--length] = '\0';
	if (length == 0 || length > kLongestPassword || strlen(password) != length)
		ereport(ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
				errmsg("the password file for server \"%s\" does not hold a password", server),
				errdetail("It must hold 1 to %d bytes, none of them zero.", kLongestPassword)));
	return password;
}

List *mapping_options(Oid user, Oid server) {
	HeapTuple tuple =
		SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user), ObjectIdGetDatum(server));
	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(
			USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(server));
	if (!HeapTupleIsValid(tuple))
		return NIL;
	bool is_null;
	const Datum value =
		SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &is_null);
	List *options = is_null ? NIL : untransformRelOptions(value);
	ReleaseSysCache(tuple);
	return options;
}

// Server of ours that `table_owner` may use, or ERROR.
ForeignServer *usable_server(const char *name, Oid table_owner) {
	ForeignServer *server = GetForeignServerByName(name, true);
	if (server == nullptr)
		ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("server \"%s\" does not exist", name),
				errhint("Create it with CREATE SERVER ... FOREIGN DATA WRAPPER %s.", kWrapper)));
	if (server->fdwid != get_foreign_data_wrapper_oid(kWrapper, true))
		ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("server \"%s\" does not name a Redis", name),
				errhint("Use a server of foreign-data wrapper \"%s\".", kWrapper)));
#if PG_VERSION_NUM >= 160000
	const AclResult allowed =
		object_aclcheck(ForeignServerRelationId, server->serverid, table_owner, ACL_USAGE);
#else
	const AclResult allowed = pg_foreign_server_aclcheck(server->serverid, table_owner, ACL_USAGE);
#endif
	if (allowed != ACLCHECK_OK)
		ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("permission denied for foreign server %s", name),
				errdetail("The owner of the store's table needs USAGE on the server.")));
	return server;
}

bool same_text(const char *a, const char *b) {
	return a == nullptr || b == nullptr ? a == b : strcmp(a, b) == 0;
}

// Whether two servers name the same Redis and database, as far as their options tell.
bool same_redis(List *a_options, List *b_options) {
	RedisOptions a = {};
	RedisOptions b = {};
	fill_server_options(a_options, &a);
	fill_server_options(b_options, &b);
	if (a.database != b.database || !same_text(a.path, b.path))
		return false;
	return a.path != nullptr || (a.port == b.port && pg_strcasecmp(a.host, b.host) == 0);
}

bool prefixes_overlap(const char *a, const char *b) {
	return strncmp(a, b, Min(strlen(a), strlen(b))) == 0;
}

void refuse_overlap(const StoreSettings *settings, ForeignServer *server) {
	StoreSettings *stores;
	const int count = read_all_stores(&stores);
	for (int i = 0; i < count; i++) {
		const StoreSettings *other = &stores[i];
		if (other->id == settings->id || !other->has_redis_server ||
			!prefixes_overlap(settings->redis_prefix, other->redis_prefix))
			continue;
		ForeignServer *others = GetForeignServerByName(NameStr(other->redis_server), true);
		if (others == nullptr || others->fdwid != server->fdwid ||
			(others->serverid != server->serverid && !same_redis(others->options, server->options)))
			continue;
		// The other store may be another user's: it is not named.
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("redis_prefix \"%s\" of store \"%s\" overlaps with that of another store on "
					   "the same Redis",
					settings->redis_prefix, NameStr(settings->name)),
				errhint("Choose prefixes of which none begins with the other.")));
	}
	if (stores != nullptr)
		pfree(stores);
}

} // namespace

void load_redis_options(const char *server_name, Oid table_owner, RedisOptions *options) {
	memset(options, 0, sizeof(*options));
	ForeignServer *server = usable_server(server_name, table_owner);
	fill_server_options(server->options, options);
	List *mapping = mapping_options(table_owner, server->serverid);
	options->username = copy_option(mapping, "username");
	options->password = copy_option(mapping, "password");
	const char *password_file = option_value(mapping, "password_file");
	if (password_file != nullptr)
		options->password = read_password_file(password_file, server_name);
}

FeedOptions feed_options(const RedisOptions *options, const char *prefix) {
	return {options->host, options->port, options->path, options->database, options->tls,
		options->connect_timeout_ms, options->command_timeout_ms, options->username,
		options->password, prefix, options->tls_ca_file, options->tls_cert_file,
		options->tls_key_file};
}

void forget_password(RedisOptions *options) {
	if (options->password == nullptr)
		return;
	explicit_bzero(options->password, strlen(options->password));
	pfree(options->password);
	options->password = nullptr;
}

void check_redis_settings(const StoreSettings *settings, Oid table_owner) {
	if (!settings->has_redis_server)
		return;
	ForeignServer *server = usable_server(NameStr(settings->redis_server), table_owner);
	// Two stores that are changed at once must see each other's prefix.
	LockDatabaseObject(ForeignDataWrapperRelationId, server->fdwid, 0, ShareUpdateExclusiveLock);
	refuse_overlap(settings, server);
}

} // namespace session_store

SESSION_STORE_FUNCTION(session_store_redis_validator) {
	using namespace session_store;
	List *options = untransformRelOptions(PG_GETARG_DATUM(0));
	const Oid catalog = PG_GETARG_OID(1);
	if (catalog == ForeignTableRelationId)
		ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errhidestmt(true),
				errmsg("foreign-data wrapper \"%s\" has no foreign tables", kWrapper),
				errhint("Name the server in redis_server of a store.")));
	ListCell *cell;
	foreach (cell, options) {
		auto *option = static_cast<DefElem *>(lfirst(cell));
		const OptionRule *rule = find_rule(option->defname, catalog);
		if (rule == nullptr)
			reject_option_name(option->defname, catalog);
		check_value(rule, defGetString(option));
	}
	if (catalog == ForeignServerRelationId)
		check_server_options(options);
	if (option_value(options, "password") != nullptr &&
		option_value(options, "password_file") != nullptr)
		reject_pair("password", "password_file");
	PG_RETURN_VOID();
}
