/*
 * vector.c
 *	  Values of a column vector to and from Datums.
 *
 * NOTES
 *	  Linked into both libraries, so it uses nothing but the server.
 *
 *	  Numerics are read and built in their storage format, which pg_upgrade has
 *	  frozen, rather than through numeric_recv and numeric_send: those cost a
 *	  function call and a buffer for each value.  The format is that of numeric.c:
 *	  a header of one or two 16-bit words, then base-10000 digits without
 *	  leading or trailing zero digits.  What is built here is byte for byte what
 *	  the server would store.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "vector.h"

/* The storage format of numeric; the names are those of numeric.c. */
#define NUMERIC_SIGN_MASK			0xC000
#define NUMERIC_NEG					0x4000
#define NUMERIC_SHORT				0x8000
#define NUMERIC_SPECIAL				0xC000
#define NUMERIC_DSCALE_MASK			0x3FFF
#define NUMERIC_SHORT_SIGN_MASK		0x2000
#define NUMERIC_SHORT_DSCALE_MASK	0x1F80
#define NUMERIC_SHORT_DSCALE_SHIFT	7
#define NUMERIC_SHORT_DSCALE_MAX	63
#define NUMERIC_SHORT_WEIGHT_SIGN_MASK	0x0040
#define NUMERIC_SHORT_WEIGHT_MASK	0x003F
#define NUMERIC_SHORT_WEIGHT_MAX	63
#define NUMERIC_SHORT_WEIGHT_MIN	(-64)
#define NBASE						10000
#define DEC_DIGITS					4

#define DECIMAL_LIMIT	INT64CONST(1000000000000000000) /* 10^18 */

/* 2^127 has 39 decimal digits: at most 11 base-10000 digits at any alignment. */
#define INT128_DIGITS	11

static const int64 power_of_ten[SE_DECIMAL_MAX_SCALE + 1] = {
	INT64CONST(1), INT64CONST(10), INT64CONST(100), INT64CONST(1000),
	INT64CONST(10000), INT64CONST(100000), INT64CONST(1000000),
	INT64CONST(10000000), INT64CONST(100000000), INT64CONST(1000000000),
	INT64CONST(10000000000), INT64CONST(100000000000),
	INT64CONST(1000000000000), INT64CONST(10000000000000),
	INT64CONST(100000000000000), INT64CONST(1000000000000000),
	INT64CONST(10000000000000000), INT64CONST(100000000000000000),
	INT64CONST(1000000000000000000)
};

/*
 * The representation of a type.  Domains are Datums: their constraints and
 * their base type are a matter of the catalogs, which are not read here.
 */
SeRep
se_rep_of_type(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return SE_REP_INT64;
		case FLOAT4OID:
		case FLOAT8OID:
			return SE_REP_FLOAT64;
		case NUMERICOID:
			return SE_REP_DECIMAL;
		case TEXTOID:
		case VARCHAROID:
			return SE_REP_TEXT;
		default:
			return SE_REP_DATUM;
	}
}

void
se_vector_init(SeVector *vector, SeRep rep, int capacity, MemoryContext context)
{
	Size		width = 0;

	switch (rep)
	{
		case SE_REP_INT64:
			width = sizeof(int64);
			break;
		case SE_REP_FLOAT64:
			width = sizeof(double);
			break;
		case SE_REP_DECIMAL:
			width = sizeof(SeDecimal);
			break;
		case SE_REP_TEXT:
			width = sizeof(SeSlice);
			break;
		case SE_REP_DATUM:
			width = sizeof(Datum);
			break;
	}

	vector->rep = rep;
	vector->null = MemoryContextAllocZero(context, capacity);
	vector->v.i64 = MemoryContextAllocZero(context, width * capacity);
}

