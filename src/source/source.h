/*
 * source.h
 *	  Where records come from: the interface between the reader and a source.
 *
 * NOTES
 *	  Sources, decoders and the foreign-table scan live in a library of their
 *	  own, stream_engine_source, which links librdkafka and simdjson; the
 *	  preloaded library reaches it through se_source_library() alone, resolved
 *	  with load_external_function() in workers and scans.
 *
 *	  A source is used by one process and one thread.  No call blocks longer
 *	  than its timeout, and each blocking call waits in slices of 100 ms (up to a
 *	  second while the answer of a distant broker is on its way) with
 *	  CHECK_FOR_INTERRUPTS between them.
 *
 *	  Ownership: an SeSource is malloc'd together with whatever it holds and is
 *	  registered with a MemoryContextCallback of the context in which it was
 *	  opened, so that an ERROR that deletes the context also closes the source
 *	  and destroys the messages of the batch that is still held.
 */
#ifndef SE_SOURCE_H
#define SE_SOURCE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/rel.h"

#include "columns.h"
#include "decoder.h"

typedef struct SeSource SeSource;

typedef enum SeSourceEventKind
{
	SE_EVENT_EOF,				/* caught up: "offset" is the partition's end,
								 * transaction markers included */
	SE_EVENT_TRANSIENT,			/* library retries by itself (broker down, ...) */
	SE_EVENT_OFFSET_LOST,		/* the wanted offset is not in the log any more;
								 * the partition is stopped until reassigned */
	SE_EVENT_CONFIG,			/* login refused, topic unknown, not authorised */
	SE_EVENT_DATA,				/* a record that cannot be fetched */
	SE_EVENT_FATAL				/* close and open again */
} SeSourceEventKind;

typedef struct SeSourceEvent
{
	SeSourceEventKind kind;
	int32		partition;		/* -1: the whole source */
	int64		offset;
	int			sqlstate;
	char		message[320];	/* never holds a secret */
	char		hint[200];		/* "" if none */
	bool		doubt;			/* what is behind the positions may have become
								 * another log, also behind the records of the
								 * batch; without a message if that is all */
} SeSourceEvent;

#define SE_EVENTS_MAX 64

/* What one fetch delivers.  The records' bytes live until release. */
typedef struct SeSourceBatch
{
	int			nrecords;
	int			nevents;
	SeRecord	records[SE_BATCH_MAX];
	SeSourceEvent events[SE_EVENTS_MAX];
} SeSourceBatch;

/* SeRecord.flags: "handle" is the record's headers as Jsonb, or NULL. */
#define SE_RECORD_JSONB_HEADERS 0x01

typedef struct SePosition
{
	int32		partition;
	int64		offset;			/* next offset to read */
} SePosition;

typedef struct SeSourceRoutine
{
	const char *name;

	/* A partition's end offset never moves back as long as it is the same log. */
	bool		keeps_ends;

	/*
	 * Opens the source of stream "relid" (a foreign table) with the options
	 * of its server, its table and of "userid"'s user mapping.  Raises
	 * configuration errors; does not wait for the broker.
	 */
	SeSource   *(*open) (Oid relid, Oid userid);

	/* Closes; never blocks for longer than a few hundred milliseconds. */
	void		(*close) (SeSource *source);

	/*
	 * Number of partitions; raises a clear error when the broker is not
	 * reached, the login refused or the topic unknown within timeout_ms.
	 */
	int			(*partitions) (SeSource *source, int timeout_ms);

	/*
	 * First offset kept and end offset (last stable offset when reading
	 * committed records) as the broker says.  Raises as above.
	 */
	void		(*offsets) (SeSource *source, int32 partition, int timeout_ms,
							int64 *low, int64 *high);

	/*
	 * First offset with timestamp >= t; the end offset if there is none, the
	 * first one kept if the broker cannot tell.
	 */
	int64		(*offset_for_time) (SeSource *source, int32 partition, TimestampTz t,
									int timeout_ms);

	/*
	 * Last known end offset without asking the broker, -1 if unknown.
	 */
	int64		(*cached_high) (SeSource *source, int32 partition);

	/*
	 * Start to fetch these partitions from these offsets, and no others;
	 * what was fetched before and not delivered is dropped.  A partition
	 * that is given the position it has goes on; if it is at its end, that
	 * is told again.  A batch that is held must be released before, unless
	 * all partitions go on.
	 */
	void		(*assign) (SeSource *source, const SePosition *positions, int npositions);

	/*
	 * Deliver what is there, without waiting; in offset order within each
	 * partition.  batch->nrecords = batch->nevents = 0: nothing there.
	 */
	void		(*fetch) (SeSource *source, SeSourceBatch *batch, int max_records);

	/* Give the records' bytes back.  Must follow each fetch. */
	void		(*release) (SeSource *source, SeSourceBatch *batch);

	/*
	 * A descriptor that becomes readable when fetch has something after
	 * having had nothing, or -1 with *poll_ms = how often to try instead.  It
	 * stays the same as long as the source is open.
	 */
	int			(*wait_fd) (SeSource *source, int *poll_ms);

	/* Clear the descriptor; to be called before draining with fetch. */
	void		(*drain_fd) (SeSource *source);
} SeSourceRoutine;

