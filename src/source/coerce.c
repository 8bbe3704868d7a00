/*
 * coerce.c
 *	  JSON values to column vectors, column by column.
 *
 * NOTES
 *	  One loop a type.  A loop decides what is common, and what is certainly
 *	  wrong, without calling a function of the type and without raising an
 *	  error; all else becomes a task for coerce_value.c, so what these loops
 *	  decide must agree with the types' input functions.
 *
 *	  Text stays where it is, in the record or in the copy of it that the JSON scanner
 *	  keeps as long as the batch lives.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "decoder_internal.h"
#include "json_scalar.h"
#include "vector.h"

/* What a loop needs of its column, in one place. */
typedef struct Loop
{
	SeDecoder  *decoder;
	int			index;			/* of column */
	SeColumn   *column;
	SeVector   *vector;
	const SeJsonValue *values;
	int			nrows;
} Loop;

bool
se_coerce_is_fast(const SeColumn *column)
{
	if (column->coercion.type != column->coercion.base)
		return false;
	switch (column->coercion.base)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case UUIDOID:
		case JSONOID:
			return true;
		default:
			return false;
	}
}

static void
add_task(const Loop *loop, int row)
{
	se_decoder_add_task(loop->decoder, &loop->decoder->values, row, loop->index);
}

/* A field that is missing or null: the default, or NULL. */
static void
absent_value(const Loop *loop, int row)
{
	SeColumn   *column = loop->column;

	if (loop->values[row].kind == SE_JSON_MISSING && column->has_default)
	{
		if (column->default_constant)
			se_vector_set(loop->vector, row, column->coercion.type,
						  column->default_value, column->default_null);
		else
			se_decoder_add_task(loop->decoder, &loop->decoder->defaults, row, loop->index);
		return;
	}
	se_vector_set(loop->vector, row, column->coercion.type, (Datum) 0, true);

	/* a domain may refuse NULL */
	if (column->coercion.constrained)
		add_task(loop, row);
}

/*
 * Is there a value to coerce in this row?  Bad rows are left alone, missing and
 * null fields are done with here.
 */
static inline bool
has_value(const Loop *loop, int row)
{
	if (loop->decoder->batch.verdict[row] != SE_RECORD_OK)
		return false;
	if (loop->values[row].kind <= SE_JSON_NULL)
	{
		absent_value(loop, row);
		return false;
	}
	loop->vector->null[row] = false;
	return true;
}

static void
bad_syntax(const Loop *loop, int row)
{
	const SeJsonValue *value = &loop->values[row];

	se_decoder_bad_row(loop->decoder, row, loop->column, ERRCODE_INVALID_TEXT_REPRESENTATION,
					   "invalid input syntax for type %s: \"%s\"", loop->column->type_name,
					   se_decoder_printable(loop->decoder, value->data, value->len));
}

static void
int_out_of_range(const Loop *loop, int row)
{
	const SeJsonValue *value = &loop->values[row];

	se_decoder_bad_row(loop->decoder, row, loop->column, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
					   "value \"%s\" is out of range for type %s",
					   se_decoder_printable(loop->decoder, value->data, value->len),
					   loop->column->type_name);
}

static void
bool_column(const Loop *loop)
{
	for (int row = 0; row < loop->nrows; row++)
	{
		const SeJsonValue *value = &loop->values[row];
		bool		result;

		if (!has_value(loop, row))
			continue;
		if (value->kind == SE_JSON_TRUE || value->kind == SE_JSON_FALSE)
			loop->vector->v.i64[row] = value->kind == SE_JSON_TRUE;
		else if (value->kind <= SE_JSON_STRING && !value->escaped &&
				 parse_bool_with_len(value->data, value->len, &result))
			loop->vector->v.i64[row] = result;
		else
			add_task(loop, row);
	}
}

/* Only digits and a sign: the spelling that JSON and the input functions share. */
static inline bool
is_plain_integer(const char *s, int len)
{
	int			i = len > 1 && s[0] == '-';

	for (; i < len; i++)
	{
		if (s[i] < '0' || s[i] > '9')
			return false;
	}
	return len > 0;
}

