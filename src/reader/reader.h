/*
 * reader.h
 *	  A reader: a position in a topic that moves on its own, with the queries
 *	  that it feeds.
 *
 * NOTES
 *	  One worker process runs one reader.  Its life is a sequence of cycles; a
 *	  cycle is one transaction, begun with the first records after a commit and
 *	  ended by the next commit.  What a cycle has done before its COMMIT is
 *	  private: memtables, counters, pending rows.  Any error throws all of it
 *	  away, and the reader begins again at the committed offsets; nothing else
 *	  has changed.
 *
 *	  Memory: "context" lives until the definition is read again, "cycle" until
 *	  the commit, "batch" until the next batch.  The memtables have contexts of
 *	  their own below "context" and are emptied at commit.
 */
#ifndef SE_READER_H
#define SE_READER_H

#include "postgres.h"

#include "utils/hsearch.h"

#include "catalog/definitions.h"
#include "query/query.h"
#include "sink/results.h"
#include "sink/side.h"
#include "sink/staging.h"
#include "source/source.h"
#include "state/state.h"
#include "state/state_log.h"

/* Payloads of records that are processed once more: of so many bytes at a time, and one more. */
#define SE_AGAIN_BYTES (16 * 1024 * 1024)

/* Counters of one partition: deltas since the last commit. */
typedef struct PartitionCounters
{
	int64		records;
	int64		gaps;
	int64		decoded;
	int64		dead;
	int64		future;
	int64		tombstones;
	int64		skipped;
} PartitionCounters;

typedef struct ReaderPartition
{
	int32		partition;
	bool		stored;			/* has a row */
	bool		dirty;			/* differs from its row */
	bool		complete;		/* nothing lies before start_offset for us */
	bool		idle;			/* as committed */
	bool		caught_up;		/* at the partition's end, as the source said */
	bool		lost;			/* stopped: the operator decides where it goes on */
	bool		gone;			/* lost, and he has: without it */
	bool		unverified;		/* whether the log still has the last record is
								 * not known yet */
	bool		unfound;		/* it was not to be had: the source must be asked why */
	int64		start_offset;
	int64		next_offset;
	int64		high_offset;	/* -1 unknown */
	TimestampTz max_event_time; /* DT_NOBEGIN: none yet */
	TimestampTz first_event_time;	/* DT_NOEND: none yet */
	TimestampTz others;			/* min of the other partitions' watermarks, as
								 * committed */
	TimestampTz last_arrival;	/* wall clock of the last record, or start */
	TimestampTz missing_since;	/* the topic has been without it; 0: it has it */
	int64		last_offset;	/* -1 none */
	TimestampTz last_timestamp;
	uint32		last_checksum;
	PartitionCounters delta;
} ReaderPartition;

/* Deltas of query_partition. */
typedef struct QueryCounters
{
	int64		counted;
	int64		filtered;
	int64		late;
	int64		late_assignments;
	int64		before_start;
	int64		failed;
	bool		dirty;
} QueryCounters;

typedef struct OpenSlice
{
	/* key */
	TimestampTz start;
	TimestampTz end;
	/* bounds of its windows */
	TimestampTz first_end;		/* the first of its windows to close */
	TimestampTz last_end;		/* when the last one closes */
	TimestampTz last_start;		/* the latest start of a window that holds it */
	SeMemtable *table;			/* groups since the last commit, or NULL */
	SeMemtable *base;			/* groups as committed, kept by sessions and
								 * global windows; or NULL */
	bool		table_merged;	/* base has those of table, while committing */
	bool		base_used;		/* sessions: since bases were last given back */
	struct SePartialBase *partial;	/* sessions: some of the committed groups,
									 * where all are too many; or NULL */
	int64		most_groups;	/* sessions: the committed groups are at most so many */
	SeMemtable *marked;			/* sessions: keys, while committing */
	/* what the state log holds */
	int			nruns;
	int64		entries;
	int64		largest;		/* groups of the largest run */
	bool		changed;		/* runs since changes were emitted, perhaps */
	/* of the batch */
	int			batch_rows;
	int			batch_start;
} OpenSlice;

/*
 * Windows that have closed and are still being emitted, see closing.c.  While committing
 * it is that of the commit before until the windows have been emitted.
 */
