/*
 * coerce_value.c
 *	  One JSON value to a Datum of any type.
 *
 * NOTES
 *	  The rules that coerce.c's loops are fast forms of.  A value becomes text, and
 *	  the text goes through the type's input function with its typmod, except
 *	  that
 *	  - numbers become integers by value (1e3 and 15.0 are integers),
 *	  - numbers become times only by option epoch,
 *	  - words like "now" are no times: a record must mean the same whenever it is
 *	    read,
 *	  - json and jsonb take the value as it was written,
 *	  - a JSON array becomes a Postgres array element by element, nested ones a
 *	    multidimensional array,
 *	  - a domain is checked after its base type.
 *	  Allocates in CurrentMemoryContext, and raises errors.
 */
#include "postgres.h"

#include <ctype.h>

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "compat/compat.h"
#if SE_HAVE_SOFT_ERRORS
#include "nodes/miscnodes.h"
#endif
#include "decoder_internal.h"
#include "json_scalar.h"

/* An array while its elements are read. */
typedef struct ArrayBuild
{
	SeTypeCoercion *coercion;	/* of the element */
	const char *text;			/* all of it, for messages */
	int			len;
	int			ndims;			/* 0: not known yet */
	int			dims[MAXDIM];	/* -1: not known yet */
	Datum	   *values;
	bool	   *nulls;
	int			nvalues;
	int			capacity;
} ArrayBuild;

/* Can the text of a value hold a date or time that the types' input functions read? */
static bool
holds_time(Oid type)
{
	bool		result = false;
	TupleDesc	desc;

	check_stack_depth();
	type = getBaseType(type);
	if (OidIsValid(get_element_type(type)))
		return holds_time(get_element_type(type));
	switch (type)
	{
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return true;
	}
	switch (get_typtype(type))
	{
		case TYPTYPE_RANGE:
			return holds_time(get_range_subtype(type));
		case TYPTYPE_MULTIRANGE:
			return holds_time(get_multirange_range(type));
		case TYPTYPE_COMPOSITE:
			desc = lookup_rowtype_tupdesc(type, -1);
			for (int i = 0; i < desc->natts && !result; i++)
			{
				if (!TupleDescAttr(desc, i)->attisdropped)
					result = holds_time(TupleDescAttr(desc, i)->atttypid);
			}
			ReleaseTupleDesc(desc);
			return result;
	}
	return false;
}

void
se_coercion_init(SeTypeCoercion *coercion, Oid type, int32 typmod, int epoch_digits,
				 MemoryContext context)
{
	Oid			input;
	Oid			element;

	memset(coercion, 0, sizeof(*coercion));
	coercion->type = type;
	coercion->base = getBaseTypeAndTypmod(type, &typmod);
	coercion->typmod = typmod;
	coercion->constrained = coercion->base != type && DomainHasConstraints(type);
	coercion->context = context;
	coercion->epoch_digits = epoch_digits;
	get_typlenbyvalalign(type, &coercion->typlen, &coercion->typbyval, &coercion->typalign);
	getTypeInputInfo(coercion->base, &input, &coercion->ioparam);
	fmgr_info_cxt(input, &coercion->input, context);
	coercion->holds_time = holds_time(coercion->base);

	element = get_element_type(coercion->base);
	if (OidIsValid(element))
	{
		coercion->element = MemoryContextAlloc(context, sizeof(SeTypeCoercion));
		se_coercion_init(coercion->element, element, typmod, epoch_digits, context);
	}
	else if (epoch_digits >= 0 &&
			 coercion->base != TIMESTAMPTZOID && coercion->base != TIMESTAMPOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("option \"%s\" does not fit type %s", "epoch", format_type_be(type)),
				 errhint("Declare the column as timestamp with time zone.")));
}

/* The value's text in the server's encoding; json: as it was written. */
static char *
value_text(const SeJsonValue *value, bool json)
{
	char	   *text;
	char	   *converted;
	int			len = value->len;

	if (json && value->kind == SE_JSON_STRING)
		text = pnstrdup(value->data - 1, len += 2);
	else if (value->escaped)
	{
		SeJsonError error;

		text = palloc(len + 1);
		len = se_json_unescape(value->data, len, text, &error);
		if (len < 0 && error == SE_JSON_NUL)
			ereport(ERROR,
					(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
					 errmsg("unsupported Unicode escape sequence"),
					 errdetail_internal("%s", se_json_error_text(error))));
		if (len < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					 errmsg("invalid input syntax for type %s", "json"),
					 errdetail_internal("%s", se_json_error_text(error))));
		text[len] = '\0';
	}
	else
		text = pnstrdup(value->data, len);

	converted = pg_any_to_server(text, len, PG_UTF8);
	return converted;
}

