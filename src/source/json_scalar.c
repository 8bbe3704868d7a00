/*
 * json_scalar.c
 *	  Digits and ISO 8601 times to the values of column vectors.
 *
 * NOTES
 *	  See json_scalar.h.  Free of PostgreSQL's headers and of longjmp.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json_scalar.h"

#define USECS_PER_SECOND	INT64_C(1000000)
#define USECS_PER_DAY		(INT64_C(86400) * USECS_PER_SECOND)

/* Days from 1970-01-01 and from 0000-03-01 to 2000-01-01. */
#define EPOCH_DAYS			10957
#define MARCH_ZERO_DAYS		730425

/* What timestamps of the server hold: 4714-11-24 BC to 294276-12-31. */
#define MIN_TIMESTAMP		INT64_C(-211813488000000000)
#define END_TIMESTAMP		INT64_C(9223371331200000000)

/* Exponents beyond this are out of every range. */
#define EXPONENT_LIMIT		100000

static const uint64_t power_of_ten[19] = {
	UINT64_C(1), UINT64_C(10), UINT64_C(100), UINT64_C(1000), UINT64_C(10000),
	UINT64_C(100000), UINT64_C(1000000), UINT64_C(10000000), UINT64_C(100000000),
	UINT64_C(1000000000), UINT64_C(10000000000), UINT64_C(100000000000),
	UINT64_C(1000000000000), UINT64_C(10000000000000), UINT64_C(100000000000000),
	UINT64_C(1000000000000000), UINT64_C(10000000000000000),
	UINT64_C(100000000000000000), UINT64_C(1000000000000000000)
};

/* The powers of ten that are exact in a double. */
static const double exact_power[23] = {
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13,
	1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22
};

/*
 * A number taken apart: digits * 10^exponent.  "digits" holds the significant
 * digits up to 19; if there are more, "more" is set and "digits" is useless.
 */
typedef struct Number
{
	uint64_t	digits;
	int			exponent;		/* written exponent less fraction digits */
	int			fraction;		/* digits behind the point, as written */
	int			written;		/* the exponent as it was written */
	bool		negative;
	bool		more;
	bool		zero;			/* no digit but 0 */
} Number;

static inline bool
is_digit(char c)
{
	return (unsigned char) (c - '0') < 10;
}

/* Four or eight bytes, the first in the lowest place. */
static inline uint64_t
load_bytes(const char *s, int len)
{
	uint64_t	eight;
	uint32_t	four;

	if (len == 8)
	{
		memcpy(&eight, s, sizeof(eight));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
		eight = __builtin_bswap64(eight);
#endif
		return eight;
	}
	memcpy(&four, s, sizeof(four));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	four = __builtin_bswap32(four);
#endif
	return four;
}

/*
 * 1 to 8 bytes as the last of a word, the first in the lowest place, with '0'
 * in front of them.  No others are read.
 */
static inline uint64_t
last_bytes(const char *s, int len)
{
	uint64_t	word;

	if (len == 8)
		return load_bytes(s, 8);
	if (len >= 4)
		word = (uint32_t) (load_bytes(s, 4) << (8 - len) * 8) |
			load_bytes(s + len - 4, 4) << 32;
	else
		word = (uint64_t) (uint8_t) s[0] << (8 - len) * 8 |
			(uint64_t) (uint8_t) s[len >> 1] << (8 - len + (len >> 1)) * 8 |
			(uint64_t) (uint8_t) s[len - 1] << 56;
	return word | UINT64_C(0x3030303030303030) >> len * 8;
}

/* Do all bytes hold values from 0 to 9? */
static inline bool
are_digits(uint64_t bytes)
{
	return ((bytes | (bytes + UINT64_C(0x0606060606060606))) &
			UINT64_C(0xF0F0F0F0F0F0F0F0)) == 0;
}

/* The value of 8 digits as last_bytes() gives them; false if one is no digit. */
static inline bool
eight_digits(uint64_t word, uint64_t *value)
{
	uint64_t	digits = word ^ UINT64_C(0x3030303030303030);

	if (!are_digits(digits))
		return false;

	/* pairs, then fours, then all, each in one multiplication */
	digits = (digits * 10 + (digits >> 8)) & UINT64_C(0x00FF00FF00FF00FF);
	digits = (digits * 100 + (digits >> 16)) & UINT64_C(0x0000FFFF0000FFFF);
	*value = (uint32_t) (digits * 10000 + (digits >> 32));
	return true;
}