static void
int_column(const Loop *loop, int64 low, int64 high)
{
	/* digits that need not be read if nobody wants the value: it is in range */
	int			harmless = loop->column->needed ? 0 : high > PG_INT16_MAX ? 8 : 4;

	for (int row = 0; row < loop->nrows; row++)
	{
		const SeJsonValue *value = &loop->values[row];
		int64		result = 0;
		SeScalarStatus status;

		if (!has_value(loop, row))
			continue;
		if (value->digits && value->len <= harmless)
			continue;
		if (value->kind != SE_JSON_NUMBER &&
			(value->kind != SE_JSON_STRING || !is_plain_integer(value->data, value->len)))
		{
			add_task(loop, row);
			continue;
		}
		status = se_scalar_int64(value->data, value->len, &result);
		if (status == SE_SCALAR_OK && result >= low && result <= high)
			loop->vector->v.i64[row] = result;
		else if (status == SE_SCALAR_OK || status == SE_SCALAR_RANGE)
			int_out_of_range(loop, row);
		else if (status == SE_SCALAR_FRACTION)
			bad_syntax(loop, row);
		else
			add_task(loop, row);
	}
}

static void
float_column(const Loop *loop, bool single)
{
	for (int row = 0; row < loop->nrows; row++)
	{
		const SeJsonValue *value = &loop->values[row];
		SeScalarStatus status = SE_SCALAR_OTHER;
		float		narrow;

		if (!has_value(loop, row))
			continue;
		if (value->kind == SE_JSON_NUMBER)
		{
			if (single)
			{
				status = se_scalar_float32(value->data, value->len, &narrow);
				if (status == SE_SCALAR_OK)
					loop->vector->v.f64[row] = narrow;
			}
			else
				status = se_scalar_float64(value->data, value->len, &loop->vector->v.f64[row]);
		}
		if (status == SE_SCALAR_RANGE)
			se_decoder_bad_row(loop->decoder, row, loop->column,
							   ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
							   "\"%s\" is out of range for type %s",
							   se_decoder_printable(loop->decoder, value->data, value->len),
							   loop->column->type_name);
		else if (status != SE_SCALAR_OK)
			add_task(loop, row);
	}
}