/* Call the type's input function. */
static Datum
call_input(SeTypeCoercion *coercion, char *text, ErrorData **error)
{
#if SE_HAVE_SOFT_ERRORS
	ErrorSaveContext save = {T_ErrorSaveContext};
	Datum		result;

	save.details_wanted = true;
	if (InputFunctionCallSafe(&coercion->input, text, coercion->ioparam, coercion->typmod,
							  (Node *) &save, &result))
		return result;
	*error = save.error_data;
	return (Datum) 0;
#else
	return InputFunctionCall(&coercion->input, text, coercion->ioparam, coercion->typmod);
#endif
}

/* An integer that the text of a JSON number denotes, for types int2, int4 and int8. */
static Datum
integer_value(SeTypeCoercion *coercion, const SeJsonValue *value)
{
	int64		low = coercion->base == INT2OID ? PG_INT16_MIN :
	coercion->base == INT4OID ? PG_INT32_MIN : PG_INT64_MIN;
	int64		high = coercion->base == INT2OID ? PG_INT16_MAX :
	coercion->base == INT4OID ? PG_INT32_MAX : PG_INT64_MAX;
	int64		result = 0;
	SeScalarStatus status = se_scalar_int64(value->data, value->len, &result);

	if (status == SE_SCALAR_FRACTION || status == SE_SCALAR_OTHER)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for type %s: \"%s\"",
						format_type_be(coercion->base), value_text(value, false))));
	if (status == SE_SCALAR_RANGE || result < low || result > high)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("value \"%s\" is out of range for type %s",
						value_text(value, false), format_type_be(coercion->base))));
	switch (coercion->base)
	{
		case INT2OID:
			return Int16GetDatum((int16) result);
		case INT4OID:
			return Int32GetDatum((int32) result);
		default:
			return Int64GetDatum(result);
	}
}

/* A number for a time type. */
static Datum
epoch_value(SeTypeCoercion *coercion, const SeJsonValue *value)
{
	int64		result;

	if (coercion->epoch_digits < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_DATETIME_FORMAT),
				 errmsg("number %s for type %s needs the column option epoch",
						value_text(value, false), format_type_be(coercion->base)),
				 errdetail("The option's value is the number's unit: s, ms or us.")));
	if (se_scalar_epoch(value->data, value->len, coercion->epoch_digits, &result) != SE_SCALAR_OK)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range: \"%s\"", value_text(value, false))));
	return DirectFunctionCall2(timestamp_scale, TimestampGetDatum(result),
							   Int32GetDatum(coercion->typmod));
}

/*
 * Raise an error if a date or time names the current one.  The text may be that of
 * an array, range or row, in which quotes and backslashes stand in the midst of
 * words; of a row any field that is such a word is refused.
 */
static void
refuse_current_time(SeTypeCoercion *coercion, const char *text)
{
	static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};
	char	   *plain = palloc(strlen(text) + 1);
	char	   *end = plain;
	const char *at = plain;

	for (const char *c = text; *c != '\0'; c++)
	{
		if (*c != '\\' && *c != '"')
			*end++ = *c;
	}
	*end = '\0';

	while (*at != '\0')
	{
		int			len = 0;

		while (isalpha((unsigned char) at[len]))
			len++;
		for (int i = 0; i < lengthof(words); i++)
		{
			if (len == strlen(words[i]) && pg_strncasecmp(at, words[i], len) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_DATETIME_FORMAT),
						 errmsg("invalid input syntax for type %s: \"%s\"",
								format_type_be(coercion->base), text),
						 errdetail("The value would depend on the time at which the record is read.")));
		}
		at += Max(len, 1);
	}
	pfree(plain);
}

/* Cut the next value out of valid JSON; *at is moved behind it. */
static void
next_value(const char **at, SeJsonValue *value)
{
	const char *s = *at;
	int			depth = 0;

	value->escaped = value->digits = false;
	value->data = s;
	switch (*s)
	{
		case '"':
			value->kind = SE_JSON_STRING;
			value->data = ++s;
			while (*s != '"')
			{
				if (*s == '\\')
				{
					value->escaped = true;
					s++;
				}
				s++;
			}
			value->len = s - value->data;
			*at = s + 1;
			return;
		case '[':
		case '{':
			value->kind = *s == '[' ? SE_JSON_ARRAY : SE_JSON_OBJECT;
			do
			{
				if (*s == '[' || *s == '{')
					depth++;
				else if (*s == ']' || *s == '}')
					depth--;
				else if (*s == '"')
				{
					for (s++; *s != '"'; s++)
					{
						if (*s == '\\')
							s++;
					}
				}
				s++;
			} while (depth > 0);
			break;
		default:
			value->kind = *s == 'n' ? SE_JSON_NULL : *s == 't' ? SE_JSON_TRUE :
				*s == 'f' ? SE_JSON_FALSE : SE_JSON_NUMBER;
			while (*s != ',' && *s != ']' && *s != ' ' && *s != '\t' && *s != '\n' && *s != '\r')
				s++;
			break;
	}
	value->len = s - value->data;
	*at = s;
}

static const char *
skip_space(const char *s)
{
	while (*s == ' ' || *s == '\t' || *s == '\n' || *s == '\r')
		s++;
	return s;
}