/* The value of 1 to 16 bytes, false if one is no digit. */
static inline bool
plain_digits(const char *s, int len, uint64_t *value)
{
	uint64_t	head = 0;

	if (len > 8)
	{
		if (!eight_digits(last_bytes(s, len - 8), &head))
			return false;
		s += len - 8;
		len = 8;
	}
	if (!eight_digits(last_bytes(s, len), value))
		return false;
	*value += head * 100000000;
	return true;
}

/* False if "s" does not look like a number. */
static inline bool
take_apart(const char *s, int len, Number *number)
{
	const char *end = s + len;
	const char *start;
	const char *first = NULL;	/* first significant digit */
	int			significant;
	int			point = 0;

	number->digits = 0;
	number->fraction = 0;
	number->written = 0;
	number->negative = s < end && *s == '-';
	if (number->negative)
		s++;
	start = s;
	for (; s < end && is_digit(*s); s++)
	{
		number->digits = number->digits * 10 + (*s - '0');
		if (first == NULL && *s != '0')
			first = s;
	}
	if (s == start)
		return false;
	if (s < end && *s == '.')
	{
		const char *fraction = ++s;

		point = 1;
		for (; s < end && is_digit(*s); s++)
		{
			number->digits = number->digits * 10 + (*s - '0');
			if (first == NULL && *s != '0')
				first = s;
		}
		number->fraction = (int) (s - fraction);
		if (first != NULL && first >= fraction)
			point = 0;
	}
	significant = first == NULL ? 0 : (int) (s - first) - point;
	number->zero = first == NULL;
	number->more = significant > 19;
	if (s < end && (*s == 'e' || *s == 'E'))
	{
		bool		negative;
		int			written = 0;

		s++;
		negative = s < end && *s == '-';
		if (s < end && (*s == '-' || *s == '+'))
			s++;
		if (s == end)
			return false;
		for (; s < end && is_digit(*s); s++)
		{
			if (written < EXPONENT_LIMIT)
				written = written * 10 + (*s - '0');
		}
		number->written = negative ? -written : written;
	}
	number->exponent = number->written - number->fraction;
	return s == end;
}

SeScalarStatus
se_scalar_int64(const char *s, int len, int64_t *result)
{
	Number		number;
	uint64_t	limit;
	uint64_t	value;
	const char *digit;
	const char *end = s + len;
	int			exponent;

	/* up to 16 digits and nothing else */
	if (len > 0 && len <= 17)
	{
		bool		negative = *s == '-';

		if (len - negative > 0 && len - negative <= 16 &&
			plain_digits(s + negative, len - negative, &value))
		{
			*result = negative ? -(int64_t) value : (int64_t) value;
			return SE_SCALAR_OK;
		}
	}

	if (!take_apart(s, len, &number))
		return SE_SCALAR_OTHER;
	if (number.zero)
	{
		*result = 0;
		return SE_SCALAR_OK;
	}
	limit = number.negative ? UINT64_C(1) << 63 : (UINT64_C(1) << 63) - 1;

	/*
	 * Digit by digit: how many digits lie before the point once the exponent
	 * is applied?  All behind it must be zero.
	 */
	exponent = number.written;
	value = 0;
	digit = s + (*s == '-');
	{
		int			before = 0; /* digits before the written point */
		int			taken = 0;
		bool		overflow = false;

		while (digit + before < end && is_digit(digit[before]))
			before++;
		before += exponent;
		for (; digit < end && (is_digit(*digit) || *digit == '.'); digit++)
		{
			if (*digit == '.')
				continue;
			if (taken >= before)
			{
				if (*digit != '0')
					return SE_SCALAR_FRACTION;
			}
			else if (value > (limit - (*digit - '0')) / 10)
				overflow = true;
			else
				value = value * 10 + (*digit - '0');
			taken++;
		}
		for (; taken < before && !overflow; taken++)
		{
			if (value > limit / 10)
				overflow = true;
			else
				value *= 10;
		}
		if (overflow)
			return SE_SCALAR_RANGE;
	}
	*result = number.negative ? (int64_t) (0 - value) : (int64_t) value;
	return SE_SCALAR_OK;
}

