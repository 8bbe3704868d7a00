/*
 * json_scalar.h
 *	  Digits and ISO 8601 times to the values of column vectors.
 *
 * NOTES
 *	  Free of PostgreSQL's headers.  Each function decides the common spellings
 *	  and says SE_SCALAR_OTHER to the rest, which the type's input function
 *	  decides; what is decided here agrees with it.  Numbers are read from
 *	  their digits, never through a double (except into one).
 *
 *	  Inputs are slices that need no terminator.
 */
#ifndef SE_JSON_SCALAR_H
#define SE_JSON_SCALAR_H

#include "columns.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum SeScalarStatus
{
	SE_SCALAR_OK,
	SE_SCALAR_RANGE,			/* a number, too large (or too small) */
	SE_SCALAR_FRACTION,			/* a number, but no integer */
	SE_SCALAR_OTHER				/* not decided here */
} SeScalarStatus;

/*
 * An integer in any spelling of JSON: 12, 1e3, 15.0.  OTHER if "s" is no JSON
 * number (whose grammar is assumed, not checked, behind the first digits).
 */
extern SeScalarStatus se_scalar_int64(const char *s, int len, int64_t *result);

/* A JSON number, correctly rounded.  RANGE: overflow, or underflow to zero. */
extern SeScalarStatus se_scalar_float64(const char *s, int len, double *result);
extern SeScalarStatus se_scalar_float32(const char *s, int len, float *result);

/* A JSON number that fits; the display scale is that of numeric_in. */
extern SeScalarStatus se_scalar_decimal(const char *s, int len, SeDecimal *result);

/*
 * Apply numeric(precision, scale), 0 <= scale <= precision <= 18: rounds half
 * away from zero.  False: the value does not fit.
 */
extern bool se_decimal_apply_typmod(SeDecimal *value, int precision, int scale);

/*
 * YYYY-MM-DD[T| ]HH:MM[:SS[.fraction]][Z|+HH[:MM]|-HH[:MM]] or YYYY-MM-DD, as
 * microseconds since 2000-01-01.  Without a zone it is UTC; with_zone = false
 * ignores the zone, as the type timestamp does.
 */
extern SeScalarStatus se_scalar_timestamp(const char *s, int len, bool with_zone,
										  int64_t *result);

/* YYYY-MM-DD, as days since 2000-01-01. */
extern SeScalarStatus se_scalar_date(const char *s, int len, int64_t *result);

/*
 * A JSON number of units since 1970 (unit_digits: 0 seconds, 3 milliseconds, 6
 * microseconds) as microseconds since 2000-01-01; finer digits round half away
 * from zero.  RANGE: not a timestamp of the server.
 */
extern SeScalarStatus se_scalar_epoch(const char *s, int len, int unit_digits, int64_t *result);

#ifdef __cplusplus
}
#endif

#endif							/* SE_JSON_SCALAR_H */
