/*
 * json_core.h
 *	  JSON objects to the values at given paths: the core of the JSON decoder.
 *
 * NOTES
 *	  Free of PostgreSQL's headers: built and fuzzed without a server.  No
 *	  function here throws, jumps or allocates by other means than malloc, whose
 *	  failure is reported.
 *
 *	  A scanner knows a set of paths.  Each run finds, for a batch of records, the
 *	  value at each path, as a slice of a copy of the record which lives until
 *	  the next run (or the end of the scanner).  The values are not
 *	  converted here (see json_scalar.h), but the whole record is validated.
 *
 *	  The bytes before and after a slice may be read up to SE_JSON_PADDING.
 */
#ifndef SE_JSON_CORE_H
#define SE_JSON_CORE_H

#include "columns.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SE_JSON_PADDING 64

/* Deepest nesting of a record, and of a path. */
#define SE_JSON_MAX_DEPTH 1000

typedef enum SeJsonKind
{
	SE_JSON_MISSING = 0,		/* no such field */
	SE_JSON_NULL,
	SE_JSON_FALSE,
	SE_JSON_TRUE,
	SE_JSON_NUMBER,				/* data: the number as it was written */
	SE_JSON_STRING,				/* data: between the quotes */
	SE_JSON_ARRAY,				/* data: from bracket to bracket */
	SE_JSON_OBJECT
} SeJsonKind;

typedef struct SeJsonValue
{
	const char *data;
	int32_t		len;
	uint8_t		kind;			/* SeJsonKind */
	bool		escaped;		/* a string that se_json_unescape must read */
	bool		digits;			/* known to be a number of at most 8 digits, no more */
} SeJsonValue;

typedef enum SeJsonError
{
	SE_JSON_OK = 0,
	SE_JSON_EMPTY,				/* nothing but white space */
	SE_JSON_FRAMED,				/* starts with a zero byte */
	SE_JSON_NOT_OBJECT,			/* valid so far, but no object */
	SE_JSON_TRUNCATED,			/* ends inside an object or array */
	SE_JSON_UNTERMINATED,		/* ends inside a string */
	SE_JSON_CONTROL,			/* control character inside a string */
	SE_JSON_UTF8,				/* not UTF-8 */
	SE_JSON_EXPECT_KEY,
	SE_JSON_EXPECT_COLON,
	SE_JSON_EXPECT_VALUE,
	SE_JSON_EXPECT_COMMA,		/* or the end of the object or array */
	SE_JSON_NUMBER_SYNTAX,
	SE_JSON_LITERAL,			/* a word other than true, false, null */
	SE_JSON_ESCAPE,				/* no such escape sequence */
	SE_JSON_TRAILING,			/* something follows the object */
	SE_JSON_DEPTH,				/* nested deeper than SE_JSON_MAX_DEPTH */
	SE_JSON_NUL,				/* \u0000 (only of se_json_unescape) */
	SE_JSON_SURROGATE			/* unpaired (only of se_json_unescape) */
} SeJsonError;

typedef struct SeJsonStatus
{
	int32_t		error;			/* SeJsonError */
	int32_t		position;		/* byte of the record, from 0 */
} SeJsonStatus;

typedef struct SeJson SeJson;

/* NULL: out of memory. */
extern SeJson *se_json_create(void);
extern void se_json_destroy(SeJson *json);

/*
 * Add a path: '$', then steps .name, ."name", ['name'], ["name"] and [number]
 * (elements count from 0); in quotes a backslash takes the next
 * character as it is.  Equal paths share a slot.  Returns the slot, or -1
 * with *message (and *position, a byte of the path from 0) or, when out
 * of memory, with *message = NULL.  Not to be called after the first run.
 */
extern int	se_json_add_path(SeJson *json, const char *path, const char **message, int *position);

/* The same for the member "name" of the record; -1: out of memory. */
extern int	se_json_add_member(SeJson *json, const char *name);

/*
 * Find the values in records[0..n-1], n <= SE_BATCH_MAX.  Tombstones have status
 * SE_JSON_OK and no values.  Values of a record with an error are
 * undefined.  False: out of memory.
 */
extern bool se_json_run(SeJson *json, const SeRecord *records, int n, SeJsonStatus *status);

/* The values of a slot, by row of the last run. */
extern const SeJsonValue *se_json_values(const SeJson *json, int slot);

/* A sentence fragment about an error, for "invalid JSON: %s". */
extern const char *se_json_error_text(SeJsonError error);

/*
 * Write a string's characters to "to", which has room for "len" bytes.
 * Returns their number, or -1 with *error.
 */
extern int	se_json_unescape(const char *from, int len, char *to, SeJsonError *error);

#ifdef __cplusplus
}
#endif

#endif							/* SE_JSON_CORE_H */