/*
 * Call strtod or strtof on a copy with a terminator.  LC_NUMERIC is C in a
 * server process.
 */
static SeScalarStatus
float_by_library(const char *s, int len, double *as_double, float *as_float)
{
	char		buffer[128];
	char	   *copy = buffer;
	char	   *end;

	if (len >= (int) sizeof(buffer))
	{
		copy = malloc(len + 1);
		if (copy == NULL)
			return SE_SCALAR_OTHER;
	}
	memcpy(copy, s, len);
	copy[len] = '\0';
	if (as_double != NULL)
		*as_double = strtod(copy, &end);
	else
		*as_float = strtof(copy, &end);
	len -= (int) (end - copy);
	if (copy != buffer)
		free(copy);
	return len == 0 ? SE_SCALAR_OK : SE_SCALAR_OTHER;
}

/*
 * Where digits and power of ten are both exact, one operation rounds once
 * (W. Clinger, How to read floating point numbers accurately, 1990).
 */
SeScalarStatus
se_scalar_float64(const char *s, int len, double *result)
{
	Number		number;

	if (!take_apart(s, len, &number))
		return SE_SCALAR_OTHER;
	if (number.zero)
	{
		*result = number.negative ? -0.0 : 0.0;
		return SE_SCALAR_OK;
	}
	if (!number.more && number.digits <= (UINT64_C(1) << 53) &&
		number.exponent >= -22 && number.exponent <= 22)
	{
		double		value = (double) number.digits;

		if (number.exponent < 0)
			value /= exact_power[-number.exponent];
		else
			value *= exact_power[number.exponent];
		*result = number.negative ? -value : value;
		return SE_SCALAR_OK;
	}
	if (float_by_library(s, len, result, NULL) != SE_SCALAR_OK)
		return SE_SCALAR_OTHER;
	return isinf(*result) || *result == 0.0 ? SE_SCALAR_RANGE : SE_SCALAR_OK;
}

SeScalarStatus
se_scalar_float32(const char *s, int len, float *result)
{
	Number		number;

	if (!take_apart(s, len, &number))
		return SE_SCALAR_OTHER;
	if (number.zero)
	{
		*result = number.negative ? -0.0f : 0.0f;
		return SE_SCALAR_OK;
	}
	if (!number.more && number.digits <= (UINT64_C(1) << 24) &&
		number.exponent >= -10 && number.exponent <= 10)
	{
		float		value = (float) number.digits;

		if (number.exponent < 0)
			value /= (float) exact_power[-number.exponent];
		else
			value *= (float) exact_power[number.exponent];
		*result = number.negative ? -value : value;
		return SE_SCALAR_OK;
	}
	if (float_by_library(s, len, NULL, result) != SE_SCALAR_OK)
		return SE_SCALAR_OTHER;
	return isinf(*result) || *result == 0.0f ? SE_SCALAR_RANGE : SE_SCALAR_OK;
}

SeScalarStatus
se_scalar_decimal(const char *s, int len, SeDecimal *result)
{
	Number		number;
	int			scale;

	/* up to 7 digits and a point between them: without it they are plain digits */
	if (len >= 3 && len <= 8 && is_digit(s[0]) && is_digit(s[len - 1]))
	{
		uint64_t	word = last_bytes(s, len);
		uint64_t	other = word ^ UINT64_C(0x2E2E2E2E2E2E2E2E);
		uint64_t	points = (other - UINT64_C(0x0101010101010101)) & ~other &
			UINT64_C(0x8080808080808080);

		if (points != 0)
		{
			int			bit = __builtin_ctzll(points) - 7;
			uint64_t	behind = word >> bit >> 8 << bit << 8;
			uint64_t	front = word & ~(~UINT64_C(0) << bit);
			uint64_t	value;

			if (eight_digits(behind | front << 8 | '0', &value))
			{
				result->mantissa = (int64_t) value;
				result->scale = 7 - bit / 8;
				return SE_SCALAR_OK;
			}
		}
	}

	if (!take_apart(s, len, &number))
		return SE_SCALAR_OTHER;
	scale = number.exponent < 0 ? -number.exponent : 0;
	if (number.more || scale > SE_DECIMAL_MAX_SCALE ||
		number.digits >= power_of_ten[SE_DECIMAL_MAX_SCALE])
		return SE_SCALAR_OTHER;
	if (number.exponent > 0 && !number.zero)
	{
		if (number.exponent > SE_DECIMAL_MAX_SCALE ||
			number.digits >= power_of_ten[SE_DECIMAL_MAX_SCALE - number.exponent])
			return SE_SCALAR_OTHER;
		number.digits *= power_of_ten[number.exponent];
	}
	result->mantissa = number.negative ? -(int64_t) number.digits : (int64_t) number.digits;
	result->scale = scale;
	return SE_SCALAR_OK;
}

