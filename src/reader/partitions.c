/*
 * partitions.c
 *	  A reader's partitions: positions, watermarks, idleness.
 *
 * NOTES
 *	  The watermark of a partition is the largest event time accepted from it
 *	  minus the stream's delay.  The stream's watermark W is the minimum over the
 *	  partitions that are not idle, and never moves back.  A partition is idle
 *	  when it has been quiet for idle_timeout and the source has said that it is
 *	  at the partition's end: a position equal to the high watermark is not asked,
 *	  because transaction markers and compaction leave gaps there.  One that was
 *	  idle when the reader stopped is idle again once it is known that nothing
 *	  has come since.
 *
 *	  With processing time W is the clock at the commit, and nothing of this
 *	  applies.
 *
 *	  When all partitions are idle W stands still, so that nothing closes by itself.
 *	  With idle_close it moves to the end of the last open window, once, after
 *	  that time without a record.
 *
 *	  A record is judged with its own partition's watermark as it stands before that
 *	  record and the other partitions' as of the last commit; "others" is their
 *	  minimum.  The ledger has, for each commit, all that this needs.
 *
 *	  An offset says little about the log that it was taken from: a topic may be
 *	  deleted and made again under the same name, or lose its end with a leader.
 *	  So reading does not begin at the position but at the last record before it,
 *	  which is compared with what is stored of it (timestamp and checksum), and
 *	  left out: at the start, and whenever the source has doubts.  If it is another
 *	  record, or one is where none was, or the log ends before the position, the
 *	  partition stops.  If it is gone, which compaction and retention may do, nothing
 *	  can be said.  A partition that has stopped stays so, also when the worker
 *	  starts again, until the operator has decided.  So does one that the topic does not
 *	  have any more, for MISSING_MS.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/ddl.h"
#include "engine/engine.h"
#include "reader.h"
#include "session.h"

/* How long a topic is to be without a partition until this is believed. */
#define MISSING_MS 10000

static void
partition_init(Reader *reader, ReaderPartition *partition, int32 number)
{
	memset(partition, 0, sizeof(ReaderPartition));
	partition->partition = number;
	partition->high_offset = -1;
	partition->last_offset = -1;
	partition->max_event_time = DT_NOBEGIN;
	partition->first_event_time = DT_NOEND;
	partition->others = DT_NOBEGIN;
	partition->last_timestamp = SE_NO_TIMESTAMP;
	partition->last_arrival = GetCurrentTimestamp();
}

TimestampTz
se_partition_watermark(const Reader *reader, const ReaderPartition *partition)
{
	if (partition->max_event_time == DT_NOBEGIN)
		return DT_NOBEGIN;
	return se_time_before(partition->max_event_time, reader->stream->options.watermark_delay);
}

/* After the committed watermarks or idle flags have changed. */
static void
set_others(Reader *reader)
{
	for (int i = 0; i < reader->npartitions; i++)
	{
		TimestampTz others = DT_NOEND;

		for (int j = 0; j < reader->npartitions; j++)
			if (j != i && !reader->partitions[j].idle)
				others = Min(others, se_partition_watermark(reader, &reader->partitions[j]));
		reader->partitions[i].others = others;
	}
}

static void
grow(Reader *reader, int npartitions)
{
	if (npartitions <= reader->npartitions)
		return;
	if (reader->partitions == NULL)
		reader->partitions = MemoryContextAlloc(reader->context,
												sizeof(ReaderPartition) * npartitions);
	else
		reader->partitions = repalloc(reader->partitions, sizeof(ReaderPartition) * npartitions);
	for (int i = reader->npartitions; i < npartitions; i++)
		partition_init(reader, &reader->partitions[i], i);
	for (int q = 0; q < reader->nqueries; q++)
	{
		ReaderQuery *query = &reader->queries[q];

		if (query->counters == NULL)
			query->counters = MemoryContextAllocZero(reader->context,
													 sizeof(QueryCounters) * npartitions);
		else
		{
			query->counters = repalloc(query->counters, sizeof(QueryCounters) * npartitions);
			memset(query->counters + reader->npartitions, 0,
				   sizeof(QueryCounters) * (npartitions - reader->npartitions));
		}
	}
	reader->npartitions = npartitions;
}

