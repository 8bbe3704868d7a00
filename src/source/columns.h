/*
 * columns.h
 *	  A batch of decoded records as columns.
 *
 * NOTES
 *	  This header is free of PostgreSQL's headers, so that the decoders' cores
 *	  can be built and fuzzed without a server.
 *
 *	  A batch holds up to SE_BATCH_MAX records.  Each declared column of the
 *	  stream is one SeVector; a vector keeps its values in the representation in
 *	  which the aggregate kernels use them, not as Datums: integers, dates,
 *	  timestamps and booleans as int64, floats as double, numeric as a scaled
 *	  int64, text as a slice of the message.  Only types that have no such
 *	  representation become Datums while decoding.
 *
 *	  Lifetime: everything that a vector points to lives until the batch is
 *	  reset, which the reader does before it decodes the next one.
 */
#ifndef SE_COLUMNS_H
#define SE_COLUMNS_H

#include <stdint.h>
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Largest number of records in one batch. */
#define SE_BATCH_MAX 1024

/* How the values of a column are held. */
typedef enum SeRep
{
	SE_REP_INT64,				/* bool, int2/4/8, date (days), timestamp(tz)
								 * (microseconds since 2000-01-01) */
	SE_REP_FLOAT64,				/* float4 (already rounded to float), float8 */
	SE_REP_DECIMAL,				/* numeric */
	SE_REP_TEXT,				/* text, varchar: bytes in the server encoding */
	SE_REP_DATUM				/* anything else: a Datum of the column's type */
} SeRep;

/*
 * A numeric: mantissa * 10^-scale with 0 <= scale <= 18 and |mantissa| <
 * 10^18; or, with scale == SE_DECIMAL_WIDE, a numeric that does not fit: then
 * "mantissa" holds the pointer to a palloc'd Numeric (NaN, infinities, many
 * digits).  scale is the display scale: 1.50 is {150, 2}.
 */
#define SE_DECIMAL_WIDE (-1)
#define SE_DECIMAL_MAX_SCALE 18
typedef struct SeDecimal
{
	int64_t		mantissa;
	int32_t		scale;
} SeDecimal;

/* Bytes, not NUL terminated; owned by the batch or by the message. */
typedef struct SeSlice
{
	const char *data;
	int32_t		len;
} SeSlice;

typedef struct SeVector
{
	SeRep		rep;
	uint8_t    *null;			/* [row] 1 = NULL */
	union
	{
		int64_t    *i64;
		double	   *f64;
		SeDecimal  *dec;
		SeSlice    *text;
		uintptr_t  *datum;
	}			v;
} SeVector;

/* One record as a source delivers it.  Bytes belong to the source's batch. */
typedef struct SeRecord
{
	const char *payload;		/* NULL = tombstone */
	const char *key;			/* NULL = no key */
	int32_t		payload_len;
	int32_t		key_len;
	int32_t		partition;
	int32_t		flags;			/* SE_RECORD_... */
	int64_t		offset;
	int64_t		timestamp;		/* microseconds since 2000-01-01, or
								 * SE_NO_TIMESTAMP */
	void	   *handle;			/* the source's own, for headers */
} SeRecord;

#define SE_NO_TIMESTAMP INT64_MIN

/*
 * SeRecord.flags: the payload is followed by a newline, and the record before or
 * behind it by this one or at least 64 readable bytes.
 */
#define SE_RECORD_PACKED 0x02

/* What became of a record while it was decoded. */
typedef enum SeVerdict
{
	SE_RECORD_OK = 0,
	SE_RECORD_BAD,				/* see the batch's error for the row */
	SE_RECORD_TOMBSTONE,		/* NULL payload */
	SE_RECORD_FUTURE			/* event time beyond max_future */
} SeVerdict;

#ifdef __cplusplus
}
#endif

#endif							/* SE_COLUMNS_H */
