// Opening and closing the link of probe_link.h.
//
// The link must not outlive the call it was opened for, whatever ends that: a callback of the
// memory context closes it. Its socket counts among the process's files.
#include "mirror/probe.h"

#include "mirror/latch_waiter.h"
#include "mirror/redis_options.h"

extern "C" {
#include "storage/fd.h"
}

namespace session_store {

namespace {

bool is_open = false; // a socket is counted

void close_with_context(void *) {
	close_probe();
}

} // namespace

FeedOptions probe_options(const StoreSettings *store, Oid owner) {
	if (!store->has_redis_server)
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("store \"%s\" has no redis_server", NameStr(store->name)),
				errhint(
					"Name one: UPDATE session_store.stores SET redis_server = ... WHERE store = "
					"'%s'.",
					NameStr(store->name))));
	RedisOptions options;
	load_redis_options(NameStr(store->redis_server), owner, &options);
	return feed_options(&options, store->redis_prefix);
}

void forget_probe_password(FeedOptions *options) {
	if (options->password == nullptr)
		return;
	auto *password = const_cast<char *>(options->password);
	explicit_bzero(password, strlen(password));
	options->password = nullptr;
}

bool connect_probe(FeedOptions *options, FeedError *error) {
	close_probe();
	if (!AcquireExternalFD())
		ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				errmsg("could not connect to Redis: too many files are open")));
	is_open = true;
	auto *callback = static_cast<MemoryContextCallback *>(palloc0(sizeof(MemoryContextCallback)));
	callback->func = close_with_context;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	const bool opened = probe_open(options, latch_waiter(), error);
	forget_probe_password(options);
	finish_wait();
	if (!opened)
		close_probe();
	return opened;
}

void open_probe(const StoreSettings *store, Oid owner) {
	FeedOptions options = probe_options(store, owner);
	FeedError error;
	require_probe(connect_probe(&options, &error), &error);
}

void close_probe() {
	if (!is_open)
		return;
	is_open = false;
	probe_close();
	ReleaseExternalFD();
}

void require_probe(bool done, const FeedError *error) {
	finish_wait();
	if (!done)
		ereport(ERROR,
			(errcode(error->kind == FeedFailure::internal ? ERRCODE_EXTERNAL_ROUTINE_EXCEPTION
														  : ERRCODE_CONNECTION_FAILURE),
				errmsg("%s", error->message),
				errhint("session_store.check_redis() says what is wrong.")));
}

} // namespace session_store