/* Read the reader's rows; inside a transaction with a snapshot. */
void
se_partitions_load(Reader *reader)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		key = Int32GetDatum(reader->def->id);

	se_catalog_begin(&scope);
	se_spi("SELECT partition, start_offset, next_offset, complete, max_event_time,"
		   " first_event_time, idle, last_offset, last_timestamp, last_checksum,"
		   " problem IS NOT NULL OR gone, gone"
		   " FROM stream_engine.reader_partition WHERE reader = $1 ORDER BY partition",
		   1, &type, &key, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		ReaderPartition *partition;
		Datum		value;
		bool		isnull;
		int32		number = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));

		grow(reader, number + 1);
		partition = &reader->partitions[number];
		partition->stored = true;
		partition->start_offset = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
		partition->next_offset = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		partition->complete = DatumGetBool(SPI_getbinval(tuple, desc, 4, &isnull));
		partition->max_event_time = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 5, &isnull));
		value = SPI_getbinval(tuple, desc, 6, &isnull);
		if (!isnull)
			partition->first_event_time = DatumGetTimestampTz(value);
		partition->idle = DatumGetBool(SPI_getbinval(tuple, desc, 7, &isnull));
		if (partition->idle)
			partition->last_arrival -= reader->stream->options.idle_timeout;
		value = SPI_getbinval(tuple, desc, 8, &isnull);
		if (!isnull)
			partition->last_offset = DatumGetInt64(value);
		value = SPI_getbinval(tuple, desc, 9, &isnull);
		if (!isnull)
			partition->last_timestamp = DatumGetTimestampTz(value);
		value = SPI_getbinval(tuple, desc, 10, &isnull);
		if (!isnull)
			partition->last_checksum = (uint32) DatumGetInt64(value);
		partition->lost = DatumGetBool(SPI_getbinval(tuple, desc, 11, &isnull));
		partition->gone = DatumGetBool(SPI_getbinval(tuple, desc, 12, &isnull));
		partition->unverified = partition->last_offset >= 0 && !partition->lost;
	}
	se_catalog_end(&scope);
	reader->watermark = reader->def->watermark;
	reader->idle_closed = DT_NOBEGIN;
	set_others(reader);
}

/*
 * Ask the source why last records of the partitions that it has were not to be had.  May raise
 * its errors.
 */
static void
ask_for_unfound(Reader *reader, int npartitions, int timeout_ms)
{
	for (int i = 0; i < Min(reader->npartitions, npartitions); i++)
	{
		ReaderPartition *partition = &reader->partitions[i];
		int64		low;
		int64		high;

		if (!partition->unfound)
			continue;
		reader->routine->offsets(reader->source, i, timeout_ms, &low, &high);
		partition->unfound = false;
		/* a log that has grown since may have a record there now: it is looked at again */
		if (high < partition->next_offset)
			partition->lost = true;
		else if (low > partition->last_offset)
			partition->unverified = false;
		reader->assign_wanted = true;
	}
}

/* Inside a transaction with a snapshot. */
static void
store_problem(Reader *reader, int32 number, const char *problem)
{
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, INT4OID, TEXTOID};
	Datum		values[3];

	reader->partitions[number].lost = true;
	reader->partitions[number].gone = false;
	reader->assign_wanted = true;
	values[0] = Int32GetDatum(reader->def->id);
	values[1] = Int32GetDatum(number);
	values[2] = CStringGetTextDatum(problem);
	se_catalog_begin(&scope);
	se_spi("UPDATE stream_engine.reader_partition SET problem = $3, gone = false"
		   " WHERE reader = $1 AND partition = $2", 3, types, values, NULL, SPI_OK_UPDATE);
	se_catalog_end(&scope);
}

/*
 * A topic that was made anew with fewer partitions stops those that it has not any more, until
 * the operator has decided to go on without them; and again when it has them after that.  Not at
 * once: a broker may not have heard of partitions that others tell of.
 */
static void
note_missing(Reader *reader, int npartitions)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < reader->npartitions; i++)
	{
		ReaderPartition *partition = &reader->partitions[i];

		if (i < npartitions)
		{
			partition->missing_since = 0;
			if (partition->gone)
				store_problem(reader, i, psprintf("partition %d is in the topic again, without which the stream has gone on",
												  i));
		}
		else if (partition->missing_since == 0)
			partition->missing_since = now;
		else if (!partition->lost &&
				 TimestampDifferenceExceeds(partition->missing_since, now, MISSING_MS))
		{
			store_problem(reader, i, psprintf("partition %d is not in the topic any more, which has %d: the topic was made anew",
											  i, npartitions));
			partition->unverified = partition->unfound = false;
		}
	}
}

