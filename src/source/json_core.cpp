/*
 * json_core.cpp
 *	  JSON objects to the values at given paths: the core of the JSON decoder.
 *
 * NOTES
 *	  Of simdjson only the first stage is used: it finds, with vector
 *	  instructions, where tokens start, and validates UTF-8.  The second stage is
 *	  our own.  simdjson's On-Demand would not do: it does not look at what it
 *	  skips, so that whether a record is bad would depend on the columns that are
 *	  declared; its DOM validates everything, but builds a tree that nobody needs
 *	  and reads numbers into doubles.
 *
 *	  The first stage runs over many records at once, which lie one behind the other,
 *	  each followed by a newline: in an arena into which they are copied, or already
 *	  in the source's memory.  That is safe: a record that ends inside a
 *	  string makes the newline a control character inside a string, one that ends
 *	  inside a UTF-8 sequence makes the sequence invalid, and either fails the
 *	  whole chunk, which is then read again record by record.  So records of a
 *	  chunk that passes are independent.
 *
 *	  What the first stage guarantees, and the walk relies on: between two token
 *	  starts lies one token, followed by white space only.  A quote that directly
 *	  follows other characters of a token is no start, so a token's whole extent
 *	  must be checked.
 *
 *	  No exceptions: memory comes from malloc and nothing here can throw; a failure
 *	  to allocate is reported.
 */
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "simdjson.h"

#include "json_core.h"
#include "json_layout.h"
#include "json_path.h"

/*
 * Bytes of records given to the first stage at once: what it writes and what the
 * walk reads then stay in the processor's inner caches.
 */
static const size_t chunk_size = 32 * 1024;

/* Arenas above this size are given back when a run needs far less. */
static const size_t arena_keep = 16 * 1024 * 1024;

struct Frame
{
	SeJsonNode *node;			/* of this object or array; NULL: no path */
	uint32_t	start;
	bool		is_array;
	int64_t		element;
};

struct SeJson
{
	SeJsonTrie	trie;
	bool		compiled;
	std::unique_ptr<simdjson::internal::dom_parser_implementation> stage1;
	size_t		capacity;		/* of stage1 */
	char	   *arena;
	size_t		arena_size;
	SeJsonValue *values;		/* [slot * SE_BATCH_MAX + row] */
	uint32_t	stamp;			/* number of the record being walked */
	JsonLayout	layout;
	uint32_t	start[SE_BATCH_MAX];	/* of each record in its chunk */
	Frame		stack[SE_JSON_MAX_DEPTH];
};