Datum
se_vector_datum(const SeVector *vector, int row, Oid type)
{
	switch (vector->rep)
	{
		case SE_REP_INT64:
			{
				int64		value = vector->v.i64[row];

				switch (type)
				{
					case BOOLOID:
						return BoolGetDatum(value != 0);
					case INT2OID:
						return Int16GetDatum((int16) value);
					case INT4OID:
						return Int32GetDatum((int32) value);
					case DATEOID:
						return DateADTGetDatum((DateADT) value);
					default:
						return Int64GetDatum(value);
				}
			}
		case SE_REP_FLOAT64:
			if (type == FLOAT4OID)
				return Float4GetDatum((float4) vector->v.f64[row]);
			return Float8GetDatum(vector->v.f64[row]);
		case SE_REP_DECIMAL:
			return NumericGetDatum(se_numeric_from_decimal(vector->v.dec[row]));
		case SE_REP_TEXT:
			return PointerGetDatum(cstring_to_text_with_len(vector->v.text[row].data,
															vector->v.text[row].len));
		case SE_REP_DATUM:
			break;
	}
	return (Datum) vector->v.datum[row];
}

/*
 * The digits of a numeric: "header" points to its words (2-byte units, of any
 * alignment), "len" is their length in bytes.  False if it is no finite value
 * that fits SeDecimal.
 */
static bool
decimal_from_words(const char *header, int len, SeDecimal *result)
{
	uint16		word;
	int			header_size;
	int			ndigits;
	int			weight;
	int			dscale;
	int			shift;
	bool		negative;
	__int128	mantissa = 0;

	memcpy(&word, header, sizeof(word));
	if ((word & NUMERIC_SIGN_MASK) == NUMERIC_SPECIAL)
		return false;
	if (word & NUMERIC_SHORT)
	{
		header_size = sizeof(uint16);
		negative = (word & NUMERIC_SHORT_SIGN_MASK) != 0;
		dscale = (word & NUMERIC_SHORT_DSCALE_MASK) >> NUMERIC_SHORT_DSCALE_SHIFT;
		weight = word & NUMERIC_SHORT_WEIGHT_MASK;
		if (word & NUMERIC_SHORT_WEIGHT_SIGN_MASK)
			weight |= ~NUMERIC_SHORT_WEIGHT_MASK;
	}
	else
	{
		int16		long_weight;

		header_size = 2 * sizeof(uint16);
		negative = (word & NUMERIC_SIGN_MASK) == NUMERIC_NEG;
		dscale = word & NUMERIC_DSCALE_MASK;
		memcpy(&long_weight, header + sizeof(uint16), sizeof(long_weight));
		weight = long_weight;
	}
	ndigits = (len - header_size) / (int) sizeof(int16);
	if (dscale > SE_DECIMAL_MAX_SCALE)
		return false;

	/* 10^18 spans at most six base-10000 digits, whatever their alignment. */
	if (ndigits > 6)
		return false;
	for (int i = 0; i < ndigits; i++)
	{
		int16		digit;

		memcpy(&digit, header + header_size + i * sizeof(int16), sizeof(digit));
		mantissa = mantissa * NBASE + digit;
	}

	if (ndigits > 0)
	{
		/* The last digit has the unit NBASE^(weight - ndigits + 1). */
		shift = dscale + DEC_DIGITS * (weight - ndigits + 1);
		if (shift > SE_DECIMAL_MAX_SCALE)
			return false;
		if (shift >= 0)
		{
			if (mantissa >= DECIMAL_LIMIT)
				return false;
			mantissa *= power_of_ten[shift];
		}
		else
		{
			__int128	unit;

			if (shift < -SE_DECIMAL_MAX_SCALE)
				return false;
			unit = power_of_ten[-shift];
			if (mantissa % unit != 0)
				return false;	/* digits beyond the display scale */
			mantissa /= unit;
		}
		if (mantissa >= DECIMAL_LIMIT)
			return false;
	}

	result->mantissa = negative ? -(int64) mantissa : (int64) mantissa;
	result->scale = dscale;
	return true;
}