/*
 * Ask the source how many partitions there are, and take in new ones: those of
 * a reader that has no positions yet begin at its start, later ones at their
 * beginning.  Returns true if there are new ones: the caller commits before it
 * reads from them, for they have a part in W from now on, and the ledger must
 * say so.  Raises the source's errors.
 */
bool
se_partitions_discover(Reader *reader, int timeout_ms)
{
	int			known = reader->npartitions;
	int			npartitions = reader->routine->partitions(reader->source, timeout_ms);
	int64	   *lows;

	ask_for_unfound(reader, npartitions, timeout_ms);
	note_missing(reader, npartitions);
	if (npartitions <= known)
		return false;
	if (known == 0)
	{
		SePosition *positions;
		bool	   *complete;
		int64		nrecords;
		int			n = se_resolve_start(reader->stream, reader->def->start, timeout_ms,
										 &positions, &complete, &nrecords);

		grow(reader, n);
		for (int i = 0; i < n; i++)
		{
			reader->partitions[i].start_offset = positions[i].offset;
			reader->partitions[i].next_offset = positions[i].offset;
			reader->partitions[i].complete = complete[i];
			reader->partitions[i].dirty = true;
		}
		set_others(reader);
		return n > 0;
	}
	/* ask before they are taken in: the source may raise */
	lows = palloc(sizeof(int64) * npartitions);
	for (int i = known; i < npartitions; i++)
	{
		int64		high;

		reader->routine->offsets(reader->source, i, timeout_ms, &lows[i], &high);
	}
	grow(reader, npartitions);
	for (int i = known; i < npartitions; i++)
	{
		reader->partitions[i].start_offset = reader->partitions[i].next_offset = lows[i];
		reader->partitions[i].complete = true;
		reader->partitions[i].dirty = true;
	}
	set_others(reader);
	return true;
}

/*
 * What is read already goes on, and is at its end if it was.  Nothing that was
 * fetched may be held.
 */
void
se_partitions_assign(Reader *reader)
{
	SePosition *positions = palloc(sizeof(SePosition) * Max(reader->npartitions, 1));
	int			n = 0;

	for (int i = 0; i < reader->npartitions; i++)
	{
		const ReaderPartition *partition = &reader->partitions[i];

		if (partition->lost)
			continue;
		positions[n].partition = i;
		positions[n].offset = partition->next_offset;
		if (partition->unverified)
		{
			positions[n].offset = partition->last_offset;
			reader->verifying = true;
		}
		n++;
	}
	reader->routine->assign(reader->source, positions, n);
	reader->assign_wanted = false;
	pfree(positions);
}

/*
 * The log behind a partition's position, or all partitions' (-1), may be another
 * one: look at the last record again before any other is taken.
 */
static void
doubt(Reader *reader, int32 number)
{
	for (int i = 0; i < reader->npartitions; i++)
	{
		ReaderPartition *partition = &reader->partitions[i];

		if ((number >= 0 && number != i) || partition->lost || partition->unverified ||
			partition->last_offset < 0)
			continue;
		partition->unverified = true;
		partition->caught_up = false;
		reader->assign_wanted = true;
	}
}

/*
 * Whether a record that lies before the position is the one that was read there.
 * Where there was none there still is none.
 */
static bool
is_record_read(const ReaderPartition *partition, const SeRecord *record)
{
	return record->offset == partition->last_offset &&
		record->timestamp == partition->last_timestamp &&
		se_record_checksum(record) == partition->last_checksum;
}

/* Of an unverified or stopped partition: whether the event is for the caller. */
static bool
check_event(Reader *reader, ReaderPartition *partition, const SeSourceEvent *event)
{
	bool		positional = event->kind == SE_EVENT_EOF || event->kind == SE_EVENT_OFFSET_LOST ||
		event->kind == SE_EVENT_DATA;

	if (partition->lost)
		return !positional;
	if (!positional)
		return true;
	partition->unverified = false;
	if (event->offset >= partition->next_offset)
		return true;

	/* the last record cannot be had: has retention taken it, or is this another log */
	if (reader->routine->keeps_ends)
		partition->unverified = partition->unfound = true;
	else
		reader->assign_wanted = true;
	return false;
}

