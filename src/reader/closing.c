/*
 * closing.c
 *	  Large windows are emitted by several commits.
 *
 * NOTES
 *	  A commit that makes W pass the ends of windows closes them: closed_through becomes
 *	  W, and from then on their records are late.  Their rows may take longer: a
 *	  commit emits about max_emit_rows rows for each window, and what is left is emitted
 *	  by commits that follow at once.  In between records are read, and other
 *	  queries' windows close.
 *
 *	  Windows are emitted in the order of (end, start), and each one in the order of its
 *	  groups' hashes.  So how far a query has got is one point: a window and a
 *	  hash.  All windows before it have been emitted, and of itself the groups with a
 *	  smaller hash; all windows behind it up to closed_through have not.  The point is
 *	  the query's row in table closing, written by the commit that emits; a query that
 *	  has nothing left to emit has no row.  The alternative, a row for each window that
 *	  waits, would say no more, for which ones wait follows from the slices, and these
 *	  may be thousands.
 *
 *	  The state of what waits is where it was.  A slice is dropped when the last of
 *	  its windows has been emitted, and may be folded meanwhile.  Records that come
 *	  within the allowed lateness are merged into slices as always: groups that have
 *	  been emitted are corrected (correct.c), others are emitted with them.  Readers
 *	  of <query>_open show what has not been emitted as final rows, by the row of their
 *	  own snapshot; together with the result table that is each row once.
 *
 *	  The row is the query's, not the reader's: it stays when the query is paused, split
 *	  off, or handed over to another reader.  It is dumped, so that a restored database
 *	  knows which window its result table has only some rows of.
 *
 *	  Other queries of the reader are not to wait for the rows of a large window.  So a
 *	  commit that closes their windows emits nothing of it, nor is one made for it when
 *	  theirs are about to close; both only for a while, since they may close all the time.
 *	  Folding of large slices keeps out of the way in the same manner.
 *
 *	  Emitting 1,000,000 groups took 3.4 s of CPU with 5000 rows a commit, 2.5 with 20,000
 *	  and 1.9 with 100,000 or all at once, and the longest commit grew from 0.2 s
 *	  over 0.5 and 1.2 to 7; hence the default of 20,000.
 *
 *	  A query whose reader feeds no other disturbs nobody, and larger blocks of rows
 *	  in the order of the keys cost the index less: it emits more at a time.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/timestamp.h"

#include "engine/engine.h"
#include "reader.h"

/* A reader of one query emits so many times max_emit_rows. */
#define ALONE_FACTOR 10

/* No record is read while more windows of a query than these wait. */
#define MAX_WAITING_WINDOWS 16

/* How long a part of a window takes to be emitted, at least. */
#define MIN_PART_MS 50

/* So many times that others are given way to. */
#define GIVE_WAY_PARTS 3

/* Reading is given as much time as the last commit took, up to this. */
#define MAX_READING_MS 100

/* The point at which the query's row stands, in a definition just read. */
void
se_closing_load(ReaderQuery *query)
{
	SeClosing  *closing = &query->closing;

	memset(closing, 0, sizeof(SeClosing));
	if (!query->def->closing)
		return;
	closing->active = closing->stored = true;
	closing->window.start = query->def->closing_start;
	closing->window.end = query->def->closing_end;
	closing->next_hash = (uint32) query->def->closing_hash;
	closing->nwindows = 1;
	/* whether rows were shown is not known any more: it is looked for each of them */
	closing->replaces = se_query_emits_changes(query);
}

/* Write the row, or delete it; in a catalog scope of the commit. */
void
se_closing_store(ReaderQuery *query)
{
	SeClosing  *closing = &query->closing;
	Oid			types[4] = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID};
	Datum		values[4];

	values[0] = Int32GetDatum(query->def->id);
	values[1] = TimestampTzGetDatum(closing->window.start);
	values[2] = TimestampTzGetDatum(closing->window.end);
	values[3] = Int64GetDatum((int64) closing->next_hash);
	if (closing->active)
		se_spi(closing->stored ?
			   "UPDATE stream_engine.closing SET window_start = $2, window_end = $3,"
			   " next_hash = $4 WHERE query = $1" :
			   "INSERT INTO stream_engine.closing (query, window_start, window_end, next_hash)"
			   " VALUES ($1, $2, $3, $4)", 4, types, values, NULL,
			   closing->stored ? SPI_OK_UPDATE : SPI_OK_INSERT);
	else if (closing->stored)
		se_spi("DELETE FROM stream_engine.closing WHERE query = $1", 1, types, values, NULL,
			   SPI_OK_DELETE);
	closing->stored = closing->active;
}

