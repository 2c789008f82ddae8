// The keys that cannot be mirrored: kept with their bytes and the reason until they are gone.
//
// Written as the extension's owner: the table is the extension's, and no code of users runs there.
#include "mirror/rejects.h"

#include "core/text.h"
#include "postgres/identity.h"
#include "worker/worker.h"

extern "C" {
#include "common/hashfn.h"
#include "utils/hsearch.h"
}

namespace session_store {

namespace {

constexpr int64 kMostCounted = 1000000;
constexpr int64 kUnknown = -1;

int64 stored = kUnknown;    // rows of this store, an upper bound
HTAB *over_limit = nullptr; // hashes of keys that found no room

uint64 key_hash(std::string_view key) {
	return hash_bytes_extended(
		reinterpret_cast<const unsigned char *>(key.data()), static_cast<int>(key.size()), 0);
}

HTAB *over_limit_table() {
	if (over_limit == nullptr) {
		HASHCTL control = {};
		control.keysize = sizeof(uint64);
		control.entrysize = sizeof(uint64);
		control.hcxt = TopMemoryContext;
		over_limit = hash_create("session_store rejects over the limit", 1024, &control,
			HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	return over_limit;
}

void forget_over_limit(std::string_view key) {
	if (over_limit == nullptr)
		return;
	const uint64 hash = key_hash(key);
	hash_search(over_limit, &hash, HASH_REMOVE, nullptr);
}

void count_over_limit(std::string_view key) {
	if (rejects_over_limit() >= kMostCounted)
		return;
	const uint64 hash = key_hash(key);
	hash_search(over_limit_table(), &hash, HASH_ENTER, nullptr);
}

Datum make_bytea(std::string_view bytes) {
	return PointerGetDatum(cstring_to_text_with_len(bytes.data(), static_cast<int>(bytes.size())));
}

// Runs one statement and returns how many rows it touched.
uint64 execute(const char *sql, int count, Oid *types, Datum *values, const char *nulls) {
	const int result = SPI_execute_with_args(sql, count, types, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "%s: %s", sql, SPI_result_code_string(result));
	return SPI_processed;
}

void count_stored(int32 store_id) {
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(store_id)};
	execute("SELECT pg_catalog.count(*) FROM session_store.rejected_keys WHERE store_id = $1", 1,
		types, values, nullptr);
	bool is_null;
	stored =
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
}

void write_reject(int32 store_id, const RejectedKey *key) {
	const FeedItem *item = key->item;
	const bool has_payload =
		item->kind == FeedItemKind::value || item->kind == FeedItemKind::too_large;
	Oid types[] = {INT4OID, BYTEAOID, BYTEAOID, TEXTOID};
	Datum values[] = {Int32GetDatum(store_id), make_bytea(item->key),
		has_payload ? make_bytea(item->value.substr(0, kMaxRejectedPayload)) : Datum{0},
		CStringGetTextDatum(key->reason)};
	const char nulls[] = {' ', ' ', has_payload ? ' ' : 'n', ' ', '\0'};
	// An unchanged payload is not written again.
	if (execute("UPDATE session_store.rejected_keys SET reason = $4,"
				" last_seen = pg_catalog.clock_timestamp(),"
				" payload = CASE WHEN payload IS DISTINCT FROM $3 THEN $3 ELSE payload END"
				" WHERE store_id = $1 AND key_hash = pg_catalog.sha256($2)",
			4, types, values, nulls) > 0)
		return;
	if (stored >= kMaxRejects) {
		count_over_limit(item->key);
		return;
	}
	execute(
		"INSERT INTO session_store.rejected_keys (store_id, key_hash, redis_key, payload, reason)"
		" VALUES ($1, pg_catalog.sha256($2), $2, $3, $4)",
		4, types, values, nulls);
	forget_over_limit(item->key);
	stored++;
}

// The keys of the store's rows.
struct RejectKeys {
	int32 store_id;
	const char *prefix;
	MemoryContext context; // of what is read
	Datum *keys;           // bytea
	int count;
};

// Reads them, once those outside the prefix are gone.
void read_reject_keys(void *argument) {
	auto *read = static_cast<RejectKeys *>(argument);
	const Identity saved = enter_extension_owner();
	SPI_connect();
	Oid types[] = {INT4OID, BYTEAOID};
	Datum values[] = {Int32GetDatum(read->store_id), make_bytea(read->prefix)};
	execute("DELETE FROM session_store.rejected_keys WHERE store_id = $1 AND"
			" pg_catalog.substr(redis_key, 1, pg_catalog.length($2)) <> $2",
		2, types, values, nullptr);
	const uint64 count =
		execute("SELECT redis_key FROM session_store.rejected_keys WHERE store_id = $1", 1, types,
			values, nullptr);
	MemoryContext spi = MemoryContextSwitchTo(read->context);
	read->keys = static_cast<Datum *>(palloc(Max(count, uint64{1}) * sizeof(Datum)));
	for (uint64 i = 0; i < count; i++) {
		bool is_null;
		const Datum key = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &is_null);
		read->keys[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(key));
	}
	read->count = static_cast<int>(count);
	MemoryContextSwitchTo(spi);
	SPI_finish();
	leave_identity(&saved);
}

} // namespace

void write_rejects(int32 store_id, const RejectedKey *keys, int count) {
	if (count == 0)
		return;
	const Identity saved = enter_extension_owner();
	count_stored(store_id);
	for (int i = 0; i < count; i++)
		write_reject(store_id, &keys[i]);
	leave_identity(&saved);
}

void clear_rejects(int32 store_id, const FeedItem *const *items, int count) {
	for (int i = 0; i < count; i++)
		forget_over_limit(items[i]->key);
	if (stored == 0 || count == 0)
		return;
	const Identity saved = enter_extension_owner();
	if (stored == kUnknown)
		count_stored(store_id);
	if (stored > 0) {
		auto *keys = static_cast<Datum *>(palloc(count * sizeof(Datum)));
		for (int i = 0; i < count; i++)
			keys[i] = make_bytea(items[i]->key);
		Oid types[] = {INT4OID, BYTEAARRAYOID};
		Datum values[] = {Int32GetDatum(store_id),
			PointerGetDatum(construct_array(keys, count, BYTEAOID, -1, false, TYPALIGN_INT))};
		stored -= static_cast<int64>(
			execute("DELETE FROM session_store.rejected_keys WHERE store_id = $1 AND key_hash ="
					" ANY (ARRAY(SELECT pg_catalog.sha256(k) FROM pg_catalog.unnest($2) AS k))",
				2, types, values, nullptr));
	}
	leave_identity(&saved);
}

void forget_rejects_count() {
	stored = kUnknown;
}

MarkResult mark_unseen_rejects(
	int32 store_id, const char *prefix, FeedError *error, WorkerFailure *failure) {
	RejectKeys read = {store_id, prefix, CurrentMemoryContext, nullptr, 0};
	if (!try_worker_transaction(
			"session_store mirror: looking at rejects", read_reject_keys, &read, failure))
		return MarkResult::database_failed;
	stored = read.count;
	for (int i = 0; i < read.count; i++) {
		const auto *bytes = DatumGetByteaPP(read.keys[i]);
		std::string_view sid;
		if (core::sid_of_key(
				std::string_view(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)), prefix, &sid) &&
			!feed_seen(sid) && !feed_mark(sid, error))
			return MarkResult::feed_failed;
	}
	return MarkResult::done;
}

int64 rejects_over_limit() {
	return over_limit == nullptr ? 0 : hash_get_num_entries(over_limit);
}

} // namespace session_store
