/*
 * staging.h
 *	  The rows that were consumed lately, in unlogged tables.
 */
#ifndef SE_STAGING_H
#define SE_STAGING_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "source/decoder.h"

#define SE_STAGING_CHILDREN 4

/* Name of a staging table inside schema stream_engine, palloc'd. */
extern char *se_staging_table_name(int32 stream, int child);

typedef struct SeStaging SeStaging;

/*
 * Open the staging of a stream in "context": "retention" in microseconds,
 * "max_size" in bytes for all children together.  No lock is held between calls.
 * NULL, with a line in the log, when ALTER FOREIGN TABLE has changed the stream's
 * columns: its queries go on all the same.
 */
extern SeStaging *se_staging_open(int32 stream, TupleDesc stream_desc, int64 retention,
								  int64 max_size, MemoryContext context);

/*
 * Insert rows[0..nrows-1] of a decoded batch into the current child, inside the
 * caller's transaction.  Nothing vouches for these rows: an offset may be
 * committed while they are lost in a crash.
 */
extern void se_staging_insert(SeStaging *staging, const SeBatch *batch, const int *rows, int nrows);

/*
 * Between transactions: start the next child when the current one is a third
 * of the retention old or of the size, by TRUNCATE under a conditional lock; a
 * reader that holds the child puts it off.
 */
extern void se_staging_rotate(SeStaging *staging, TimestampTz now);

#endif							/* SE_STAGING_H */