/* How many rows a commit may emit for a window of one query; 0 no limit. */
int64
se_closing_budget(const Reader *reader)
{
	int64		rows = se_max_emit_rows;
	int			nclosing = 0;

	if (reader->nqueries == 1)
		return rows * ALONE_FACTOR;
	for (int i = 0; i < reader->nqueries; i++)
		nclosing += reader->queries[i].closing.active;
	return rows == 0 ? 0 : Max(rows / Max(nclosing, 1), 1);
}

/* Whether so much waits to be emitted that reading has to wait. */
bool
se_closing_presses(const Reader *reader)
{
	for (int i = 0; i < reader->nqueries; i++)
		if (reader->queries[i].closing.active &&
			reader->queries[i].closing.nwindows > MAX_WAITING_WINDOWS)
			return true;
	return false;
}

/* ---- giving way to others ---- */

/* Whether "query" has a window that closes at "watermark" and that somebody may wait for. */
static bool
closes_window(const ReaderQuery *query, TimestampTz watermark)
{
	return query->plan->window.kind != SE_WINDOW_GLOBAL &&
		query->plan->window.kind != SE_WINDOW_SESSION &&
		!query->closing.active && query->next_close <= watermark;
}

/* At the beginning of a commit that makes W "watermark". */
void
se_closing_begin(Reader *reader, TimestampTz watermark)
{
	reader->nclosers = 0;
	reader->fold_waits = false;
	for (int i = 0; i < reader->nqueries; i++)
		reader->nclosers += closes_window(&reader->queries[i], watermark);
}

/* In it: whether other queries' windows close, which much work for "query" would delay. */
bool
se_closing_disturbs(const Reader *reader, const ReaderQuery *query, TimestampTz watermark)
{
	return reader->nclosers > closes_window(query, watermark);
}

/*
 * Whether a commit that is made for a large window, or slice, waits for others' windows: as
 * long as records come.  "watermark" is W as it would be committed now.
 */
static bool
gives_way(const Reader *reader, bool behind, TimestampTz watermark)
{
	int64		span = Max(reader->part_duration, MIN_PART_MS * 1000);

	if (!reader->dirty || behind || TIMESTAMP_NOT_FINITE(watermark))
		return false;
	for (int i = 0; i < reader->nqueries; i++)
		if (closes_window(&reader->queries[i], watermark + span))
			return true;
	return false;
}

/*
 * When the next commit is to be made because windows wait to be emitted; DT_NOEND if none
 * do.  "behind": there are records to be read.
 */
TimestampTz
se_closing_due(const Reader *reader, bool behind, TimestampTz watermark)
{
	bool		active = false;

	for (int i = 0; i < reader->nqueries; i++)
		active |= reader->queries[i].closing.active;
	if (!active)
		return DT_NOEND;
	if (behind)
		return reader->last_commit + reader->commit_duration +
			Min(reader->commit_duration, MAX_READING_MS * 1000);
	if (gives_way(reader, behind, watermark))
		return reader->part_ended +
			GIVE_WAY_PARTS * Max(reader->part_duration, MIN_PART_MS * 1000);
	return DT_NOBEGIN;
}

/* Whether to fold what a commit that closed windows has left for later. */
bool
se_closing_fold_due(const Reader *reader, bool behind, TimestampTz watermark)
{
	return reader->fold_waits && !behind && !gives_way(reader, behind, watermark);
}

/* Behind a commit. */
void
se_closing_committed(Reader *reader)
{
	for (int i = 0; i < reader->nqueries; i++)
	{
		const SeClosing *closing = &reader->queries[i].closing;

		if (!closing->active)
			continue;
		reader->part_ended = reader->last_commit + reader->commit_duration;
		if (!closing->gave_way)
			reader->part_duration = reader->commit_duration;
	}
}