static int
hex_digit(char c)
{
	if (is_digit(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The code unit of the four hex digits at "s", -1 if they are none. */
static int
hex_unit(const char *s, const char *end)
{
	int			unit = 0;

	if (end - s < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		int			digit = hex_digit(s[i]);

		if (digit < 0)
			return -1;
		unit = unit * 16 + digit;
	}
	return unit;
}

/* The first bad escape sequence of [s, end), NULL if there is none. */
static const char *
bad_escape(const char *s, const char *end)
{
	while (s < end && (s = (const char *) memchr(s, '\\', end - s)) != NULL)
	{
		if (end - s < 2)
			return s;
		switch (s[1])
		{
			case '"':
			case '\\':
			case '/':
			case 'b':
			case 'f':
			case 'n':
			case 'r':
			case 't':
				s += 2;
				break;
			case 'u':
				if (hex_unit(s + 2, end) < 0)
					return s;
				s += 6;
				break;
			default:
				return s;
		}
	}
	return NULL;
}

extern "C" int
se_json_unescape(const char *from, int len, char *to, SeJsonError *error)
{
	const char *s = from;
	const char *end = from + len;
	char	   *out = to;

	*error = SE_JSON_OK;
	while (s < end)
	{
		const char *escape = (const char *) memchr(s, '\\', end - s);
		const char *run_end = escape ? escape : end;
		int			unit;

		memmove(out, s, run_end - s);
		out += run_end - s;
		if (escape == NULL)
			break;
		s = escape + 2;
		if (s > end)
		{
			*error = SE_JSON_ESCAPE;
			return -1;
		}
		switch (escape[1])
		{
			case '"':
			case '\\':
			case '/':
				*out++ = escape[1];
				continue;
			case 'b':
				*out++ = '\b';
				continue;
			case 'f':
				*out++ = '\f';
				continue;
			case 'n':
				*out++ = '\n';
				continue;
			case 'r':
				*out++ = '\r';
				continue;
			case 't':
				*out++ = '\t';
				continue;
			case 'u':
				unit = hex_unit(s, end);
				break;
			default:
				unit = -1;
				break;
		}
		if (unit < 0)
		{
			*error = SE_JSON_ESCAPE;
			return -1;
		}
		s += 4;
		if (unit == 0)
		{
			*error = SE_JSON_NUL;
			return -1;
		}
		if (unit >= 0xD800 && unit <= 0xDFFF)
		{
			int			low = -1;

			if (unit < 0xDC00 && end - s >= 6 && s[0] == '\\' && s[1] == 'u')
				low = hex_unit(s + 2, end);
			if (low < 0xDC00 || low > 0xDFFF)
			{
				*error = SE_JSON_SURROGATE;
				return -1;
			}
			s += 6;
			unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
		}
		if (unit < 0x80)
			*out++ = (char) unit;
		else if (unit < 0x800)
		{
			*out++ = (char) (0xC0 | unit >> 6);
			*out++ = (char) (0x80 | (unit & 0x3F));
		}
		else if (unit < 0x10000)
		{
			*out++ = (char) (0xE0 | unit >> 12);
			*out++ = (char) (0x80 | (unit >> 6 & 0x3F));
			*out++ = (char) (0x80 | (unit & 0x3F));
		}
		else
		{
			*out++ = (char) (0xF0 | unit >> 18);
			*out++ = (char) (0x80 | (unit >> 12 & 0x3F));
			*out++ = (char) (0x80 | (unit >> 6 & 0x3F));
			*out++ = (char) (0x80 | (unit & 0x3F));
		}
	}
	return (int) (out - to);
}

/* The first byte that is not UTF-8 as RFC 3629 has it, -1 if there is none. */
static int
bad_utf8(const unsigned char *s, int len)
{
	int			i = 0;

	while (i < len)
	{
		unsigned char c = s[i];
		unsigned char low = 0x80;
		unsigned char high = 0xBF;
		int			more;

		if (c < 0x80)
		{
			i++;
			continue;
		}
		if (c >= 0xC2 && c <= 0xDF)
			more = 1;
		else if (c >= 0xE0 && c <= 0xEF)
		{
			more = 2;
			if (c == 0xE0)
				low = 0xA0;
			else if (c == 0xED)
				high = 0x9F;
		}
		else if (c >= 0xF0 && c <= 0xF4)
		{
			more = 3;
			if (c == 0xF0)
				low = 0x90;
			else if (c == 0xF4)
				high = 0x8F;
		}
		else
			return i;
		if (i + more >= len || s[i + 1] < low || s[i + 1] > high)
			return i;
		for (int j = 2; j <= more; j++)
		{
			if (s[i + j] < 0x80 || s[i + j] > 0xBF)
				return i;
		}
		i += more + 1;
	}
	return -1;
}

/*
 * Why does the first stage refuse this record?  Quotes are followed from the
 * start, as the first stage does.
 */
static SeJsonStatus
diagnose(const char *s, int len)
{
	int			at = bad_utf8((const unsigned char *) s, len);
	bool		in_string = false;
	int			opened = 0;

	if (at >= 0)
		return {SE_JSON_UTF8, at};
	for (at = 0; at < len; at++)
	{
		/* a control character is refused even after a backslash */
		if (s[at] == '\\' && at + 1 < len)
			at++;
		else if (s[at] == '"')
		{
			in_string = !in_string;
			opened = at;
		}
		if (in_string && (unsigned char) s[at] < 0x20)
			return {SE_JSON_CONTROL, at};
	}
	if (in_string)
		return {SE_JSON_UNTERMINATED, opened};
	return {SE_JSON_EMPTY, 0};
}

/* Forget what was found below a node that the record names a second time. */
static void
forget_below(SeJson *json, const SeJsonNode *node, int row)
{
	for (int i = node->first_below; i < node->end_below; i++)
	{
		int			slot = json->trie.nodes[json->trie.preorder[i]].slot;

		if (slot >= 0)
			json->values[(size_t) slot * SE_BATCH_MAX + row].kind = SE_JSON_MISSING;
	}
}

/*
 * Walk one record: [start, end) of "base", whose token starts are at *next; the
 * last token start of the chunk is followed by UINT32_MAX.  "escapes": the record
 * has a backslash.  Leaves *next behind the record's last token, unless there is
 * an error.
 */
static SeJsonStatus
walk(SeJson *json, const char *base, uint32_t start, uint32_t end, const uint32_t **next, int row,
	 bool escapes)
{
	const uint32_t *tokens = *next;
	SeJsonNode *child;
	Frame	   *frame = json->stack;
	Frame	   *const limit = json->stack + SE_JSON_MAX_DEPTH;
	uint32_t	pos;
	SeJsonError error;

	json->stamp++;

/* Take the next token of the record. */
#define TAKE() \
	do { \
		pos = *tokens++; \
		if (pos >= end) \
		{ \
			pos = end; \
			error = SE_JSON_TRUNCATED; \
			goto fail; \
		} \
	} while (0)
#define FAIL(code) \
	do { \
		error = (code); \
		goto fail; \
	} while (0)
/* The end of the token before the next one. */
#define TOKEN_END(result) \
	do { \
		uint32_t	bound_ = *tokens < end ? *tokens : end; \
		while (is_space(base[bound_ - 1])) \
			bound_--; \
		(result) = bound_; \
	} while (0)

	pos = *tokens++;
	if (pos >= end)
	{
		pos = start;
		FAIL(SE_JSON_EMPTY);
	}
	if (base[pos] != '{')
		FAIL(base[start] == '\0' ? SE_JSON_FRAMED : SE_JSON_NOT_OBJECT);
	child = &json->trie.nodes[0];

begin_object:
	frame->node = child;
	frame->start = pos;
	frame->is_array = false;
	TAKE();
	if (base[pos] == '}')
		goto end_container;

member:
	if (base[pos] != '"')
		FAIL(SE_JSON_EXPECT_KEY);
	{
		uint32_t	name = pos + 1;
		uint32_t	name_end;

		TAKE();
		if (base[pos] != ':')
			FAIL(SE_JSON_EXPECT_COLON);
		name_end = pos - 1;
		while (is_space(base[name_end]))
			name_end--;

		child = NULL;
		if (escapes && memchr(base + name, '\\', name_end - name) != NULL)
		{
			const char *bad = bad_escape(base + name, base + name_end);

			if (bad != NULL)
			{
				pos = (uint32_t) (bad - base);
				FAIL(SE_JSON_ESCAPE);
			}
			if (frame->node != NULL)
			{
				/* rare enough for a copy; names are no longer than records */
				int			len = (int) (name_end - name);
				char	   *copy = (char *) malloc(len + SE_JSON_PADDING);

				if (copy == NULL)
					return {-1, 0};
				len = se_json_unescape(base + name, len, copy, &error);
				if (len >= 0 && frame->node->nmembers > 0)
					child = se_trie_member(&json->trie, frame->node, copy, len);
				free(copy);
			}
		}
		else if (frame->node != NULL && frame->node->nmembers > 0)
			child = se_trie_member(&json->trie, frame->node, base + name,
								   (int32_t) (name_end - name));
	}

value:
	if (child != NULL && child->first_below < child->end_below)
	{
		if (child->seen == json->stamp)
			forget_below(json, child, row);
		child->seen = json->stamp;
	}
	TAKE();
	{
		SeJsonValue value;
		uint32_t	token_end;

		value.data = base + pos;
		value.escaped = value.digits = false;
		switch (base[pos])
		{
			case '{':
				if (++frame == limit)
					FAIL(SE_JSON_DEPTH);
				goto begin_object;
			case '[':
				if (++frame == limit)
					FAIL(SE_JSON_DEPTH);
				goto begin_array;
			case '"':
				TOKEN_END(token_end);
				value.data++;
				value.len = (int32_t) (token_end - pos - 2);
				value.kind = SE_JSON_STRING;
				if (escapes && memchr(value.data, '\\', value.len) != NULL)
				{
					const char *bad = bad_escape(value.data, value.data + value.len);

					if (bad != NULL)
					{
						pos = (uint32_t) (bad - base);
						FAIL(SE_JSON_ESCAPE);
					}
					value.escaped = true;
				}
				break;
			case '-':
			case '0':
			case '1':
			case '2':
			case '3':
			case '4':
			case '5':
			case '6':
			case '7':
			case '8':
			case '9':
				TOKEN_END(token_end);
				value.len = (int32_t) (token_end - pos);
				value.kind = SE_JSON_NUMBER;
				if (!is_number(value.data, base + token_end))
					FAIL(SE_JSON_NUMBER_SYNTAX);
				break;
			case 't':
				TOKEN_END(token_end);
				value.len = (int32_t) (token_end - pos);
				value.kind = SE_JSON_TRUE;
				if (value.len != 4 || memcmp(value.data, "true", 4) != 0)
					FAIL(SE_JSON_LITERAL);
				break;
			case 'f':
				TOKEN_END(token_end);
				value.len = (int32_t) (token_end - pos);
				value.kind = SE_JSON_FALSE;
				if (value.len != 5 || memcmp(value.data, "false", 5) != 0)
					FAIL(SE_JSON_LITERAL);
				break;
			case 'n':
				TOKEN_END(token_end);
				value.len = (int32_t) (token_end - pos);
				value.kind = SE_JSON_NULL;
				if (value.len != 4 || memcmp(value.data, "null", 4) != 0)
					FAIL(SE_JSON_LITERAL);
				break;
			default:
				FAIL(SE_JSON_EXPECT_VALUE);
		}
		if (child != NULL && child->slot >= 0)
			json->values[(size_t) child->slot * SE_BATCH_MAX + row] = value;
	}

after_value:
	TAKE();
	if (frame->is_array)
	{
		if (base[pos] == ',')
		{
			frame->element++;
			goto element;
		}
		if (base[pos] == ']')
			goto end_container;
		FAIL(SE_JSON_EXPECT_COMMA);
	}
	if (base[pos] == ',')
	{
		TAKE();
		goto member;
	}
	if (base[pos] != '}')
		FAIL(SE_JSON_EXPECT_COMMA);

end_container:
	if (frame->node != NULL && frame->node->slot >= 0)
	{
		SeJsonValue value;

		value.data = base + frame->start;
		value.len = (int32_t) (pos + 1 - frame->start);
		value.kind = frame->is_array ? SE_JSON_ARRAY : SE_JSON_OBJECT;
		value.escaped = value.digits = false;
		json->values[(size_t) frame->node->slot * SE_BATCH_MAX + row] = value;
	}
	if (frame == json->stack)
	{
		if (*tokens < end)
		{
			pos = *tokens;
			FAIL(SE_JSON_TRAILING);
		}
		*next = tokens;
		return {SE_JSON_OK, 0};
	}
	frame--;
	goto after_value;

begin_array:
	frame->node = child;
	frame->start = pos;
	frame->is_array = true;
	frame->element = 0;
	if (*tokens < end && base[*tokens] == ']')
	{
		pos = *tokens++;
		goto end_container;
	}

element:
	child = NULL;
	if (frame->node != NULL && frame->node->nelements > 0)
		child = se_trie_element(&json->trie, frame->node, frame->element);
	goto value;

fail:
	return {error, (int32_t) (pos - start)};

#undef TAKE
#undef FAIL
#undef TOKEN_END
}

/* Find the token starts of "len" bytes. */
static simdjson::error_code
find_tokens(SeJson *json, const char *base, size_t len)
{
	simdjson::error_code error;

	if (len > json->capacity)
	{
		size_t		capacity = len < chunk_size ? chunk_size : len;

		json->capacity = 0;
		if (json->stage1)
			error = json->stage1->set_capacity(capacity);
		else
			error = simdjson::get_active_implementation()->
				create_dom_parser_implementation(capacity, 1, json->stage1);
		if (error)
			return simdjson::MEMALLOC;
		json->capacity = capacity;
	}
	error = json->stage1->stage1((const uint8_t *) base, len,
								 simdjson::stage1_mode::regular);
	if (!error)
		json->stage1->structural_indexes[json->stage1->n_structural_indexes] = UINT32_MAX;
	return error;
}

/*
 * The same by the layout of the records before, if it has that; else the record's
 * own layout is remembered once none had the old one for a while.
 */
static SeJsonStatus
read_record(SeJson *json, const char *base, uint32_t start, uint32_t end, const uint32_t **next,
			int row, bool escapes)
{
	JsonLayout *layout = &json->layout;
	const uint32_t *tokens = *next;
	SeJsonStatus status;

	if (escapes)
		escapes = memchr(base + start, '\\', end - start) != NULL;
	if (!escapes && layout->nsteps > 0 &&
		read_by_layout(layout, base, end, next, json->values + row))
	{
		layout->misses = 0;
		layout->patience = 4;
		return {SE_JSON_OK, 0};
	}
	status = walk(json, base, start, end, next, row, escapes);
	if (++layout->misses > layout->patience && !escapes && status.error == SE_JSON_OK)
	{
		learn_layout(layout, &json->trie, base, tokens, *next);
		layout->misses = 0;
		layout->patience = layout->patience < 4 ? 4 :
			layout->patience * 2 < LAYOUT_MAX_PATIENCE ? layout->patience * 2 : LAYOUT_MAX_PATIENCE;
	}
	return status;
}

/* Walk the records [first, last) of the chunk at "base". */
static bool
run_chunk(SeJson *json, const SeRecord *records, int first, int last, const char *base,
		  size_t len, SeJsonStatus *status)
{
	simdjson::error_code error = find_tokens(json, base, len);
	const bool	escapes = memchr(base, '\\', len) != NULL;
	const uint32_t *next;

	if (error == simdjson::MEMALLOC)
		return false;
	if (error)
	{
		/* one of the records is to blame: each on its own */
		for (int row = first; row < last; row++)
		{
			const char *record = base + json->start[row];

			if (records[row].payload == NULL)
				continue;
			if (records[row].payload_len > 0 && record[0] == '\0')
			{
				status[row] = {SE_JSON_FRAMED, 0};
				continue;
			}
			error = find_tokens(json, record, records[row].payload_len);
			if (error == simdjson::MEMALLOC)
				return false;
			if (error)
			{
				status[row] = diagnose(record, records[row].payload_len);
				continue;
			}
			next = json->stage1->structural_indexes.get();
			status[row] = read_record(json, record, 0, records[row].payload_len, &next, row, true);
			if (status[row].error < 0)
				return false;
		}
		return true;
	}

	next = json->stage1->structural_indexes.get();
	for (int row = first; row < last; row++)
	{
		uint32_t	end = json->start[row] + records[row].payload_len;

		if (records[row].payload == NULL)
			continue;
		status[row] = read_record(json, base, json->start[row], end, &next, row, escapes);
		if (status[row].error < 0)
			return false;
		if (status[row].error != SE_JSON_OK)
		{
			while (*next < end)
				next++;
		}
	}
	return true;
}

extern "C" SeJson *
se_json_create(void)
{
	SeJson	   *json = new (std::nothrow) SeJson();

	if (json != NULL && !se_trie_init(&json->trie))
	{
		se_json_destroy(json);
		return NULL;
	}
	return json;
}

extern "C" void
se_json_destroy(SeJson *json)
{
	if (json == NULL)
		return;
	se_trie_free(&json->trie);
	free(json->arena);
	free(json->values);
	delete json;
}

extern "C" int
se_json_add_path(SeJson *json, const char *path, const char **message, int *position)
{
	return se_trie_add_path(&json->trie, path, message, position);
}

extern "C" int
se_json_add_member(SeJson *json, const char *name)
{
	return se_trie_add_member(&json->trie, name);
}

static inline bool
is_packed(const SeRecord *record)
{
	return (record->flags & SE_RECORD_PACKED) != 0;
}

/* Room for the copies of a batch.  False: there is no memory. */
static bool
reserve_arena(SeJson *json, size_t total)
{
	if (total <= json->arena_size &&
		(json->arena_size <= arena_keep || total >= json->arena_size / 4))
		return true;
	free(json->arena);
	json->arena_size = total + total / 4;
	json->arena = (char *) malloc(json->arena_size);
	if (json->arena == NULL)
		json->arena_size = 0;
	return json->arena != NULL;
}

/*
 * A chunk of records from *last on, each copied to "to" and followed by a newline.
 * Moves *last behind them and returns their length.  A record alone may be
 * larger than a chunk.
 */
static size_t
chunk_by_copy(SeJson *json, const SeRecord *records, int *last, int n, char *to)
{
	const int	first = *last;
	size_t		len = 0;

	for (; *last < n; (*last)++)
	{
		const SeRecord *record = &records[*last];

		json->start[*last] = (uint32_t) len;
		if (record->payload == NULL)
			continue;
		if (is_packed(record) ||
			(*last > first && len + record->payload_len >= chunk_size))
			break;
		memcpy(to + len, record->payload, record->payload_len);
		len += record->payload_len;
		to[len++] = '\n';
	}

	/* what the walk may look at behind the last record */
	memset(to + len, ' ', SE_JSON_PADDING);
	return len;
}

/* The same of records that lie that way already. */
static size_t
chunk_in_place(SeJson *json, const SeRecord *records, int *last, int n)
{
	const int	first = *last;
	const char *base = records[first].payload;
	size_t		len = 0;

	for (; *last < n; (*last)++)
	{
		const SeRecord *record = &records[*last];

		json->start[*last] = (uint32_t) len;
		if (record->payload == NULL)
			continue;
		if (!is_packed(record) || record->payload != base + len ||
			(*last > first && len + record->payload_len >= chunk_size))
			break;
		len += (size_t) record->payload_len + 1;
	}
	return len;
}

extern "C" bool
se_json_run(SeJson *json, const SeRecord *records, int n, SeJsonStatus *status)
{
	size_t		total = SE_JSON_PADDING;
	size_t		offset = 0;
	int			first = 0;

	if (!json->compiled)
	{
		json->values = (SeJsonValue *) malloc(sizeof(SeJsonValue) * SE_BATCH_MAX *
											  (json->trie.nslots + 1));
		if (json->values == NULL || !se_trie_compile(&json->trie))
			return false;
		json->compiled = true;
	}
	for (int slot = 0; slot < json->trie.nslots; slot++)
	{
		SeJsonValue *values = json->values + (size_t) slot * SE_BATCH_MAX;

		for (int row = 0; row < n; row++)
			values[row].kind = SE_JSON_MISSING;
	}

	for (int row = 0; row < n; row++)
	{
		status[row] = {SE_JSON_OK, 0};
		if (records[row].payload != NULL && !is_packed(&records[row]))
			total += (size_t) records[row].payload_len + 1;
	}
	if (!reserve_arena(json, total))
		return false;

	while (first < n)
	{
		const char *base = json->arena + offset;
		int			last = first;
		size_t		len;

		if (is_packed(&records[first]))
		{
			base = records[first].payload;
			len = chunk_in_place(json, records, &last, n);
		}
		else
		{
			len = chunk_by_copy(json, records, &last, n, json->arena + offset);
			offset += len;
		}
		if (len > 0 && !run_chunk(json, records, first, last, base, len, status))
			return false;
		first = last;
	}
	return true;
}

extern "C" const SeJsonValue *
se_json_values(const SeJson *json, int slot)
{
	return json->values + (size_t) slot * SE_BATCH_MAX;
}

extern "C" const char *
se_json_error_text(SeJsonError error)
{
	switch (error)
	{
		case SE_JSON_OK:
			break;
		case SE_JSON_EMPTY:
			return "the payload is empty";
		case SE_JSON_FRAMED:
			return "the payload starts with a zero byte, as if framed by a schema registry";
		case SE_JSON_NOT_OBJECT:
			return "expected an object";
		case SE_JSON_TRUNCATED:
			return "the payload ends inside an object or array";
		case SE_JSON_UNTERMINATED:
			return "unterminated string";
		case SE_JSON_CONTROL:
			return "control character inside a string";
		case SE_JSON_UTF8:
			return "not UTF-8";
		case SE_JSON_EXPECT_KEY:
			return "expected a field name in quotes";
		case SE_JSON_EXPECT_COLON:
			return "expected \":\"";
		case SE_JSON_EXPECT_VALUE:
			return "expected a value";
		case SE_JSON_EXPECT_COMMA:
			return "expected \",\" or the end of the object or array";
		case SE_JSON_NUMBER_SYNTAX:
			return "malformed number";
		case SE_JSON_LITERAL:
			return "expected true, false or null";
		case SE_JSON_ESCAPE:
			return "invalid escape sequence";
		case SE_JSON_TRAILING:
			return "something follows the object";
		case SE_JSON_DEPTH:
			return "nested too deeply";
		case SE_JSON_NUL:
			return "\\u0000 cannot be converted to text";
		case SE_JSON_SURROGATE:
			return "unpaired Unicode surrogate";
	}
	return "no error";
}