/* What the options of a stream's foreign table say, defaults filled in. */
typedef struct SeStreamOptions
{
	char	   *topic;			/* "" when a table-backed stream names none */
	char	   *format;			/* "json" */
	char	   *event_time;		/* a column, "_timestamp" or "processing_time";
								 * NULL when the table does not say */
	bool		processing_time;	/* column _processing_time is the event time */
	int64		watermark_delay;	/* microseconds, as all times here; 0 with
								 * processing time */
	int64		idle_timeout;
	int64		idle_close;		/* -1: never */
	int64		max_future;
	int64		staging_retention;	/* 0: no staging */
	int64		staging_max_size;	/* bytes */
	char	   *start;			/* "earliest", "latest" or a timestamp with time
								 * zone */
	char	   *on_error;		/* "dead_letter", "pause" or "skip" */
	int			on_error_limit; /* bad records a minute, -1: none */
	int			workers;
} SeStreamOptions;

/*
 * What a scan reads instead of "all that is there", for verify(): the ranges
 * that a query has consumed, without the records that it did not count.  In
 * force for scans of "relid" from push to pop; the caller owns the memory, and
 * pops on error, too (or relies on the end of the (sub)transaction, which pops
 * what it pushed).
 */
typedef struct SeScanRange
{
	int32		partition;
	int64		start;
	int64		end;			/* exclusive */
} SeScanRange;

typedef struct SeScanExclusion
{
	int32		partition;
	int64		offset;
} SeScanExclusion;

typedef struct SeScanOverride
{
	Oid			relid;
	int			nranges;
	const SeScanRange *ranges;	/* partitions not named are not read; a
								 * partition may have several, ascending */
	int			nexcluded;
	const SeScanExclusion *excluded;	/* sorted by (partition, offset) */
	bool		quiet;			/* no WARNING about bad records */

	/* filled by scans */
	int64		nread;			/* records seen, excluded ones included */
	int64		nbad;			/* bad records that were not excluded */
} SeScanOverride;

/* All that the engine uses of the second library. */
typedef struct SeSourceLibrary
{
	int			abi_version;	/* SE_SOURCE_ABI */
	const SeSourceRoutine *(*routine_of_server) (Oid serverid);
	SeDecoder  *(*decoder_create) (Relation stream, AttrNumber event_time,
								   const Bitmapset *needed, MemoryContext context);
	void		(*decoder_run) (SeDecoder *decoder, const SeRecord *records, int nrecords);
	SeBatch    *(*decoder_batch) (SeDecoder *decoder);
	const char *(*version) (void);	/* "librdkafka 2.0.2, simdjson 3.0.1" */

	/* Whether a server belongs to one of this library's wrappers. */
	bool		(*is_stream_server) (Oid serverid);

	/* Read a stream's options; strings are palloc'd. */
	void		(*stream_options) (Oid relid, SeStreamOptions *out);

	/* The headers of a record that has been fetched, as jsonb; palloc'd, raises nothing. */
	Datum		(*record_headers) (const SeRecord *record);

	/* Overrides nest; a scan obeys the innermost one of its relation. */
	void		(*scan_override_push) (SeScanOverride *override);
	void		(*scan_override_pop) (SeScanOverride *override);
} SeSourceLibrary;

#define SE_SOURCE_ABI 3
#define SE_SOURCE_LIBRARY "$libdir/stream_engine_source"
#define SE_SOURCE_SYMBOL "se_source_library"

typedef const SeSourceLibrary *(*SeSourceLibraryFunction) (void);

/* ---- between the files of src/source ---- */

extern const SeSourceRoutine se_kafka_routine;
extern const SeSourceRoutine se_table_routine;

extern const SeSourceRoutine *se_source_routine_of_server(Oid serverid);
extern bool se_source_is_stream_server(Oid serverid);
extern void se_stream_options(Oid relid, SeStreamOptions *out);
extern void se_scan_override_push(SeScanOverride *override);
extern void se_scan_override_pop(SeScanOverride *override);

/* The innermost override for a relation, or NULL. */
extern SeScanOverride *se_scan_override_find(Oid relid);

#endif							/* SE_SOURCE_H */