static void
another_log(SeSourceBatch *batch, const ReaderPartition *partition)
{
	SeSourceEvent *event = &batch->events[batch->nevents++];

	memset(event, 0, sizeof(*event));
	event->kind = SE_EVENT_OFFSET_LOST;
	event->partition = partition->partition;
	event->offset = partition->next_offset;
	event->sqlstate = ERRCODE_NO_DATA_FOUND;
	snprintf(event->message, sizeof(event->message),
			 "the records of partition %d before offset " INT64_FORMAT " are not those that were "
			 "read: the topic was made anew, or has lost its end", partition->partition,
			 partition->next_offset);
}

static bool
is_fault(const SeSourceEvent *event)
{
	return event->kind == SE_EVENT_DATA || event->kind == SE_EVENT_OFFSET_LOST;
}

/* A partition stops in front of what cannot be had, whatever comes after it. */
static void
leave_out_behind_faults(SeSourceBatch *batch)
{
	for (int i = 0; i < batch->nevents; i++)
	{
		const SeSourceEvent *event = &batch->events[i];
		int			n = 0;

		if (!is_fault(event))
			continue;
		for (int j = 0; j < batch->nrecords; j++)
			if (batch->records[j].partition != event->partition ||
				batch->records[j].offset < event->offset)
				batch->records[n++] = batch->records[j];
		batch->nrecords = n;
	}
}

/*
 * Whether records of a partition may have been left out of the batch.  Its end must not be
 * told then: the position would pass over them.
 */
static bool
has_left_out(const Reader *reader, const SeSourceBatch *batch, int32 number)
{
	if (reader->assign_wanted)
		return true;
	for (int i = 0; i < batch->nevents; i++)
		if (batch->events[i].partition == number && is_fault(&batch->events[i]))
			return true;
	return false;
}

/*
 * Leave out of the batch what its doubts are about: all that it holds of the
 * partitions concerned may be of the other log, and comes again.
 */
static void
take_doubts(Reader *reader, SeSourceBatch *batch)
{
	int			n = 0;

	for (int i = 0; i < batch->nevents; i++)
		if (batch->events[i].doubt)
			doubt(reader, batch->events[i].partition);
	if (reader->assign_wanted)
		batch->nrecords = 0;
	leave_out_behind_faults(batch);
	for (int i = 0; i < batch->nevents; i++)
	{
		const SeSourceEvent *event = &batch->events[i];

		if (event->doubt ? event->message[0] == '\0' :
			reader->assign_wanted && event->partition >= 0 &&
			reader->partitions[event->partition].unverified)
			continue;
		if (event->kind == SE_EVENT_EOF && has_left_out(reader, batch, event->partition))
			continue;
		if (n != i)
			batch->events[n] = *event;
		n++;
	}
	batch->nevents = n;
}

/*
 * Take the records that only identify the log out of what was fetched, and with
 * them all of a partition whose log is another one; an event tells of that.
 */
void
se_partitions_check(Reader *reader, SeSourceBatch *batch)
{
	int			n = 0;

	take_doubts(reader, batch);
	if (!reader->verifying)
		return;
	for (int i = 0; i < batch->nrecords; i++)
	{
		const SeRecord *record = &batch->records[i];
		ReaderPartition *partition = &reader->partitions[record->partition];

		if (partition->lost)
			continue;
		if (partition->unverified)
		{
			if (record->offset < partition->next_offset)
			{
				partition->lost = !is_record_read(partition, record);
				continue;
			}
			partition->unverified = false;
		}
		batch->records[n++] = *record;
	}
	batch->nrecords = n;

	n = 0;
	for (int i = 0; i < batch->nevents; i++)
	{
		const SeSourceEvent *event = &batch->events[i];
		ReaderPartition *partition = event->partition >= 0 ?
			&reader->partitions[event->partition] : NULL;

		if (partition == NULL || !(partition->unverified || partition->lost) ||
			check_event(reader, partition, event))
		{
			if (n != i)
				batch->events[n] = *event;
			n++;
		}
	}
	batch->nevents = n;

	reader->verifying = false;
	for (int i = 0; i < reader->npartitions; i++)
	{
		ReaderPartition *partition = &reader->partitions[i];

		if (partition->lost && partition->unverified && batch->nevents < SE_EVENTS_MAX)
		{
			another_log(batch, partition);
			partition->unverified = false;
			reader->assign_wanted = true;
		}
		if (partition->unverified)
			reader->verifying = true;
	}
}

/*
 * W and the idle flags as they would be committed now; "idle" has one element
 * a partition.  With processing time W is the clock, and nobody is waited for.
 */
