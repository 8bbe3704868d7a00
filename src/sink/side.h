/*
 * side.h
 *	  Side outputs: late records and dead letters.
 *
 * NOTES
 *	  They are collected while a cycle runs and written by its commit, sorted by
 *	  position, so that two readers that meet the same bad records take their
 *	  rows' locks in the same order.
 */
#ifndef SE_SIDE_H
#define SE_SIDE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "source/columns.h"
#include "window/window.h"

typedef struct SePending SePending;

/* In "context", whose reset forgets all. */
extern SePending *se_pending_create(MemoryContext context);

/* Bytes are copied.  "windows" are those that the record came too late for. */
extern void se_pending_late(SePending *pending, int32 query, const SeRecord *record,
							TimestampTz event_time, TimestampTz watermark,
							const SeWindowBounds *windows, int nwindows);

/* The same for a record that other windows have taken. */
extern void se_pending_partly_late(SePending *pending, int32 query, const SeRecord *record,
								   TimestampTz event_time, TimestampTz watermark,
								   const SeWindowBounds *windows, int nwindows);

/* A record that one query cannot take. */
extern void se_pending_failed(SePending *pending, int32 query, const SeRecord *record,
							  const char *message);

/* reason: 'bad', 'future' or 'skipped'; column may be NULL. */
extern void se_pending_dead(SePending *pending, const SeRecord *record, const char *reason,
							int sqlstate, const char *message, const char *column);

/*
 * A place in what has been collected, to go back to: dead letters behind it are
 * forgotten; late records stay, for queries judge them on their own.
 */
typedef struct SePendingMark
{
	int			rows;
	Size		bytes;
} SePendingMark;

extern SePendingMark se_pending_mark(const SePending *pending);
extern void se_pending_rollback(SePending *pending, SePendingMark mark);

/* Bytes held. */
extern Size se_pending_memory(const SePending *pending);

extern int	se_pending_rows(const SePending *pending);

/* Write all rows, inside a transaction, in a catalog scope (superuser, SPI connected). */
extern void se_pending_write(SePending *pending, int32 stream, int32 reader, TimestampTz now);

#endif							/* SE_SIDE_H */
