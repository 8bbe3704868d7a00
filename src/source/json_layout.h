/*
 * json_layout.h
 *	  The layout of a record, and records that have the same.
 *
 * NOTES
 *	  Private to the scanner, part of json_core.cpp.  A producer mostly writes the
 *	  same members in the same order.  So the layout of a record that the walk has
 *	  found valid is remembered, and the next records are first compared with it:
 *	  names by a comparison of their bytes where the walk would look them up,
 *	  separators one by one, and of the values all that JSON demands.  A record that
 *	  differs in anything is walked: nothing is accepted here that the walk would
 *	  not accept, and what was stored here for a record that differs later on, the
 *	  walk stores again.
 *
 *	  Objects in objects are part of a layout, arrays are not: their lengths vary.
 */
#ifndef SE_JSON_LAYOUT_H
#define SE_JSON_LAYOUT_H

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "json_core.h"
#include "json_path.h"

#define LAYOUT_MAX_STEPS 128
#define LAYOUT_MAX_NAMES 4096

/* Longest time, in records, that a layout which fits none is kept. */
#define LAYOUT_MAX_PATIENCE 1024

/* A member: its name, its value and what closes behind it. */
struct LayoutStep
{
	uint64_t	head[2];		/* quote and name, the first sixteen bytes */
	uint64_t	mask[2];		/* of the bytes of head that count */
	const char *rest;			/* of the name, behind head */
	uint32_t	rest_len;
	uint32_t	colon;			/* its distance from the quote */
	SeJsonNode *node;			/* of the value, NULL if no path leads there */
	int32_t		slot;			/* -1: the value is only validated */
	bool		opens;			/* the value is an object, its first member follows */
	uint8_t		closes;			/* objects that end behind the value */
};

struct JsonLayout
{
	int			nsteps;			/* 0: no layout */
	int			misses;			/* records since the last that had it */
	int			patience;		/* misses that are borne */
	LayoutStep	steps[LAYOUT_MAX_STEPS];
	char		names[LAYOUT_MAX_NAMES];
};

static inline bool
is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline bool
is_digit(char c)
{
	return (unsigned char) (c - '0') < 10;
}

/* Does [s, end) hold exactly one number? */
static inline bool
is_number(const char *s, const char *end)
{
	if (s < end && *s == '-')
		s++;
	if (s == end || !is_digit(*s))
		return false;
	if (*s == '0')
		s++;
	else
		while (s < end && is_digit(*s))
			s++;
	if (s < end && *s == '.')
	{
		s++;
		if (s == end || !is_digit(*s))
			return false;
		while (s < end && is_digit(*s))
			s++;
	}
	if (s < end && (*s == 'e' || *s == 'E'))
	{
		s++;
		if (s < end && (*s == '+' || *s == '-'))
			s++;
		if (s == end || !is_digit(*s))
			return false;
		while (s < end && is_digit(*s))
			s++;
	}
	return s == end;
}

/*
 * Does [s, s + len) hold digits, with a point between them perhaps?  True only if
 * it is a number; false may be one, too.  Eight bytes may be read.  *digits
 * becomes true if it is known to be nothing but digits.
 */
static inline bool
is_short_number(const char *s, uint32_t len, bool *digits)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	uint64_t	bytes;
	uint64_t	others;
	int			at;

	if (len > 8 || len == 0)
		return false;
	memcpy(&bytes, s, sizeof(bytes));
	bytes = (bytes ^ UINT64_C(0x3030303030303030)) << (8 - len) * 8;
	others = (bytes | (bytes + UINT64_C(0x0606060606060606))) & UINT64_C(0xF0F0F0F0F0F0F0F0);
	if (others == 0)
	{
		*digits = true;
		return len == 1 || *s != '0';
	}

	/* the first byte that is no digit, counted from the start of the number */
	at = __builtin_ctzll(others) / 8 - (8 - (int) len);
	return at > 0 && at < (int) len - 1 && s[at] == '.' && (*s != '0' || at == 1) &&
		(others >> (at + 8 - len) * 8 >> 8) == 0;
#else
	return false;
#endif
}

/*
 * Read a value that is no container: at "pos", with the next token at "next".
 * False: it is none, or not valid.  Strings must be without escapes.
 */
static inline bool
read_scalar(const char *base, uint32_t pos, uint32_t next, SeJsonValue *value)
{
	while (is_space(base[next - 1]))
		next--;
	value->data = base + pos;
	value->len = (int32_t) (next - pos);
	value->escaped = false;
	value->digits = false;
	switch (base[pos])
	{
		case '"':
			value->kind = SE_JSON_STRING;
			value->data++;
			value->len -= 2;
			return true;
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
			value->kind = SE_JSON_NUMBER;
			return is_short_number(value->data, value->len, &value->digits) ||
				is_number(value->data, value->data + value->len);
		case 't':
			value->kind = SE_JSON_TRUE;
			return value->len == 4 && memcmp(value->data, "true", 4) == 0;
		case 'f':
			value->kind = SE_JSON_FALSE;
			return value->len == 5 && memcmp(value->data, "false", 5) == 0;
		case 'n':
			value->kind = SE_JSON_NULL;
			return value->len == 4 && memcmp(value->data, "null", 4) == 0;
	}
	return false;
}