TimestampTz
se_reader_watermark(Reader *reader, TimestampTz now, bool *idle)
{
	TimestampTz least = DT_NOEND;

	if (reader->stream->options.processing_time)
	{
		memset(idle, false, sizeof(bool) * reader->npartitions);
		return Max(reader->watermark, now);
	}
	for (int i = 0; i < reader->npartitions; i++)
	{
		ReaderPartition *partition = &reader->partitions[i];

		/* not in a commit of its own records: they may close windows */
		idle[i] = partition->gone ||
			(partition->caught_up && !partition->lost &&
			 partition->delta.records == 0 && partition->delta.decoded == 0 &&
			 now - partition->last_arrival >= reader->stream->options.idle_timeout);
		if (!idle[i])
			least = Min(least, se_partition_watermark(reader, partition));
	}
	/* nothing closes by itself when all are idle */
	if (least == DT_NOEND)
		return reader->watermark;
	return Max(reader->watermark, least);
}

/* When the last record came; DT_NOEND if some partition may still have one. */
static TimestampTz
last_arrival(const Reader *reader)
{
	TimestampTz last = DT_NOBEGIN;

	for (int i = 0; i < reader->npartitions; i++)
	{
		const ReaderPartition *partition = &reader->partitions[i];

		if (partition->gone)
			continue;
		if (!partition->caught_up || partition->lost)
			return DT_NOEND;
		last = Max(last, partition->last_arrival);
	}
	return last;
}

/* When idle_close will close the open windows; DT_NOEND if it will not. */
static TimestampTz
next_idle_close(const Reader *reader)
{
	TimestampTz last;

	if (reader->stream->options.idle_close < 0 || reader->stream->options.processing_time ||
		reader->npartitions == 0)
		return DT_NOEND;
	last = last_arrival(reader);
	if (last == DT_NOEND || last <= reader->idle_closed)
		return DT_NOEND;
	for (int i = 0; i < reader->nqueries; i++)
		if (reader->queries[i].next_close != DT_NOEND)
			return last + reader->stream->options.idle_close;
	return DT_NOEND;
}

/* When the last window of a query ends that holds a row; those without an end do not count. */
static TimestampTz
latest_end(ReaderQuery *query)
{
	TimestampTz latest = DT_NOBEGIN;
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;

	if (query->plan->window.kind == SE_WINDOW_SESSION)
		return se_session_latest_end(query);
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
		if (!TIMESTAMP_NOT_FINITE(slice->last_end))
			latest = Max(latest, slice->last_end);
	return latest;
}

/*
 * What W becomes by idle_close at "now": the end of the last open window;
 * DT_NOBEGIN if it is not time.  In the commit's transaction, with a snapshot.
 */
TimestampTz
se_partitions_idle_close(Reader *reader, TimestampTz now)
{
	TimestampTz latest = DT_NOBEGIN;

	if (next_idle_close(reader) > now)
		return latest;
	for (int i = 0; i < reader->nqueries; i++)
		latest = Max(latest, latest_end(&reader->queries[i]));
	reader->idle_closed = last_arrival(reader);
	return latest;
}

/*
 * When W may move without a record: the next partition becomes idle, or
 * idle_close closes windows, or the clock that is W comes to the end of one.
 * DT_NOEND if it will not.
 */
TimestampTz
se_partitions_next_move(const Reader *reader)
{
	TimestampTz next = DT_NOEND;

	if (reader->stream->options.processing_time)
	{
		for (int i = 0; i < reader->nqueries; i++)
			next = Min(next, reader->queries[i].next_close);
		return next;
	}
	next = next_idle_close(reader);

	for (int i = 0; i < reader->npartitions; i++)
	{
		const ReaderPartition *partition = &reader->partitions[i];

		if (!partition->idle && partition->gone)
			next = DT_NOBEGIN;
		else if (!partition->idle && partition->caught_up && !partition->lost)
			next = Min(next, partition->last_arrival + reader->stream->options.idle_timeout);
	}
	return next;
}

/*
 * Whether the source knows of more behind what could be read of a partition than has been
 * stored: a transaction is open there.
 */
bool
se_partitions_end_moved(const Reader *reader)
{
	for (int i = 0; i < reader->npartitions; i++)
	{
		const ReaderPartition *partition = &reader->partitions[i];

		if (partition->caught_up && !partition->lost &&
			reader->routine->cached_high(reader->source, i) >
			Max(partition->high_offset, partition->next_offset))
			return true;
	}
	return false;
}