static void
malformed_array(const ArrayBuild *build, const char *detail)
{
	SeJsonValue all = {build->text, build->len, SE_JSON_ARRAY, false, false};

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("malformed array: \"%s\"", value_text(&all, false)),
			 errdetail_internal("%s", detail)));
}

/* Add the elements of the JSON array at "value", which is nested "depth" deep. */
static void
add_elements(ArrayBuild *build, const SeJsonValue *value, int depth, ErrorData **error)
{
	const char *at = skip_space(value->data + 1);
	int			n = 0;

	if (depth >= MAXDIM)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("number of array dimensions (%d) exceeds the maximum allowed (%d)",
						depth + 1, MAXDIM)));

	while (*at != ']')
	{
		SeJsonValue element;

		next_value(&at, &element);
		if (element.kind == SE_JSON_ARRAY)
		{
			if (build->ndims != 0 && depth + 1 >= build->ndims)
				malformed_array(build, "Multidimensional arrays must have sub-arrays with matching dimensions.");
			add_elements(build, &element, depth + 1, error);
		}
		else
		{
			/* the first element that is no array tells the dimensions */
			if (build->ndims == 0)
				build->ndims = depth + 1;
			if (depth + 1 != build->ndims)
				malformed_array(build, "Multidimensional arrays must have sub-arrays with matching dimensions.");
			if (build->nvalues == build->capacity)
			{
				build->capacity = Max(build->capacity * 2, 16);
				if (build->values == NULL)
				{
					build->values = palloc(sizeof(Datum) * build->capacity);
					build->nulls = palloc(sizeof(bool) * build->capacity);
				}
				else
				{
					build->values = repalloc(build->values, sizeof(Datum) * build->capacity);
					build->nulls = repalloc(build->nulls, sizeof(bool) * build->capacity);
				}
			}
			build->values[build->nvalues] =
				se_coerce_value(build->coercion, &element, &build->nulls[build->nvalues], error);
			build->nvalues++;
		}
		if (*error != NULL)
			return;
		n++;
		at = skip_space(at);
		if (*at == ',')
			at = skip_space(at + 1);
	}

	/* an innermost array without elements */
	if (n == 0 && build->ndims == 0)
		build->ndims = depth + 1;
	if (build->dims[depth] < 0)
		build->dims[depth] = n;
	else if (build->dims[depth] != n)
		malformed_array(build, "Multidimensional arrays must have sub-arrays with matching dimensions.");
}

static Datum
array_value(SeTypeCoercion *coercion, const SeJsonValue *value, ErrorData **error)
{
	ArrayBuild	build = {.coercion = coercion->element, .text = value->data, .len = value->len};
	int			lower_bounds[MAXDIM];

	for (int i = 0; i < MAXDIM; i++)
	{
		build.dims[i] = -1;
		lower_bounds[i] = 1;
	}
	add_elements(&build, value, 0, error);
	if (*error != NULL)
		return (Datum) 0;
	if (build.nvalues == 0)
		return PointerGetDatum(construct_empty_array(coercion->element->type));
	return PointerGetDatum(construct_md_array(build.values, build.nulls, build.ndims, build.dims,
											  lower_bounds, coercion->element->type,
											  coercion->element->typlen,
											  coercion->element->typbyval,
											  coercion->element->typalign));
}

/* A value that is not null, to the base type. */
static Datum
base_value(SeTypeCoercion *coercion, const SeJsonValue *value, ErrorData **error)
{
	bool		json = coercion->base == JSONOID || coercion->base == JSONBOID;
	char	   *text;

	if (coercion->element != NULL && value->kind == SE_JSON_ARRAY)
		return array_value(coercion, value, error);
	if (coercion->element != NULL && value->kind == SE_JSON_OBJECT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("malformed array: \"%s\"", value_text(value, false)),
				 errdetail("The value is a JSON object.")));
	if (value->kind == SE_JSON_NUMBER)
	{
		switch (coercion->base)
		{
			case INT2OID:
			case INT4OID:
			case INT8OID:
				return integer_value(coercion, value);
			case TIMESTAMPTZOID:
			case TIMESTAMPOID:
				return epoch_value(coercion, value);
			case DATEOID:
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_DATETIME_FORMAT),
						 errmsg("invalid input syntax for type %s: \"%s\"", "date",
								value_text(value, false)),
						 errdetail("A number is no date; declare the column as timestamp with time zone with option epoch.")));
		}
	}
	text = value_text(value, json);
	if (coercion->holds_time)
		refuse_current_time(coercion, text);
	return call_input(coercion, text, error);
}

Datum
se_coerce_value(SeTypeCoercion *coercion, const SeJsonValue *value, bool *isnull,
				ErrorData **error)
{
	Datum		result = (Datum) 0;

	*isnull = value->kind <= SE_JSON_NULL;
	if (!*isnull)
		result = base_value(coercion, value, error);
	if (coercion->constrained && *error == NULL)
		domain_check(result, *isnull, coercion->type, &coercion->domain_extra,
					 coercion->context);
	return result;
}
