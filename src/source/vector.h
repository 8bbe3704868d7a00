/*
 * vector.h
 *	  Values of a column vector to and from Datums.
 *
 * NOTES
 *	  vector.c is linked into both libraries: the decoders fill vectors, the
 *	  engine reads them and fills its own with the results of expressions.
 */
#ifndef SE_VECTOR_H
#define SE_VECTOR_H

#include "postgres.h"

#include "utils/numeric.h"

#include "columns.h"

/* The representation that values of a type have in vectors. */
extern SeRep se_rep_of_type(Oid type);

/* Allocate arrays of "capacity" rows for "rep" in "context". */
extern void se_vector_init(SeVector *vector, SeRep rep, int capacity, MemoryContext context);

/*
 * The Datum of a non-NULL row; "type" is the vector's SQL type.  By-reference
 * results are palloc'd in CurrentMemoryContext, except for SE_REP_DATUM, which
 * returns the vector's own.
 */
extern Datum se_vector_datum(const SeVector *vector, int row, Oid type);

/*
 * Store a Datum of type "type".  By-reference values are not copied for
 * SE_REP_TEXT and SE_REP_DATUM: the caller keeps them (detoasted by us into
 * CurrentMemoryContext if need be) as long as the vector is read.
 */
extern void se_vector_set(SeVector *vector, int row, Oid type, Datum value, bool isnull);

/* numeric <-> SeDecimal.  A wide decimal points to the Numeric itself. */
extern SeDecimal se_decimal_from_numeric(Numeric value);
extern Numeric se_numeric_from_decimal(SeDecimal value);

/*
 * Write a decimal that is not wide as numeric's storage format has it, without
 * the length word; "to" needs no alignment.  Returns the length, at most
 * SE_DECIMAL_STORE_MAX.
 */
#define SE_DECIMAL_STORE_MAX 24
extern int	se_decimal_store(SeDecimal value, char *to);

/* value * 10^-scale as Numeric with display scale "scale" (0 <= scale <= 1000). */
extern Numeric se_numeric_from_int128(__int128 value, int scale);

#endif							/* SE_VECTOR_H */