bool
se_decimal_apply_typmod(SeDecimal *value, int precision, int scale)
{
	uint64_t	limit = power_of_ten[precision];
	bool		negative = value->mantissa < 0;
	uint64_t	digits = negative ? -(uint64_t) value->mantissa : (uint64_t) value->mantissa;

	if (value->scale > scale)
	{
		uint64_t	unit = power_of_ten[value->scale - scale];

		digits = digits / unit + (digits % unit >= unit - digits % unit);
	}
	else if (value->scale < scale)
	{
		if (__builtin_mul_overflow(digits, power_of_ten[scale - value->scale], &digits))
			return false;
	}
	if (digits >= limit)
		return false;
	value->mantissa = negative ? -(int64_t) digits : (int64_t) digits;
	value->scale = scale;
	return true;
}

/* Two digits, -1 if they are none. */
static inline int
two_digits(const char *s)
{
	unsigned	tens = (unsigned char) (s[0] - '0');
	unsigned	ones = (unsigned char) (s[1] - '0');

	return tens < 10 && ones < 10 ? (int) (tens * 10 + ones) : -1;
}

/* HH:MM:SS, of which 8 bytes can be read.  False: not of that form. */
static inline bool
iso_time(const char *s, int *hour, int *minute, int *second)
{
	uint64_t	digits = load_bytes(s, 8) ^ UINT64_C(0x30303A30303A3030);
	uint64_t	pairs = digits * 10 + (digits >> 8);

	*hour = pairs & 0xFF;
	*minute = pairs >> 24 & 0xFF;
	*second = pairs >> 48 & 0xFF;
	return are_digits(digits) && (digits & UINT64_C(0x0000FF0000FF0000)) == 0;
}

/* Days from 2000-01-01 to YYYY-MM-DD, of which 10 bytes can be read. */
static inline bool
iso_date(const char *s, int64_t *days)
{
	static const int8_t month_days[13] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int			century = two_digits(s);
	int			year = two_digits(s + 2);
	int			month = two_digits(s + 5);
	int			day = two_digits(s + 8);
	int			years;
	int			months;

	if ((century | year | month | day) < 0 || s[4] != '-' || s[7] != '-')
		return false;
	year += century * 100;
	if (year < 1 || month < 1 || month > 12 || day < 1)
		return false;
	if (day > month_days[month] &&
		!(month == 2 && day == 29 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)))
		return false;

	/* years start in March, so that the leap day comes last */
	years = year - (month <= 2);
	months = month + (month <= 2 ? 9 : -3);
	*days = (int64_t) years * 365 + years / 4 - years / 100 + years / 400 +
		(153 * months + 2) / 5 + day - 1 - MARCH_ZERO_DAYS;
	return true;
}

/* The same: neighbouring records mostly are of the same day. */
static inline bool
iso_date_again(const char *s, int64_t *days)
{
	static char last[11] = "2000-01-01";
	static int64_t last_days = 0;

	if (memcmp(s, last, 10) != 0)
	{
		if (!iso_date(s, days))
			return false;
		memcpy(last, s, 10);
		last_days = *days;
	}
	*days = last_days;
	return true;
}

SeScalarStatus
se_scalar_date(const char *s, int len, int64_t *result)
{
	return len == 10 && iso_date(s, result) ? SE_SCALAR_OK : SE_SCALAR_OTHER;
}

