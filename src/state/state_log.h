/*
 * state_log.h
 *	  The state log: the runs of each query's slices, in a logged table.
 *
 * NOTES
 *	  The log is the state: on start, after a crash and on a standby nothing else
 *	  is read.  Everything here runs inside the caller's transaction, as a
 *	  superuser, and sees what its active snapshot sees, so that a scan under a
 *	  reader's snapshot is exact.
 */
#ifndef SE_STATE_LOG_H
#define SE_STATE_LOG_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* Payload of a chunk that leaves it on one page of the log. */
#define SE_CHUNK_SIZE 8000

typedef struct SeStateLog SeStateLog;

/* Bytes appended by this process, ever. */
extern uint64 se_state_log_bytes;

/* Open for appending (write) or reading; closed by se_state_log_close. */
extern SeStateLog *se_state_log_open(bool write);
extern void se_state_log_close(SeStateLog *log);

/*
 * Open for reading in the midst of a cycle, by the worker of the query: chunks may
 * have been moved since the active snapshot was taken, so a new one is, until the
 * log is closed.
 */
extern SeStateLog *se_state_log_open_latest(void);

/*
 * The active snapshot sees the reader's row with this generation and seq, and the query
 * to be read as fed by this reader: then reading need not go to the table.
 */
extern void se_state_log_as_of(SeStateLog *log, int32 reader, int64 generation, int64 seq);

extern void se_state_log_append(SeStateLog *log, int32 query, TimestampTz slice_start,
								TimestampTz slice_end, int64 seq, uint32 hash_low,
								uint32 hash_high, int ngroups, const char *bytes, Size size);

/* Chunks of a slice that meet [hash_low, hash_high], in the order they were written. */
typedef void (*SeChunkReader) (void *arg, const char *bytes, Size size);
extern void se_state_log_read(SeStateLog *log, int32 query, TimestampTz slice_start,
							  TimestampTz slice_end, uint32 hash_low, uint32 hash_high,
							  SeChunkReader reader, void *arg);

/*
 * Tombstones: a chunk whose groups are keys that end there.  All runs of the
 * slice with a smaller seq lose these groups.  Slices with tombstones must be
 * read with se_state_log_read_ordered, which gives the runs in the order of seq.
 */
extern void se_state_log_append_tombstones(SeStateLog *log, int32 query, TimestampTz slice_start,
										   TimestampTz slice_end, int64 seq, uint32 hash_low,
										   uint32 hash_high, int ngroups, const char *bytes,
										   Size size);
typedef void (*SeOrderedReader) (void *arg, const char *bytes, Size size, uint32 hash_low,
								 uint32 hash_high, bool tombstones);
extern void se_state_log_read_ordered(SeStateLog *log, int32 query, TimestampTz slice_start,
									  TimestampTz slice_end, uint32 hash_low, uint32 hash_high,
									  SeOrderedReader reader, void *arg);

/* The same of runs with a seq greater than "seq". */
extern void se_state_log_read_since(SeStateLog *log, int32 query, TimestampTz slice_start,
									TimestampTz slice_end, int64 seq, uint32 hash_low,
									uint32 hash_high, SeChunkReader reader, void *arg);

/* Delete all chunks of a slice that the active snapshot sees. */
extern void se_state_log_delete(SeStateLog *log, int32 query, TimestampTz slice_start,
								TimestampTz slice_end);

/* The slices of a query: one call for each, ascending. */
typedef void (*SeSliceReader) (void *arg, TimestampTz start, TimestampTz end, int nruns,
							   int64 entries, int64 largest);
extern void se_state_log_slices(SeStateLog *log, int32 query, SeSliceReader reader, void *arg);

/*
 * Slices of a query and bytes of their runs, as of now, whatever the snapshot.  Leaves no lock
 * behind: one that a session keeps would keep segments from being emptied.
 */
extern void se_state_log_size(int32 query, int64 *slices, int64 *bytes);

/*
 * Whether sessions have read the query's state slowly, for it was not in shared memory and
 * would fit, or (*unfolded) has slices worth folding for a reader.  Told once.
 */
extern bool se_state_log_asked(int32 query, bool *unfolded);

/*
 * A slice's runs are folded into one instead of a further run of "added" groups being put
 * behind them, when together they would hold so many entries a group.
 *
 * All touched in each commit, a group of one bigint key and four aggregates takes 17 bytes in
 * each run; so it takes up to 51, and 68 while old and new runs exist side by side.  The
 * price is a merge of three entries for each two that are logged, 25 to 35 ns an entry, and
 * nothing where windows are shorter than three commits.  With 2 a group would take
 * 51 at most, with 4 85.  The CPU of a worker with 60,000 or 100,000 groups a commit was
 * the same with 2, 3, 4 and with 16 runs, within what can be measured; what 2 would cost more
 * is WAL, where commits touch few of the groups: half as much again as the runs with 3,
 * as much again with 2.
 */
#define SE_FOLD_ENTRIES_PER_GROUP 3
#define SE_FOLD_MIN_ENTRIES 1000

static inline bool
se_slice_is_folded(int64 entries, int64 largest, int64 added)
{
	return entries + added > Max(Max(largest, added) * SE_FOLD_ENTRIES_PER_GROUP,
								 SE_FOLD_MIN_ENTRIES);
}

/* The same while there is nothing else to do, for sessions that read the runs. */
static inline bool
se_slice_is_unfolded(int nruns, int64 entries, int64 largest)
{
	return nruns >= 4 && entries >= largest * 2;
}

/*
 * For the process that feeds queries, and alone writes their state.  attach: as
 * se_state_log_slices, when it begins, with the query's reader as the snapshot sees it;
 * detach: give up all queries.  commit: in each transaction that takes the reader from seq - 1
 * to seq, behind the check that it still does and before anything is appended.
 */
extern void se_state_log_attach(SeStateLog *log, int32 query, int32 reader, int64 generation,
								int64 seq, SeSliceReader slice_reader, void *arg);
extern void se_state_log_detach(void);
extern void se_state_log_commit(int32 reader, int64 generation, int64 seq);

#endif							/* SE_STATE_LOG_H */