void
se_vector_set(SeVector *vector, int row, Oid type, Datum value, bool isnull)
{
	vector->null[row] = isnull;
	if (isnull)
	{
		/* Kernels may load the value before they look at the flag. */
		switch (vector->rep)
		{
			case SE_REP_DECIMAL:
				vector->v.dec[row] = (SeDecimal) {0, 0};
				break;
			case SE_REP_TEXT:
				vector->v.text[row] = (SeSlice) {"", 0};
				break;
			default:
				vector->v.i64[row] = 0;
				break;
		}
		return;
	}

	switch (vector->rep)
	{
		case SE_REP_INT64:
			switch (type)
			{
				case BOOLOID:
					vector->v.i64[row] = DatumGetBool(value);
					break;
				case INT2OID:
					vector->v.i64[row] = DatumGetInt16(value);
					break;
				case INT4OID:
					vector->v.i64[row] = DatumGetInt32(value);
					break;
				case DATEOID:
					vector->v.i64[row] = DatumGetDateADT(value);
					break;
				default:
					vector->v.i64[row] = DatumGetInt64(value);
					break;
			}
			break;
		case SE_REP_FLOAT64:
			vector->v.f64[row] = type == FLOAT4OID ?
				(double) DatumGetFloat4(value) : DatumGetFloat8(value);
			break;
		case SE_REP_DECIMAL:
			{
				/* a value from a tuple has mostly a one-byte length word */
				struct varlena *packed = PG_DETOAST_DATUM_PACKED(value);

				if (!decimal_from_words(VARDATA_ANY(packed), VARSIZE_ANY_EXHDR(packed),
										&vector->v.dec[row]))
				{
					vector->v.dec[row].mantissa =
						(int64) (intptr_t) DatumGetNumeric(PointerGetDatum(packed));
					vector->v.dec[row].scale = SE_DECIMAL_WIDE;
				}
				break;
			}
		case SE_REP_TEXT:
			{
				struct varlena *packed = PG_DETOAST_DATUM_PACKED(value);

				vector->v.text[row].data = VARDATA_ANY(packed);
				vector->v.text[row].len = VARSIZE_ANY_EXHDR(packed);
				break;
			}
		case SE_REP_DATUM:
			vector->v.datum[row] = value;
			break;
	}
}

SeDecimal
se_decimal_from_numeric(Numeric value)
{
	SeDecimal	result;

	if (!decimal_from_words(VARDATA(value), VARSIZE(value) - VARHDRSZ, &result))
	{
		result.mantissa = (int64) (intptr_t) value;
		result.scale = SE_DECIMAL_WIDE;
	}
	return result;
}

/*
 * Build a numeric from base-10000 digits, most significant first, without
 * leading or trailing zero digits.
 */
static Numeric
build_numeric(const int16 *digits, int ndigits, int weight, int dscale, bool negative)
{
	Size		size;
	char	   *result;
	uint16		word;
	int16		long_weight;
	char	   *at;

	if (ndigits == 0)
	{
		weight = 0;
		negative = false;
	}

	if (dscale <= NUMERIC_SHORT_DSCALE_MAX &&
		weight <= NUMERIC_SHORT_WEIGHT_MAX && weight >= NUMERIC_SHORT_WEIGHT_MIN)
	{
		size = VARHDRSZ + sizeof(uint16) + ndigits * sizeof(int16);
		result = palloc(size);
		word = NUMERIC_SHORT | (negative ? NUMERIC_SHORT_SIGN_MASK : 0) |
			(dscale << NUMERIC_SHORT_DSCALE_SHIFT) |
			(weight < 0 ? NUMERIC_SHORT_WEIGHT_SIGN_MASK : 0) |
			(weight & NUMERIC_SHORT_WEIGHT_MASK);
		memcpy(result + VARHDRSZ, &word, sizeof(word));
		at = result + VARHDRSZ + sizeof(uint16);
	}
	else
	{
		size = VARHDRSZ + 2 * sizeof(uint16) + ndigits * sizeof(int16);
		result = palloc(size);
		word = (negative ? NUMERIC_NEG : 0) | (dscale & NUMERIC_DSCALE_MASK);
		long_weight = weight;
		memcpy(result + VARHDRSZ, &word, sizeof(word));
		memcpy(result + VARHDRSZ + sizeof(uint16), &long_weight, sizeof(long_weight));
		at = result + VARHDRSZ + 2 * sizeof(uint16);
	}
	SET_VARSIZE(result, size);
	if (ndigits > 0)
		memcpy(at, digits, ndigits * sizeof(int16));
	return (Numeric) result;
}