typedef struct SeClosing
{
	bool		active;
	bool		stored;			/* has a row */
	bool		replaces;		/* rows of the window may be in the table: changes */
	SeWindowBounds window;		/* the first one that is not wholly emitted */
	uint32		next_hash;		/* of the first of its groups that is to be emitted */
	int			nwindows;		/* that wait, with this one */
	double		density;		/* its groups per hash, 0 unknown */
	bool		gave_way;		/* the last commit emitted nothing of it, for the sake of others */
} SeClosing;

typedef struct ReaderQuery
{
	SeQueryDef *def;
	SeQueryPlan *plan;
	SeGroupLayout *layout;
	SeQueryEval *eval;
	SeQueryFinish *finish;
	MemoryContext context;
	HTAB	   *slices;			/* of OpenSlice */
	bool		long_keys;		/* keys may be too long for the index */
	OpenSlice  *last_slice;		/* of the row before */
	TimestampTz session_next_close;
	TimestampTz session_next_expiry;
	Size		session_memory; /* bound of the groups of sessions in memory */
	Size		session_group;	/* what a group takes there */
	bool		session_in_parts;	/* a commit is looking at a part of the keys: */
	uint32		session_low;	/* those with hashes from here */
	uint32		session_high;	/* to here */
	int64		session_rest;	/* microseconds from the last commit to the next that
								 * is made because sessions end, at least */
	HTAB	   *archive;		/* sessions kept apart for retry_late, or NULL */
	struct SeRevival *revival;	/* those that the running cycle looks at, or NULL */
	TimestampTz next_close;		/* earliest end of an open window, or DT_NOEND */
	TimestampTz closed_through; /* committed */
	int			nemitted_stored;	/* of def->emitted, committed */
	bool		hides;			/* this commit takes back what is shown of windows that turned
								 * out incomplete */
	int64	   *begins;			/* [partition] the query's first offset, if it has
								 * joined the reader later; else NULL */
	int			nbegins;
	SeClosing	closing;
	int64		lateness;		/* how long windows take records after their end */
	int64		changes_seq;	/* emit => 'changes': seq of the commit that emitted last */
	TimestampTz changes_at;		/* and when; DT_NOBEGIN: never */
	List	   *spare;			/* emptied memtables */
	struct SeSliding *sliding;	/* merged slices of overlapping windows, or NULL */
	/* global windows: totals as of the records at which the count trigger fired */
	SeMemtable *fired;
	/* and keys changed since the interval trigger fired */
	SeMemtable *changed;
	bool		has_changed;
	TimestampTz last_fired;		/* DT_NOBEGIN: not since the start */
	TimestampTz last_expired;	/* watermark of the last look for expired keys */
	int64		expected_groups;	/* of a slice's memtable */
	QueryCounters *counters;	/* [partition] */
	/* deltas of query_progress */
	int64		windows_closed;
	int64		windows_incomplete;
	int64		rows_out;
} ReaderQuery;

typedef struct Reader
{
	SeReaderDef *def;
	SeStream   *stream;
	TupleDesc	desc;
	const SeSourceRoutine *routine;
	SeSource   *source;
	SeDecoder  *decoder;
	SeSourceBatch *fetched;
	bool		source_in_transaction;	/* a table-backed source */
	bool		verifying;		/* some partition may be unverified */
	bool		assign_wanted;	/* positions differ from those of the source */
	MemoryContext context;
	MemoryContext cycle;
	MemoryContext batch;

	int			npartitions;
	ReaderPartition *partitions;	/* [partition] */
	TimestampTz watermark;		/* committed W */
	TimestampTz idle_closed;	/* arrival of the last record before idle_close
								 * closed the windows; DT_NOBEGIN: has not */

	int			nqueries;
	ReaderQuery *queries;
	List	   *objects;		/* of PlanInvalItem: what expressions were planned with */
	SeStaging  *staging;		/* head reader only */
	SePending  *pending;		/* late records and dead letters of the cycle */
	HTAB	   *verdicts;		/* positions judged by other readers */
	TimestampTz verdicts_until; /* event time up to which they are known */
	bool		verdicts_fresh; /* looked for in this cycle */

	bool		in_cycle;		/* a transaction is open */
	bool		dirty;			/* the cycle has something to commit */
	bool		commit_wanted;	/* at once, dirty or not */
	bool		replay_wanted;	/* records may wait in table replay */
	struct SeMerge *merge;		/* the reader that is followed, or NULL */
	TimestampTz cycle_began;
	TimestampTz last_commit;
	int64		commit_duration;	/* of the last commit, microseconds */
	int			nclosers;		/* queries that have windows closed by the commit */
	int64		part_duration;	/* of the last commit that emitted a part of a window */
	TimestampTz part_ended;		/* the last commit after which windows wait to be emitted */
	bool		fold_waits;		/* a slice was not folded, for the sake of others */
	bool		quiet;			/* the commit has nothing to write: it may fold */
	uint64		commit_bytes;	/* appended to the state log by the last commit */
	TimestampTz minute;			/* for on_error_limit */
	int64		bad_this_minute;

	/* on_error => 'pause': the record at which the stream stops */
	bool		pause_wanted;
	int32		pause_partition;
	int64		pause_offset;
	char		pause_message[512];
	char		pause_sqlstate[6];
} Reader;

