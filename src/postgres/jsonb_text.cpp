// Walks over a jsonb as it is stored: the entries of a container, then what they are of.
#include "postgres/jsonb_text.h"

extern "C" {
#include "miscadmin.h"
}

namespace session_store {

namespace {

// The next entry of a container, and where what it is of begins.
struct Cursor {
	const JsonbContainer *container;
	const char *data;
	int index;
	uint32 offset;
};

Cursor cursor_at(const JsonbContainer *container, int entries, int index) {
	return {container, reinterpret_cast<const char *>(&container->children[entries]), index,
		getJsonbOffset(container, index)};
}

void append_escaped(StringInfo text, char byte) {
	switch (byte) {
	case '\b':
		appendStringInfoString(text, "\\b");
		break;
	case '\f':
		appendStringInfoString(text, "\\f");
		break;
	case '\n':
		appendStringInfoString(text, "\\n");
		break;
	case '\r':
		appendStringInfoString(text, "\\r");
		break;
	case '\t':
		appendStringInfoString(text, "\\t");
		break;
	case '"':
	case '\\':
		appendStringInfoChar(text, '\\');
		appendStringInfoChar(text, byte);
		break;
	default:
		appendStringInfo(text, "\\u%04x", byte);
		break;
	}
}

// The bytes between two that are escaped go at once.
void append_string(StringInfo text, const char *bytes, uint32 size) {
	appendStringInfoChar(text, '"');
	uint32 from = 0;
	for (uint32 i = 0; i < size; i++) {
		const auto byte = static_cast<unsigned char>(bytes[i]);
		if (byte >= ' ' && byte != '"' && byte != '\\')
			continue;
		appendBinaryStringInfo(text, bytes + from, static_cast<int>(i - from));
		append_escaped(text, bytes[i]);
		from = i + 1;
	}
	appendBinaryStringInfo(text, bytes + from, static_cast<int>(size - from));
	appendStringInfoChar(text, '"');
}

void append_numeric(StringInfo text, const char *numeric) {
	char *digits = DatumGetCString(DirectFunctionCall1(numeric_out, PointerGetDatum(numeric)));
	appendStringInfoString(text, digits);
	pfree(digits);
}

void append_container(StringInfo text, const JsonbContainer *container);

void append_next(StringInfo text, Cursor *cursor) {
	const JEntry entry = cursor->container->children[cursor->index++];
	const uint32 begin = cursor->offset;
	JBE_ADVANCE_OFFSET(cursor->offset, entry);
	if (JBE_ISSTRING(entry))
		append_string(text, cursor->data + begin, cursor->offset - begin);
	else if (JBE_ISNUMERIC(entry))
		append_numeric(text, cursor->data + INTALIGN(begin));
	else if (JBE_ISBOOL_TRUE(entry))
		appendStringInfoString(text, "true");
	else if (JBE_ISBOOL_FALSE(entry))
		appendStringInfoString(text, "false");
	else if (JBE_ISNULL(entry))
		appendStringInfoString(text, "null");
	else
		append_container(
			text, reinterpret_cast<const JsonbContainer *>(cursor->data + INTALIGN(begin)));
}

void append_array(StringInfo text, const JsonbContainer *array) {
	const int count = JsonContainerSize(array);
	Cursor elements = cursor_at(array, count, 0);
	for (int i = 0; i < count; i++) {
		if (i > 0)
			appendStringInfoString(text, ", ");
		append_next(text, &elements);
	}
}

// All keys come before all values.
void append_object(StringInfo text, const JsonbContainer *object) {
	const int count = JsonContainerSize(object);
	Cursor keys = cursor_at(object, 2 * count, 0);
	Cursor values = cursor_at(object, 2 * count, count);
	for (int i = 0; i < count; i++) {
		if (i > 0)
			appendStringInfoString(text, ", ");
		append_next(text, &keys);
		appendStringInfoString(text, ": ");
		append_next(text, &values);
	}
}

void append_container(StringInfo text, const JsonbContainer *container) {
	check_stack_depth();
	if (JsonContainerIsScalar(container)) {
		append_array(text, container);
		return;
	}
	const bool is_object = JsonContainerIsObject(container);
	appendStringInfoChar(text, is_object ? '{' : '[');
	if (is_object)
		append_object(text, container);
	else
		append_array(text, container);
	appendStringInfoChar(text, is_object ? '}' : ']');
}

} // namespace

void append_jsonb(StringInfo text, const Jsonb *jsonb) {
	enlargeStringInfo(text, static_cast<int>(VARSIZE(jsonb)));
	append_container(text, &jsonb->root);
}

} // namespace session_store
