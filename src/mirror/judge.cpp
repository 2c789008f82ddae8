// Redis' bytes as PostgreSQL's values.
#include "mirror/judge.h"

#include "core/text.h"
#include "mirror/timestamps.h"

extern "C" {
#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
}

namespace session_store {

namespace {

constexpr int kLongestReason = 500;

void reject(Judged *judged, core::RedisState state, const char *reason) {
	judged->state = state;
	judged->reason = reason;
}

Datum make_text(std::string_view bytes) {
	return PointerGetDatum(cstring_to_text_with_len(bytes.data(), static_cast<int>(bytes.size())));
}

// What keeps the text from being jsonb, as far as parsing tells, or null.
const char *json_problem(char *text, int length) {
	// Only \u needs the text of strings: NUL and lone surrogates are found in it.
	const bool need_escapes = strstr(text, "\\u") != nullptr;
#if PG_VERSION_NUM >= 170000
	JsonLexContext *lex =
		makeJsonLexContextCstringLen(nullptr, text, length, PG_UTF8, need_escapes);
#else
	JsonLexContext *lex = makeJsonLexContextCstringLen(text, length, PG_UTF8, need_escapes);
#endif
	const JsonParseErrorType result = pg_parse_json(lex, &nullSemAction);
	if (result == JSON_SUCCESS)
		return nullptr;
	char *problem = psprintf("payload is not valid jsonb: %s", json_errdetail(result, lex));
	int length_kept = pg_mbcliplen(problem, static_cast<int>(strlen(problem)), kLongestReason);
	if (length_kept > 0 && problem[length_kept - 1] == '.')
		length_kept--;
	problem[length_kept] = '\0';
	return problem;
}

// Sets sess, or the reason why there is none.
void convert_jsonb(std::string_view value, Look look, Judged *judged) {
	// What parsing leaves behind can be many times the payload.
	MemoryContext result = CurrentMemoryContext;
	MemoryContext scratch =
		AllocSetContextCreateInternal(result, "session_store payload", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(scratch);
	const char *problem = nullptr;
	if (pg_encoding_verifymbstr(PG_UTF8, value.data(), static_cast<int>(value.size())) !=
		static_cast<int>(value.size())) {
		problem = "payload is not valid UTF-8";
	} else {
		char *text = pnstrdup(value.data(), value.size());
		if (look == Look::first)
			problem = json_problem(text, static_cast<int>(value.size()));
		if (problem == nullptr) {
			const Datum sess = DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
			MemoryContextSwitchTo(result);
			judged->sess = PointerGetDatum(PG_DETOAST_DATUM_COPY(sess));
		}
	}
	MemoryContextSwitchTo(result);
	if (problem != nullptr)
		reject(judged, core::RedisState::rejected, pstrdup(problem));
	MemoryContextDelete(scratch);
}

void judge_value(const FeedItem *item, Judged *judged) {
	judged->state = core::RedisState::value;
	if (!from_redis_milliseconds(item->expire_ms, &judged->expire))
		reject(judged, core::RedisState::rejected, "expiry is later than PostgreSQL can hold");
}

} // namespace

void judge_item(const FeedItem *item, const char *forced, Judged *judged) {
	memset(judged, 0, sizeof(*judged));
	const core::SidProblem problem = core::check_sid(item->sid);
	judged->valid_sid = problem == core::SidProblem::none;
	if (judged->valid_sid)
		judged->sid = make_text(item->sid);
	if (item->kind == FeedItemKind::absent) {
		judged->state = core::RedisState::absent;
		return;
	}
	if (item->kind == FeedItemKind::error) {
		judged->state = core::RedisState::error;
		return;
	}
	if (!judged->valid_sid || forced != nullptr) {
		reject(judged, core::RedisState::rejected,
			forced != nullptr ? forced : core::sid_problem_text(problem));
		return;
	}
	switch (item->kind) {
	case FeedItemKind::other_type:
		reject(judged, core::RedisState::other_type,
			psprintf("key type %.*s cannot be mirrored",
				static_cast<int>(Min(item->type_name.size(), size_t{100})),
				item->type_name.data()));
		break;
	case FeedItemKind::too_large:
		reject(judged, core::RedisState::rejected,
			psprintf("payload of " UINT64_FORMAT " bytes is too large",
				static_cast<uint64>(item->size)));
		break;
	default:
		judge_value(item, judged);
		break;
	}
}

void convert_payload(const FeedItem *item, Payload payload, Look look, Judged *judged) {
	if (judged->state != core::RedisState::value || judged->sess != 0)
		return;
	if (payload == Payload::bytea)
		judged->sess = make_text(item->value); // the same varlena
	else
		convert_jsonb(item->value, look, judged);
}

} // namespace session_store