/* What is being worked on when an error is raised; for its context and blame. */
typedef struct ReaderBlame
{
	ReaderQuery *query;			/* NULL: nobody's fault in particular */
	const SeRecord *records;	/* of the batch, or NULL */
} ReaderBlame;

extern ReaderBlame se_blame;

/* A moment "delay" after t, both finite; never wraps. */
static inline TimestampTz
se_time_after(TimestampTz t, int64 delay)
{
	return t > DT_NOEND - 1 - delay ? DT_NOEND - 1 : t + delay;
}

/* A moment "delay" before t; DT_NOBEGIN if no event time can lie before that. */
static inline TimestampTz
se_time_before(TimestampTz t, int64 delay)
{
	return t < MIN_TIMESTAMP + delay ? DT_NOBEGIN : t - delay;
}

/* Whether a record judged with "watermark" comes too late for a window that ends at "end". */
static inline bool
se_query_refuses(const ReaderQuery *query, TimestampTz end, TimestampTz watermark)
{
	return se_time_after(end, query->lateness) <= watermark || end <= query->def->kept_from;
}

/* How long slices are kept after their last window has closed, microseconds. */
static inline int64
se_query_retention(const ReaderQuery *query)
{
	return Max(query->def->allowed_lateness, query->def->correction_horizon);
}

static inline TimestampTz
se_slice_expires(const ReaderQuery *query, const OpenSlice *slice)
{
	return se_time_after(slice->last_end, se_query_retention(query));
}

static inline bool
se_query_emits_changes(const ReaderQuery *query)
{
	return strcmp(query->def->emit, "changes") == 0;
}

/* load.c */
extern void se_load_verdicts(Reader *reader);
extern Reader *se_current_reader;	/* for the exit callback and error context */
extern ReaderQuery *se_loading_query;	/* whose definition is being compiled */
extern bool se_relations_changed;	/* since the definition was read */
extern bool se_stream_changed;
extern Reader *se_reader_prepare(int32 reader_id, MemoryContext context);
extern void se_relation_invalidated(Datum arg, Oid relid);
extern void se_object_invalidated(Datum arg, int cacheid, uint32 hash);
extern bool se_definition_is_settled(int32 reader_id, int32 *kept_out);

/* partitions.c */
extern void se_partitions_load(Reader *reader);
extern bool se_partitions_discover(Reader *reader, int timeout_ms);
extern void se_partitions_assign(Reader *reader);
extern void se_partitions_commit(Reader *reader);
extern TimestampTz se_partition_watermark(const Reader *reader, const ReaderPartition *partition);
extern TimestampTz se_reader_watermark(Reader *reader, TimestampTz now, bool *idle);
extern void se_partitions_committed(Reader *reader, TimestampTz watermark, const bool *idle);
extern TimestampTz se_partitions_idle_close(Reader *reader, TimestampTz now);
extern TimestampTz se_partitions_next_move(const Reader *reader);
extern bool se_partitions_end_moved(const Reader *reader);
extern void se_partitions_check(Reader *reader, SeSourceBatch *batch);
extern void se_partition_problem(Reader *reader, int32 partition, const char *problem);

/* process.c */
extern int	se_process_batch(Reader *reader, const SeRecord *records, int nrecords);
extern uint32 se_record_checksum(const SeRecord *record);
extern int	se_process_replayed(Reader *reader, const SeRecord *records, int nrecords);
extern void se_add_rows(Reader *reader, ReaderQuery *query, const SeBatch *batch,
						const SeRecord *records, const int *rows, int n);
extern void se_add_to_slices(ReaderQuery *query, const SeBatch *batch, const int *rows,
							 OpenSlice *const *slices, int n);