SeScalarStatus
se_scalar_timestamp(const char *s, int len, bool with_zone, int64_t *result)
{
	const char *start = s;
	const char *end = s + len;
	int64_t		days;
	int64_t		fraction = 0;
	int64_t		zone = 0;
	int			hour;
	int			minute;
	int			second = 0;

	if (len < 10 || !iso_date_again(s, &days))
		return SE_SCALAR_OTHER;
	if (len == 10)
	{
		*result = days * USECS_PER_DAY;
		return SE_SCALAR_OK;
	}
	if (len < 16 || (s[10] != 'T' && s[10] != ' ') || s[13] != ':')
		return SE_SCALAR_OTHER;
	if (len >= 19 && iso_time(s + 11, &hour, &minute, &second))
		s += 19;
	else
	{
		hour = two_digits(s + 11);
		minute = two_digits(s + 14);
		second = 0;				/* iso_time() has taken a zone's digits for it */
		s += 16;
		if (end - s >= 3 && s[0] == ':')
		{
			second = two_digits(s + 1);
			s += 3;
		}
	}
	/* a fraction needs seconds in front of it */
	if (s == start + 19 && end - s >= 2 && s[0] == '.' && is_digit(s[1]))
	{
		const char *first = ++s;

		while (s < end && is_digit(*s) && s - first < 15)
			fraction = fraction * 10 + (*s++ - '0');
		if (s - first <= 6)
			fraction *= power_of_ten[6 - (s - first)];
		else
			/* as the server rounds: through the double of the fraction */
			fraction = (int64_t) rint((double) fraction / exact_power[s - first] * 1e6);
	}
	/* 24:00 and second 60 have rules of their own */
	if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
		return SE_SCALAR_OTHER;

	if (s < end)
	{
		if (*s == 'Z' && end - s == 1)
			zone = 0;
		else if ((*s == '+' || *s == '-') && (end - s == 3 || end - s == 5 || end - s == 6))
		{
			int			zone_hour = two_digits(s + 1);
			int			zone_minute = 0;

			if (end - s == 6 && s[3] == ':')
				zone_minute = two_digits(s + 4);
			else if (end - s == 5)
				zone_minute = two_digits(s + 3);
			else if (end - s == 6)
				return SE_SCALAR_OTHER;
			if (zone_hour < 0 || zone_hour > 15 || zone_minute < 0 || zone_minute > 59)
				return SE_SCALAR_OTHER;
			zone = (zone_hour * 60 + zone_minute) * 60 * USECS_PER_SECOND;
			if (*s == '-')
				zone = -zone;
		}
		else
			return SE_SCALAR_OTHER;
	}

	*result = days * USECS_PER_DAY +
		((hour * 60 + minute) * 60 + second) * USECS_PER_SECOND + fraction;
	if (with_zone)
		*result -= zone;
	return SE_SCALAR_OK;
}

/*
 * Reduce a number of more than 19 significant digits to the leading 19.  What
 * is cut off does not change how a value below 10^18 rounds, half away from
 * zero, to an integer: a digit behind the point is always kept.
 */
static void
keep_leading_digits(const char *s, Number *number)
{
	int			kept = 0;
	int			dropped = 0;

	number->digits = 0;
	for (; is_digit(*s) || *s == '.' || *s == '-'; s++)
	{
		if (!is_digit(*s) || (*s == '0' && kept == 0))
			continue;
		if (kept < 19)
		{
			number->digits = number->digits * 10 + (*s - '0');
			kept++;
		}
		else
			dropped++;
	}
	number->exponent += dropped;
}

SeScalarStatus
se_scalar_epoch(const char *s, int len, int unit_digits, int64_t *result)
{
	Number		number;
	__int128	value;
	int			shift;

	if (!take_apart(s, len, &number))
		return SE_SCALAR_OTHER;
	if (number.zero)
		value = 0;
	else
	{
		if (number.more)
			keep_leading_digits(s, &number);
		shift = number.exponent + 6 - unit_digits;
		if (shift > SE_DECIMAL_MAX_SCALE)
			return SE_SCALAR_RANGE;
		if (shift >= 0)
			value = (__int128) number.digits * power_of_ten[shift];
		else if (shift < -SE_DECIMAL_MAX_SCALE)
			value = shift == -SE_DECIMAL_MAX_SCALE - 1 &&
				number.digits / 10 >= power_of_ten[SE_DECIMAL_MAX_SCALE] / 2;
		else
			value = ((__int128) number.digits + power_of_ten[-shift] / 2) / power_of_ten[-shift];
		if (number.negative)
			value = -value;
	}
	value -= EPOCH_DAYS * USECS_PER_DAY;
	if (value < MIN_TIMESTAMP || value >= END_TIMESTAMP)
		return SE_SCALAR_RANGE;
	*result = (int64_t) value;
	return SE_SCALAR_OK;
}