void
se_partitions_committed(Reader *reader, TimestampTz watermark, const bool *idle)
{
	reader->watermark = watermark;
	for (int i = 0; i < reader->npartitions; i++)
	{
		ReaderPartition *partition = &reader->partitions[i];

		partition->idle = idle[i];
		partition->dirty = false;
		partition->stored = true;
		memset(&partition->delta, 0, sizeof(partition->delta));
	}
	set_others(reader);
}

/* Write the rows that have changed; in a catalog scope. */
void
se_partitions_commit(Reader *reader)
{
	static SPIPlanPtr plan = NULL;

	if (plan == NULL)
	{
		Oid			types[] = {INT4OID, INT4OID, INT8OID, INT8OID, BOOLOID, TIMESTAMPTZOID,
			TIMESTAMPTZOID, BOOLOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID,
		INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID, BOOLOID};

		plan = SPI_prepare("INSERT INTO stream_engine.reader_partition AS p"
						   " (reader, partition, start_offset, next_offset, complete, max_event_time,"
						   " first_event_time, idle, records, gaps, decoded, dead, future, tombstones,"
						   " skipped, last_offset, last_timestamp, last_checksum, high_offset)"
						   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
						   " $16, $17, $18, $19)"
						   " ON CONFLICT (reader, partition) DO UPDATE SET next_offset = $4,"
						   " max_event_time = $6, first_event_time = $7, idle = $8,"
						   " records = p.records + $9, gaps = p.gaps + $10, decoded = p.decoded + $11,"
						   " dead = p.dead + $12, future = p.future + $13,"
						   " tombstones = p.tombstones + $14, skipped = p.skipped + $15,"
						   " last_offset = $16, last_timestamp = $17, last_checksum = $18,"
						   " high_offset = $19, problem = CASE WHEN $20 THEN p.problem END",
						   lengthof(types), types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare the update of partitions");
	}
	for (int i = 0; i < reader->npartitions; i++)
	{
		ReaderPartition *partition = &reader->partitions[i];
		const PartitionCounters *delta = &partition->delta;
		Datum		values[20];
		char		nulls[] = "                    ";
		int			n = 0;

		if (!partition->dirty)
			continue;
		values[n++] = Int32GetDatum(reader->def->id);
		values[n++] = Int32GetDatum(partition->partition);
		values[n++] = Int64GetDatum(partition->start_offset);
		values[n++] = Int64GetDatum(partition->next_offset);
		values[n++] = BoolGetDatum(partition->complete);
		values[n++] = TimestampTzGetDatum(partition->max_event_time);
		if (partition->first_event_time == DT_NOEND)
			nulls[n] = 'n';
		values[n++] = TimestampTzGetDatum(partition->first_event_time);
		values[n++] = BoolGetDatum(partition->idle);
		values[n++] = Int64GetDatum(delta->records);
		values[n++] = Int64GetDatum(delta->gaps);
		values[n++] = Int64GetDatum(delta->decoded);
		values[n++] = Int64GetDatum(delta->dead);
		values[n++] = Int64GetDatum(delta->future);
		values[n++] = Int64GetDatum(delta->tombstones);
		values[n++] = Int64GetDatum(delta->skipped);
		if (partition->last_offset < 0)
			nulls[n] = nulls[n + 2] = 'n';
		values[n++] = Int64GetDatum(partition->last_offset);
		if (partition->last_timestamp == SE_NO_TIMESTAMP)
			nulls[n] = 'n';
		values[n++] = TimestampTzGetDatum(partition->last_timestamp);
		values[n++] = Int64GetDatum((int64) partition->last_checksum);
		if (partition->high_offset < 0)
			nulls[n] = 'n';
		values[n++] = Int64GetDatum(partition->high_offset);
		values[n++] = BoolGetDatum(partition->lost);
		if (SPI_execute_plan(plan, values, nulls, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not store the position of partition %d", i);
	}
}

/*
 * Make a problem of a partition visible, in a transaction of its own; the
 * partition is not read until the operator has decided.
 */
void
se_partition_problem(Reader *reader, int32 number, const char *problem)
{
	reader->partitions[number].lost = true;
	reader->assign_wanted = true;
	if (!se_worker_begin())
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	store_problem(reader, number, problem);
	PopActiveSnapshot();
	se_worker_commit();
	ereport(LOG,
			(errmsg("partition %d of stream %s has stopped: %s", number, reader->stream->name,
					problem)));
}