Numeric
se_numeric_from_int128(__int128 value, int scale)
{
	int16		digits[INT128_DIGITS];
	int			first = INT128_DIGITS;
	int			last = INT128_DIGITS;
	int			weight;
	int			partial = scale % DEC_DIGITS;
	bool		negative = value < 0;
	unsigned __int128 rest = negative ? -(unsigned __int128) value : (unsigned __int128) value;
	uint64		low;

	Assert(scale >= 0 && scale <= 1000);

	/* The last digit before the end of the fraction may be used in part only. */
	if (partial != 0)
	{
		int64		unit = power_of_ten[partial];

		digits[--first] = (int16) ((uint64) (rest % unit) * power_of_ten[DEC_DIGITS - partial]);
		rest /= unit;
	}
	while (rest > PG_UINT64_MAX)
	{
		digits[--first] = (int16) (rest % NBASE);
		rest /= NBASE;
	}
	for (low = (uint64) rest; low != 0; low /= NBASE)
		digits[--first] = (int16) (low % NBASE);

	/* Weight of digits[first]: the units digit has weight 0. */
	weight = INT128_DIGITS - first - 1 - (scale + DEC_DIGITS - 1) / DEC_DIGITS;
	while (last > first && digits[last - 1] == 0)
		last--;
	while (first < last && digits[first] == 0)
	{
		first++;
		weight--;
	}
	return build_numeric(digits + first, last - first, weight, scale, negative);
}

/*
 * 10^18 with any scale has at most 5 digits before the point and 5 behind it, so
 * the short header always does.
 */
int
se_decimal_store(SeDecimal value, char *to)
{
	int16		digits[SE_DECIMAL_STORE_MAX / sizeof(int16)];
	int			first = lengthof(digits);
	int			last = lengthof(digits);
	int			weight;
	int			partial = value.scale % DEC_DIGITS;
	uint64		rest = value.mantissa < 0 ? -(uint64) value.mantissa : (uint64) value.mantissa;
	uint16		word = NUMERIC_SHORT | (value.scale << NUMERIC_SHORT_DSCALE_SHIFT);

	Assert(value.scale >= 0 && value.scale <= SE_DECIMAL_MAX_SCALE);
	if (partial != 0)
	{
		uint64		unit = power_of_ten[partial];

		digits[--first] = (int16) (rest % unit * power_of_ten[DEC_DIGITS - partial]);
		rest /= unit;
	}
	for (; rest != 0; rest /= NBASE)
		digits[--first] = (int16) (rest % NBASE);

	weight = (int) lengthof(digits) - first - 1 - (value.scale + DEC_DIGITS - 1) / DEC_DIGITS;
	while (last > first && digits[last - 1] == 0)
		last--;
	while (first < last && digits[first] == 0)
	{
		first++;
		weight--;
	}
	if (first < last)
		word |= (value.mantissa < 0 ? NUMERIC_SHORT_SIGN_MASK : 0) |
			(weight < 0 ? NUMERIC_SHORT_WEIGHT_SIGN_MASK : 0) |
			(weight & NUMERIC_SHORT_WEIGHT_MASK);
	memcpy(to, &word, sizeof(word));
	memcpy(to + sizeof(word), digits + first, (last - first) * sizeof(int16));
	return (int) (sizeof(word) + (last - first) * sizeof(int16));
}

Numeric
se_numeric_from_decimal(SeDecimal value)
{
	char	   *result;

	if (value.scale == SE_DECIMAL_WIDE)
		return (Numeric) (intptr_t) value.mantissa;
	result = palloc(VARHDRSZ + SE_DECIMAL_STORE_MAX);
	SET_VARSIZE(result, VARHDRSZ + se_decimal_store(value, result + VARHDRSZ));
	return (Numeric) result;
}