/*
 * Read a record of that layout: its tokens start at *next, it ends at "end", and it
 * has no escapes.  The value of slot s goes to values[s * SE_BATCH_MAX].  Leaves
 * *next behind the record's tokens.  False: the record must be walked, and *next
 * is as it was.
 */
static inline bool
read_by_layout(const JsonLayout *layout, const char *base, uint32_t end, const uint32_t **next,
			   SeJsonValue *values)
{
	const uint32_t *tokens = *next;
	const LayoutStep *step = layout->steps;
	const LayoutStep *const last = step + layout->nsteps - 1;

	if (*tokens >= end || base[*tokens] != '{')
		return false;
	tokens++;

	for (;; step++)
	{
		uint32_t	name = tokens[0];
		SeJsonValue value;
		uint64_t	head[2];

		if (name >= end)
			return false;

		/* equal bytes up to the colon leave no room for anything but the quote */
		memcpy(head, base + name, sizeof(head));
		if ((((head[0] ^ step->head[0]) & step->mask[0]) |
			 ((head[1] ^ step->head[1]) & step->mask[1])) != 0 ||
			tokens[1] != name + step->colon || base[tokens[1]] != ':' ||
			(step->rest_len > 0 &&
			 memcmp(base + name + sizeof(head), step->rest, step->rest_len) != 0))
			return false;
		if (tokens[2] >= end)
			return false;
		if (step->opens)
		{
			if (base[tokens[2]] != '{')
				return false;
			tokens += 3;
			continue;
		}

		if (tokens[3] >= end || !read_scalar(base, tokens[2], tokens[3], &value))
			return false;
		if (step->slot >= 0)
			values[(size_t) step->slot * SE_BATCH_MAX] = value;
		tokens += 3;
		for (int i = 0; i < step->closes; i++)
		{
			if (*tokens >= end || base[*tokens] != '}')
				return false;
			tokens++;
		}
		if (step == last)
			break;
		if (*tokens >= end || base[*tokens] != ',')
			return false;
		tokens++;
	}
	if (*tokens < end)
		return false;
	*next = tokens;
	return true;
}

/*
 * Remember the layout of a valid record without escapes whose tokens are those of
 * [tokens, tokens_end).  There is none afterwards if it has arrays, empty objects,
 * a member twice that a path leads to, or a path that ends at an object.
 */
static inline void
learn_layout(JsonLayout *layout, const SeJsonTrie *trie, const char *base,
			 const uint32_t *tokens, const uint32_t *tokens_end)
{
	SeJsonNode *parents[LAYOUT_MAX_STEPS];
	int			depth = 0;
	int			n = 0;
	uint32_t	used = 0;

	layout->nsteps = 0;
	parents[0] = &trie->nodes[0];
	if (parents[0]->slot >= 0)
		return;
	tokens++;
	while (tokens < tokens_end)
	{
		LayoutStep *step = &layout->steps[n];
		uint32_t	name = tokens[0];
		uint32_t	len;
		uint32_t	in_head;

		/* name, colon, value, and what follows it */
		if (n == LAYOUT_MAX_STEPS || tokens_end - tokens < 4 || base[name] != '"')
			return;
		len = tokens[1] - 1 - name;
		if (base[tokens[1] - 1] != '"' || used + len > LAYOUT_MAX_NAMES)
			return;				/* white space in front of the colon */
		in_head = len < sizeof(step->head) ? len : sizeof(step->head);
		memset(step, 0, sizeof(*step));
		memcpy(step->head, base + name, in_head);
		memset(step->mask, 0xFF, in_head);
		step->rest_len = len - in_head;
		step->rest = layout->names + used;
		memcpy(layout->names + used, base + name + in_head, step->rest_len);
		used += step->rest_len;
		step->colon = len + 1;
		if (parents[depth] != NULL && parents[depth]->nmembers > 0)
			step->node = se_trie_member(trie, parents[depth], base + name + 1,
										(int32_t) len - 1);
		step->slot = step->node ? step->node->slot : -1;
		for (int i = 0; i < n && step->node != NULL; i++)
		{
			if (layout->steps[i].node == step->node)
				return;
		}

		if (base[tokens[2]] == '[')
			return;
		if (base[tokens[2]] == '{')
		{
			if (step->slot >= 0 || depth + 1 == LAYOUT_MAX_STEPS)
				return;
			step->opens = true;
			parents[++depth] = step->node;
			tokens += 3;
		}
		else
		{
			for (tokens += 3; tokens < tokens_end && base[*tokens] == '}'; tokens++)
			{
				step->closes++;
				depth--;
			}
			tokens++;			/* the comma */
		}
		n++;
	}
	layout->nsteps = n;
}

#endif							/* SE_JSON_LAYOUT_H */