extern void se_record_fails(Reader *reader, ReaderQuery *query, const SeRecord *record,
							const char *message);
extern void se_time_fails(Reader *reader, ReaderQuery *query, const SeRecord *record);
extern bool se_key_fails(Reader *reader, ReaderQuery *query, const SeRecord *record, int row);
extern void se_update_groups(ReaderQuery *query, const SeBatch *batch, OpenSlice *slice,
							 const int *rows, SeGroup **row_groups, int n);
extern OpenSlice *se_slice_get(ReaderQuery *query, TimestampTz start, TimestampTz end);
extern void se_query_next_close(ReaderQuery *query);

extern void se_process_late(Reader *reader, ReaderQuery *query, const SeRecord *records,
							int nrecords, TimestampTz *event_time);

/*
 * late.c: set a record aside for which all its windows ("nwindows", maybe more than are stored)
 * have closed; the same for those of its slice; or one that other windows count.
 */
extern void se_late_record(Reader *reader, ReaderQuery *query, const SeRecord *record,
						   TimestampTz t, TimestampTz watermark, const SeWindowBounds *windows,
						   int nwindows);
extern void se_late_in_slice(Reader *reader, ReaderQuery *query, const OpenSlice *slice,
							 const SeRecord *record, TimestampTz t, TimestampTz watermark);
extern void se_partly_late_record(Reader *reader, ReaderQuery *query, const SeRecord *record,
								  TimestampTz t, TimestampTz watermark);

/* first_window.c */
extern bool se_slice_has_emitted(const ReaderQuery *query, const OpenSlice *slice,
								 const TimestampTz *watermark);
extern void se_set_complete_from(Reader *reader, ReaderQuery *query);

/* retry.c */
extern bool se_retry_records(Reader *reader);

/* layout.c */
extern int	se_hidden_aggregates(const SeQueryPlan *plan);
extern SeGroupLayout *se_query_layout(const SeQueryPlan *plan, const SeQueryDef *def,
									  MemoryContext context);
extern uint32 se_query_stamp(const SeQueryPlan *plan, const SeGroupLayout *layout);

/* correct.c */
extern TimestampTz se_changes_due(const ReaderQuery *query);

/* close.c */
extern bool se_windows_emit(ReaderQuery *query, TimestampTz watermark, TimestampTz now);
extern void se_close_windows(Reader *reader, ReaderQuery *query, TimestampTz watermark,
							 TimestampTz now);
extern void se_flush_slices(Reader *reader, ReaderQuery *query, TimestampTz watermark);

/* closing.c */
extern void se_closing_load(ReaderQuery *query);
extern void se_closing_store(ReaderQuery *query);
extern int64 se_closing_budget(const Reader *reader);
extern bool se_closing_presses(const Reader *reader);
extern TimestampTz se_closing_due(const Reader *reader, bool behind, TimestampTz watermark);
extern bool se_closing_fold_due(const Reader *reader, bool behind, TimestampTz watermark);
extern void se_closing_begin(Reader *reader, TimestampTz watermark);
extern bool se_closing_disturbs(const Reader *reader, const ReaderQuery *query,
								TimestampTz watermark);
extern void se_closing_committed(Reader *reader);

/* aside.c */
extern bool se_query_isolate(int32 query);
extern void se_query_fails(int32 reader, int64 generation, int32 query, const ErrorData *error,
						   int32 partition, int64 offset);
extern void se_stream_stops(Reader *reader);

/* replay.c */
extern void se_record_of_row(uint64 i, MemoryContext context, SeRecord *record);
extern bool se_replay_run(Reader *reader);

/* commit_times.c */
typedef enum SeCommitStep
{
	SE_STEP_READING,			/* and waiting for records, before the commit */
	SE_STEP_LOCKS,
	SE_STEP_SIDE,
	SE_STEP_WINDOWS,			/* emission; all of it for sessions and global windows */
	SE_STEP_STATE,
	SE_STEP_PROGRESS,
	SE_STEP_COMMIT
} SeCommitStep;

extern void se_commit_step(SeCommitStep step);
extern void se_commit_tell(const Reader *reader, int64 nrecords);

/* commit.c */
extern bool se_cycle_begin(Reader *reader);
extern void se_cycle_end_empty(Reader *reader);
extern bool se_reader_commit(Reader *reader);

#endif							/* SE_READER_H */
