/*
 * codec.h
 *	  The byte format of groups, shared by its writer and its reader.
 *
 * NOTES
 *	  A chunk is
 *
 *		format (1 byte) | CRC-32C of what follows (4) | number of entries (4)
 *		| entries, in the order of their keys' hashes
 *
 *	  and an entry is
 *
 *		one 4-bit code for each lane, two in a byte, low half first
 *		| the lanes' bytes
 *
 *	  Lane 0 is the kind of the entry; then come the keys, then the states, in
 *	  the layout's order.  Most lanes are 64-bit integers: the code is the number
 *	  of bytes that follow, 0 to 8, or one of CODE_...  Signed values are
 *	  zigzagged; floats are written with their bytes reversed, because those of
 *	  everyday values end in zeros; counts are written less one.  A state whose
 *	  value is that of an earlier state over the same input (its base) takes no
 *	  bytes, so the sum, min and max of a group of one row are written once.  All
 *	  integers are little-endian.
 *
 *	  Lengths in front and bytes behind let both sides work with whole words
 *	  instead of a loop over each byte.  The hash is not stored: computing it
 *	  again is cheaper than reading it from a log.
 *
 *	  The CRC is there because the bytes of by-reference keys and states are
 *	  handed to functions of their types, which trust them.  Below it, decoding
 *	  trusts no length and no order.
 */
#ifndef SE_STATE_CODEC_H
#define SE_STATE_CODEC_H

#include "port/pg_bswap.h"

#include "source/vector.h"
#include "state/state_internal.h"

#define CHUNK_FORMAT 1
#define CHUNK_HEADER 9
#define CRC_OFFSET 1
#define COUNT_OFFSET 5

#define ENTRY_PARTIAL 0

#define CODE_WORDS 9			/* 16 bytes: an int128 */
#define CODE_WIDE 13			/* a numeric's bytes, behind their length */
#define CODE_BASE 14			/* as the base's value */
#define CODE_NULL 15			/* no value; a count of 0 */

/* Codes of a lane that holds a decimal's scale: the scale, or a byte follows. */
#define SCALE_BYTE 15

/* Bytes of one lane at most, without those of by-reference values. */
#define LANE_MAX 16

static inline uint64
little_endian64(uint64 value)
{
#ifdef WORDS_BIGENDIAN
	return pg_bswap64(value);
#else
	return value;
#endif
}

static inline uint32
little_endian32(uint32 value)
{
#ifdef WORDS_BIGENDIAN
	return pg_bswap32(value);
#else
	return value;
#endif
}

static inline uint64
zigzag(int64 value)
{
	return ((uint64) value << 1) ^ (uint64) (value >> 63);
}

static inline int64
unzigzag(uint64 value)
{
	return (int64) (value >> 1) ^ -(int64) (value & 1);
}

static inline uint64
float_bits(double value)
{
	uint64		bits;

	memcpy(&bits, &value, sizeof(bits));
	return pg_bswap64(bits);
}

static inline double
float_of_bits(uint64 bits)
{
	double		value;

	bits = pg_bswap64(bits);
	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* The base's value as an int64, if it is one. */
static inline bool
base_int64(const SeStateDef *base, const SeGroup *group, int64 *value)
{
	if (!state_has(base, group))
		return false;
	if (base->kind == STATE_SUM_INT128)
	{
		__int128	sum = *(int128_unaligned *) state_of(base, group);

		*value = (int64) sum;
		return *value == sum;
	}
	*value = *(int64 *) state_of(base, group);
	return true;
}

/* The base's value as a narrow decimal, if it is one. */
static inline bool
base_decimal(const SeStateDef *base, const SeGroup *group, SeDecimal *value)
{
	if (!state_has(base, group))
		return false;
	if (base->kind == STATE_SUM_DECIMAL)
	{
		const SeDecimalSum *sum = state_of(base, group);

		value->mantissa = (int64) sum->sum;
		value->scale = (int32) sum->scale;
		return sum->wide == NULL && value->mantissa == sum->sum;
	}
	*value = *(SeDecimal *) state_of(base, group);
	return value->scale != SE_DECIMAL_WIDE;
}

/* An integer min or max is written as the difference from another one. */
static inline bool
is_difference(const SeStateDef *state, const SeStateDef *base)
{
	return (state->kind == STATE_MIN_INT || state->kind == STATE_MAX_INT) &&
		(base->kind == STATE_MIN_INT || base->kind == STATE_MAX_INT);
}

#endif							/* SE_STATE_CODEC_H */
