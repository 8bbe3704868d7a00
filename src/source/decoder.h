/*
 * decoder.h
 *	  Records to columns: the interface of the decoders.
 *
 * NOTES
 *	  A decoder is made from a stream's foreign table: its columns, their
 *	  options (path, epoch), defaults, NOT NULL and CHECK constraints, and the
 *	  table's format.  Every declared column is judged on every record, so that
 *	  readers and scans agree about what a bad record is; only the needed ones
 *	  become values.
 *
 *	  Defaults and CHECKs run user code: the caller has switched to the stream's
 *	  owner in a security-restricted context, and is inside a transaction with
 *	  an active snapshot.
 */
#ifndef SE_DECODER_H
#define SE_DECODER_H

#include "postgres.h"

#include "nodes/bitmapset.h"
#include "utils/rel.h"

#include "columns.h"

typedef struct SeDecoder SeDecoder;

/* Why a record is bad.  Strings live in the batch's context. */
typedef struct SeRowError
{
	int			row;
	int			sqlstate;
	char	   *message;		/* as the server would word it */
	char	   *column;			/* NULL if no single column is to blame */
} SeRowError;

typedef struct SeBatch
{
	int			nrecords;
	const SeRecord *records;
	uint8		verdict[SE_BATCH_MAX];	/* SeVerdict: OK, BAD or TOMBSTONE */
	int			nerrors;
	SeRowError *errors;			/* by ascending row, one for each BAD row */
	int			ncolumns;		/* = natts of the foreign table */
	SeVector   *columns;		/* [attnum - 1]; valid for needed columns only,
								 * and for rows with verdict OK */
	MemoryContext context;		/* reset at the next run */
} SeBatch;

/*
 * Make a decoder for "stream" in "context".  "event_time" is the attribute that
 * must be neither NULL nor infinite in a good record (0: none; metadata columns
 * allowed).  "needed" has the attribute numbers (not shifted) whose values the
 * caller reads; event_time is added to it.  Raises errors for bad options.
 */
extern SeDecoder *se_decoder_create(Relation stream, AttrNumber event_time,
									const Bitmapset *needed, MemoryContext context);

/* Decode up to SE_BATCH_MAX records; resets the batch of the run before. */
extern void se_decoder_run(SeDecoder *decoder, const SeRecord *records, int nrecords);

extern SeBatch *se_decoder_batch(SeDecoder *decoder);

/*
 * Metadata columns of a stream by name: _partition int4, _offset int8,
 * _timestamp timestamptz, _key bytea or text, _headers jsonb, _topic text,
 * _processing_time timestamptz (when the record is decoded).
 */
typedef enum SeMetadata
{
	SE_META_NONE,
	SE_META_PARTITION,
	SE_META_OFFSET,
	SE_META_TIMESTAMP,
	SE_META_KEY,
	SE_META_HEADERS,
	SE_META_TOPIC,
	SE_META_PROCESSING_TIME
} SeMetadata;

extern SeMetadata se_metadata_of_column(const char *name);

/*
 * Headers of a record as a jsonb Datum (object of name -> text or null; later
 * headers of the same name win); set by the source at load, NULL when the
 * source has no headers.
 */
extern Datum (*se_record_headers) (const SeRecord *record);

#endif							/* SE_DECODER_H */