static void
numeric_column(const Loop *loop)
{
	int32		typmod = loop->column->coercion.typmod;
	int			precision = 0;
	int			scale = 0;
	bool		small = true;

	if (typmod >= (int32) VARHDRSZ)
	{
		/* the packing of numerictypmodin */
		precision = ((typmod - VARHDRSZ) >> 16) & 0xffff;
		scale = (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
		small = precision <= SE_DECIMAL_MAX_SCALE && scale >= 0 && scale <= SE_DECIMAL_MAX_SCALE;
	}
	for (int row = 0; row < loop->nrows; row++)
	{
		const SeJsonValue *value = &loop->values[row];
		SeDecimal  *result = &loop->vector->v.dec[row];

		if (!has_value(loop, row))
			continue;
		if (value->kind != SE_JSON_NUMBER || !small ||
			se_scalar_decimal(value->data, value->len, result) != SE_SCALAR_OK ||
			(precision > 0 && !se_decimal_apply_typmod(result, precision, scale)))
			add_task(loop, row);
	}
}

/*
 * The characters of a value as text: of the record, or of the batch if there were
 * escapes.  False if that needs more: another encoding.  A bad escape makes
 * the row bad.
 */
static inline bool
text_of_value(const Loop *loop, int row, SeSlice *result)
{
	const SeJsonValue *value = &loop->values[row];

	result->data = value->data;
	result->len = value->len;
	if (value->escaped)
	{
		SeJsonError error;
		char	   *text = MemoryContextAlloc(loop->decoder->batch.context, value->len);

		result->len = se_json_unescape(value->data, value->len, text, &error);
		result->data = text;
		if (result->len < 0)
		{
			se_decoder_bad_row(loop->decoder, row, loop->column,
							   error == SE_JSON_NUL ? ERRCODE_UNTRANSLATABLE_CHARACTER :
							   ERRCODE_INVALID_TEXT_REPRESENTATION,
							   error == SE_JSON_NUL ? "unsupported Unicode escape sequence (%s)" :
							   "invalid input syntax for type json (%s)",
							   se_json_error_text(error));
			result->len = 0;
			return true;
		}
	}
	if (loop->decoder->encode)
	{
		for (int i = 0; i < result->len; i++)
		{
			if (IS_HIGHBIT_SET(result->data[i]))
				return false;
		}
	}
	return true;
}

/*
 * Apply the length of varchar(n) or char(n) as the types do: spaces that are
 * too many are cut off, anything else is an error.  False: the row is bad.
 */
static bool
apply_length(const Loop *loop, int row, SeSlice *text, int *characters)
{
	int			limit = loop->column->coercion.typmod - VARHDRSZ;
	int			bytes;

	*characters = pg_mbstrlen_with_len(text->data, text->len);
	if (*characters <= limit)
		return true;
	bytes = pg_mbcharcliplen(text->data, text->len, limit);
	for (int i = bytes; i < text->len; i++)
	{
		if (text->data[i] != ' ')
		{
			se_decoder_bad_row(loop->decoder, row, loop->column,
							   ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
							   "value too long for type %s(%d)", loop->column->type_name, limit);
			return false;
		}
	}
	text->len = bytes;
	*characters = limit;
	return true;
}

static void
text_column(const Loop *loop)
{
	int			limit = loop->column->coercion.typmod - (int) VARHDRSZ;
	int			characters;

	for (int row = 0; row < loop->nrows; row++)
	{
		SeSlice    *result = &loop->vector->v.text[row];

		if (!has_value(loop, row))
			continue;
		if (!text_of_value(loop, row, result))
			add_task(loop, row);
		else if (limit >= 0 && result->len > limit)
			(void) apply_length(loop, row, result, &characters);
	}
}

static void
bpchar_column(const Loop *loop)
{
	int			limit = loop->column->coercion.typmod - (int) VARHDRSZ;

	for (int row = 0; row < loop->nrows; row++)
	{
		SeSlice		text;
		int			characters = 0;
		int			padding;
		struct varlena *result;

		if (!has_value(loop, row))
			continue;
		if (!text_of_value(loop, row, &text))
		{
			add_task(loop, row);
			continue;
		}
		if (limit >= 0 && !apply_length(loop, row, &text, &characters))
			continue;
		padding = limit >= 0 ? limit - characters : 0;
		if (!loop->column->needed)
			continue;
		result = MemoryContextAlloc(loop->decoder->batch.context,
									VARHDRSZ + text.len + padding);
		SET_VARSIZE(result, VARHDRSZ + text.len + padding);
		memcpy(VARDATA(result), text.data, text.len);
		memset(VARDATA(result) + text.len, ' ', padding);
		loop->vector->v.datum[row] = PointerGetDatum(result);
	}
}

/* Round microseconds to the precision of timestamp(n), as AdjustTimestampForTypmod. */
static inline int64
round_timestamp(int64 value, int64 unit)
{
	if (unit == 1)
		return value;
	return value >= 0 ? (value + unit / 2) / unit * unit : -((-value + unit / 2) / unit * unit);
}

static void
timestamp_column(const Loop *loop)
{
	static const int64 units[MAX_TIMESTAMP_PRECISION + 1] = {
		1000000, 100000, 10000, 1000, 100, 10, 1
	};
	const SeTypeCoercion *coercion = &loop->column->coercion;
	bool		with_zone = coercion->base == TIMESTAMPTZOID;
	int64		unit = 1;

	if (coercion->typmod >= 0 && coercion->typmod <= MAX_TIMESTAMP_PRECISION)
		unit = units[coercion->typmod];

	for (int row = 0; row < loop->nrows; row++)
	{
		const SeJsonValue *value = &loop->values[row];
		int64		result = 0;

		if (!has_value(loop, row))
			continue;
		if (value->kind == SE_JSON_STRING && !value->escaped &&
			se_scalar_timestamp(value->data, value->len, with_zone, &result) == SE_SCALAR_OK)
			loop->vector->v.i64[row] = round_timestamp(result, unit);
		else if (value->kind == SE_JSON_NUMBER && coercion->epoch_digits >= 0 &&
				 se_scalar_epoch(value->data, value->len, coercion->epoch_digits,
								 &result) == SE_SCALAR_OK)
			loop->vector->v.i64[row] = round_timestamp(result, unit);
		else
			add_task(loop, row);
	}
}

static void
date_column(const Loop *loop)
{
	for (int row = 0; row < loop->nrows; row++)
	{
		const SeJsonValue *value = &loop->values[row];

		if (!has_value(loop, row))
			continue;
		if (value->kind != SE_JSON_STRING || value->escaped ||
			se_scalar_date(value->data, value->len, &loop->vector->v.i64[row]) != SE_SCALAR_OK)
			add_task(loop, row);
	}
}

/* 8-4-4-4-12 hex digits; other spellings are left to uuid_in. */
static bool
parse_uuid(const char *s, int len, uint8 *result)
{
	/* value + 1, so that 0 is no digit */
	static const int8 hex[256] = {
		['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5,
		['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10,
		['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
		['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16
	};

	if (len != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-')
		return false;
	for (int i = 0, at = 0; i < UUID_LEN; i++)
	{
		int			high;
		int			low;

		if (s[at] == '-')
			at++;
		high = hex[(unsigned char) s[at++]];
		low = hex[(unsigned char) s[at++]];
		if (high == 0 || low == 0)
			return false;
		result[i] = (high - 1) << 4 | (low - 1);
	}
	return true;
}

static void
uuid_column(const Loop *loop)
{
	uint8	   *results = MemoryContextAlloc(loop->decoder->batch.context,
											 UUID_LEN * Max(loop->nrows, 1));

	for (int row = 0; row < loop->nrows; row++)
	{
		const SeJsonValue *value = &loop->values[row];

		if (!has_value(loop, row))
			continue;
		if (value->kind == SE_JSON_STRING && !value->escaped &&
			parse_uuid(value->data, value->len, results + row * UUID_LEN))
			loop->vector->v.datum[row] = PointerGetDatum(results + row * UUID_LEN);
		else
			add_task(loop, row);
	}
}

/* json: the text of the value, which the scanner has validated. */
static void
json_column(const Loop *loop)
{
	for (int row = 0; row < loop->nrows; row++)
	{
		const SeJsonValue *value = &loop->values[row];
		int			quotes = value->kind == SE_JSON_STRING;
		int			len = value->len + 2 * quotes;
		struct varlena *result;

		if (!has_value(loop, row))
			continue;
		if (loop->decoder->encode)
		{
			add_task(loop, row);
			continue;
		}
		if (!loop->column->needed)
			continue;
		result = MemoryContextAlloc(loop->decoder->batch.context, VARHDRSZ + len);
		SET_VARSIZE(result, VARHDRSZ + len);
		memcpy(VARDATA(result), value->data - quotes, len);
		loop->vector->v.datum[row] = PointerGetDatum(result);
	}
}

void
se_coerce_column(SeDecoder *decoder, int column, const SeJsonValue *values)
{
	Loop		loop = {
		.decoder = decoder,
		.index = column,
		.column = &decoder->columns[column],
		.vector = &decoder->batch.columns[decoder->columns[column].attnum - 1],
		.values = values,
		.nrows = decoder->batch.nrecords
	};

	if (!loop.column->fast)
	{
		for (int row = 0; row < loop.nrows; row++)
		{
			if (has_value(&loop, row))
				add_task(&loop, row);
		}
		return;
	}

	switch (loop.column->coercion.base)
	{
		case BOOLOID:
			bool_column(&loop);
			break;
		case INT2OID:
			int_column(&loop, PG_INT16_MIN, PG_INT16_MAX);
			break;
		case INT4OID:
			int_column(&loop, PG_INT32_MIN, PG_INT32_MAX);
			break;
		case INT8OID:
			int_column(&loop, PG_INT64_MIN, PG_INT64_MAX);
			break;
		case FLOAT4OID:
			float_column(&loop, true);
			break;
		case FLOAT8OID:
			float_column(&loop, false);
			break;
		case NUMERICOID:
			numeric_column(&loop);
			break;
		case TEXTOID:
		case VARCHAROID:
			text_column(&loop);
			break;
		case BPCHAROID:
			bpchar_column(&loop);
			break;
		case DATEOID:
			date_column(&loop);
			break;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			timestamp_column(&loop);
			break;
		case UUIDOID:
			uuid_column(&loop);
			break;
		case JSONOID:
			json_column(&loop);
			break;
	}
}
