// RFC 7396 over jsonb.
#include "store/merge_patch.h"

namespace session_store {

namespace {

// An object within a value, or null when the value is anything else.
JsonbContainer *object_of(const JsonbValue *value) {
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		return nullptr;
	return value->val.binary.data;
}

JsonbValue *member(JsonbContainer *object, JsonbValue *key, JsonbValue *room) {
	return object == nullptr
		? nullptr
		: getKeyJsonValueFromContainer(object, key->val.string.val, key->val.string.len, room);
}

JsonbValue *push_merged(JsonbParseState **state, JsonbContainer *target, JsonbContainer *patch);

// Pushes what becomes of one member, or nothing when the patch removes it.
void push_member(
	JsonbParseState **state, JsonbValue *key, const JsonbValue *target, JsonbValue *patch) {
	if (patch->type == jbvNull)
		return;
	(void)pushJsonbValue(state, WJB_KEY, key);
	JsonbContainer *inner = object_of(patch);
	if (inner != nullptr)
		(void)push_merged(state, target == nullptr ? nullptr : object_of(target), inner);
	else
		(void)pushJsonbValue(state, WJB_VALUE, patch);
}

// Walks the members of an object: `visit` gets the key and value of each.
template <typename Visit>
void for_each_member(JsonbContainer *object, Visit visit) {
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbValue value;
	JsonbValue key;
	JsonbIteratorToken token;
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE) {
		if (token == WJB_KEY)
			key = value;
		else if (token == WJB_VALUE)
			visit(&key, &value);
	}
}

JsonbValue *push_merged(JsonbParseState **state, JsonbContainer *target, JsonbContainer *patch) {
	check_stack_depth();
	(void)pushJsonbValue(state, WJB_BEGIN_OBJECT, nullptr);
	if (target != nullptr) {
		for_each_member(target, [&](JsonbValue *key, JsonbValue *value) {
			JsonbValue room;
			JsonbValue *change = member(patch, key, &room);
			if (change != nullptr) {
				push_member(state, key, value, change);
			} else {
				(void)pushJsonbValue(state, WJB_KEY, key);
				(void)pushJsonbValue(state, WJB_VALUE, value);
			}
		});
	}
	for_each_member(patch, [&](JsonbValue *key, JsonbValue *value) {
		JsonbValue room;
		if (member(target, key, &room) == nullptr)
			push_member(state, key, nullptr, value);
	});
	return pushJsonbValue(state, WJB_END_OBJECT, nullptr);
}

} // namespace

Jsonb *merge_patch(Jsonb *target, Jsonb *patch) {
	if (!JB_ROOT_IS_OBJECT(patch))
		return patch;
	JsonbParseState *state = nullptr;
	JsonbContainer *object = JB_ROOT_IS_OBJECT(target) ? &target->root : nullptr;
	return JsonbValueToJsonb(push_merged(&state, object, &patch->root));
}

} // namespace session_store
