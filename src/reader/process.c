/*
 * process.c
 *	  From a batch of records to groups in memtables.
 *
 * NOTES
 *	  First the whole batch is decoded and each record judged for the stream:
 *	  good, bad, future; good ones advance their partition's watermark, and each
 *	  gets the watermark that it will be judged with (see partitions.c).  Then
 *	  each query filters the good records, finds their slices, sets late ones
 *	  aside, and updates its groups, one slice after the other, aggregate by
 *	  aggregate.
 *
 *	  A window's end is compared with the record's own watermark, so a record
 *	  behind the watermark counts as long as one of its windows is open.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "engine/engine.h"
#include "global.h"
#include "key_size.h"
#include "reader.h"
#include "row_zone.h"
#include "session.h"

ReaderBlame se_blame;

/* Scratch of a batch; a worker is one process and one thread. */
static int	good_rows[SE_BATCH_MAX];
static TimestampTz row_watermark[SE_BATCH_MAX];
static int	begun_rows[SE_BATCH_MAX];
static int	query_rows[SE_BATCH_MAX];
static int	slice_rows[SE_BATCH_MAX];
static int	added_rows[SE_BATCH_MAX];
static OpenSlice *row_slice[SE_BATCH_MAX];
static int	partly_late[SE_BATCH_MAX];	/* positions in row_slice */
static OpenSlice *touched[SE_BATCH_MAX];
static SeGroup *groups[SE_BATCH_MAX];
static bool replaying;			/* the records have been read before */
static TimestampTz judged_at;	/* by one clock, though some may be judged twice */

/* ---- slices ---- */

static SeMemtable *
take_memtable(ReaderQuery *query)
{
	SeMemtable *table;

	if (query->spare == NIL)
		return se_memtable_create(query->layout, query->context, query->expected_groups);
	table = llast(query->spare);
	query->spare = list_delete_last(query->spare);
	return table;
}

/* Find or make a slice's entry, with the bounds of its windows. */
OpenSlice *
se_slice_get(ReaderQuery *query, TimestampTz start, TimestampTz end)
{
	TimestampTz key[2] = {start, end};
	bool		found;
	OpenSlice  *slice = hash_search(query->slices, key, HASH_ENTER, &found);

	if (!found)
	{
		SeWindowIterator iterator;
		SeWindowBounds window;

		memset((char *) slice + sizeof(key), 0, sizeof(OpenSlice) - sizeof(key));
		slice->first_end = DT_NOEND;
		slice->last_end = DT_NOBEGIN;
		slice->last_start = DT_NOBEGIN;
		if (query->plan->window.kind == SE_WINDOW_GLOBAL)
		{
			/* never closes, and is never incomplete */
			slice->last_end = slice->last_start = DT_NOEND;
			return slice;
		}
		se_window_iterate(&iterator, &query->plan->window, start, end, NULL);
		while (se_window_next(&iterator, &window))
		{
			slice->first_end = Min(slice->first_end, window.end);
			slice->last_end = Max(slice->last_end, window.end);
			slice->last_start = Max(slice->last_start, window.start);
		}
	}
	return slice;
}

/* The earliest end, after closed_through, of the windows of a slice. */
static TimestampTz
slice_next_close(const ReaderQuery *query, const OpenSlice *slice)
{
	SeWindowIterator iterator;
	SeWindowBounds window;

	if (slice->first_end > query->closed_through)
		return slice->first_end;
	se_window_iterate(&iterator, &query->plan->window, slice->start, slice->end, NULL);
	while (se_window_next(&iterator, &window))
		if (window.end > query->closed_through)
			return window.end;
	return DT_NOEND;
}

/* The same over all open slices. */
void
se_query_next_close(ReaderQuery *query)
{
	HASH_SEQ_STATUS status;
	OpenSlice  *slice;
	bool		walked = false;

	if (query->plan->window.kind == SE_WINDOW_SESSION)
	{
		query->next_close = se_session_next_close(query);
		return;
	}
	query->next_close = DT_NOEND;
	hash_seq_init(&status, query->slices);
	while ((slice = hash_seq_search(&status)) != NULL)
	{
		/* slices that have windows on both sides have the same one next */
		bool		spans = slice->first_end <= query->closed_through;

		if (slice->last_end <= query->closed_through || (spans && walked))
			continue;
		walked |= spans;
		query->next_close = Min(query->next_close, slice_next_close(query, slice));
	}
}

/* ---- the stream's part ---- */

typedef struct Verdict
{
	/* key */
	int32		partition;
	int32		padding;
	int64		offset;
	char		reason;			/* 'f'uture, 's'kipped */
} Verdict;

static char
earlier_verdict(Reader *reader, const SeRecord *record)
{
	Verdict		key = {record->partition, 0, record->offset, 0};
	Verdict    *verdict;

	if (reader->verdicts == NULL)
		return 0;
	verdict = hash_search(reader->verdicts, &key, HASH_FIND, NULL);
	return verdict ? verdict->reason : 0;
}

static void
want_pause(Reader *reader, const SeRecord *record, int sqlstate, const char *message)
{
	reader->pause_wanted = true;
	reader->pause_partition = record->partition;
	reader->pause_offset = record->offset;
	strlcpy(reader->pause_message, message, sizeof(reader->pause_message));
	strlcpy(reader->pause_sqlstate, unpack_sql_state(sqlstate), sizeof(reader->pause_sqlstate));
}

/* A bad record.  False: the stream stops in front of it. */
static bool
bad_record(Reader *reader, ReaderPartition *partition, const SeRecord *record,
		   const SeRowError *error, TimestampTz now)
{
	const SeStreamOptions *options = &reader->stream->options;

	if (strcmp(options->on_error, "pause") == 0)
	{
		want_pause(reader, record, error->sqlstate, error->message);
		return false;
	}
	if (now - reader->minute >= USECS_PER_MINUTE)
	{
		reader->minute = now;
		reader->bad_this_minute = 0;
	}
	if (options->on_error_limit >= 0 && reader->bad_this_minute >= options->on_error_limit)
	{
		want_pause(reader, record, error->sqlstate,
				   psprintf("more than %d bad records in a minute, the last: %s",
							options->on_error_limit, error->message));
		return false;
	}
	reader->bad_this_minute++;
	if (strcmp(options->on_error, "skip") == 0)
		partition->delta.skipped++;
	else
	{
		partition->delta.dead++;
		se_pending_dead(reader->pending, record, "bad", error->sqlstate, error->message,
						error->column);
	}
	return true;
}

static void
future_record(Reader *reader, ReaderPartition *partition, const SeRecord *record, TimestampTz t)
{
	partition->delta.future++;
	se_pending_dead(reader->pending, record, "future", ERRCODE_DATETIME_FIELD_OVERFLOW,
					psprintf("event time %s lies more than max_future in the future",
							 timestamptz_to_str(t)), NULL);
}

/*
 * A good record, which is row "row" of the batch: it is judged with the watermark
 * in front of it, and then advances its partition.
 */
static void
accept_record(Reader *reader, ReaderPartition *partition, TimestampTz t, int row)
{
	row_watermark[row] = Max(reader->watermark,
							 Min(se_partition_watermark(reader, partition), partition->others));
	partition->delta.decoded++;
	if (t > partition->max_event_time)
		partition->max_event_time = t;
	if (partition->first_event_time == DT_NOEND)
		partition->first_event_time = t;
}

/*
 * With processing time, when a record was read: a clock that is set back does not make it late,
 * whether what came before has been committed or not.
 */
static inline TimestampTz
read_at(const Reader *reader, const ReaderPartition *partition, TimestampTz now)
{
	return Max(now, Max(reader->watermark, partition->max_event_time));
}

/* Other readers may have found records of this batch in the future, earlier. */
static void
learn_verdicts(Reader *reader, const SeBatch *batch, const int64 *event_time, int nrecords)
{
	TimestampTz latest = DT_NOBEGIN;

	for (int i = 0; i < nrecords; i++)
		if (batch->verdict[i] == SE_RECORD_OK)
			latest = Max(latest, event_time[i]);
	if (latest > reader->verdicts_until && !reader->verdicts_fresh)
	{
		se_load_verdicts(reader);
		reader->verdicts_fresh = true;
	}
}

/* Of the bytes of a record; with its timestamp it tells whether an offset has it still. */
uint32
se_record_checksum(const SeRecord *record)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	if (record->key)
		COMP_CRC32C(crc, record->key, record->key_len);
	if (record->payload)
		COMP_CRC32C(crc, record->payload, record->payload_len);
	FIN_CRC32C(crc);
	return crc;
}

/*
 * Judge records[0..n-1], advance partitions; fills good_rows and row_watermark.
 * Returns the number of good rows.
 */
static int
judge_batch(Reader *reader, SeBatch *batch, const SeRecord *records, int nrecords)
{
	int64	   *event_time = batch->columns[reader->stream->event_time - 1].v.i64;
	TimestampTz now = judged_at;
	bool		processing_time = reader->stream->options.processing_time;
	TimestampTz latest = processing_time ? DT_NOEND : now + reader->stream->options.max_future;
	int			ngood = 0;
	int			error = 0;
	const ReaderPartition *identified = NULL;

	if (!processing_time)
		learn_verdicts(reader, batch, event_time, nrecords);
	for (int i = 0; i < nrecords; i++)
	{
		const SeRecord *record = &records[i];
		ReaderPartition *partition = &reader->partitions[record->partition];
		uint8		verdict = batch->verdict[i];
		char		earlier;

		if (record->offset < partition->next_offset)
		{
			if (verdict == SE_RECORD_BAD)
				error++;
			continue;
		}
		earlier = earlier_verdict(reader, record);
		if (earlier == 's')
		{
			partition->delta.skipped++;
			se_pending_dead(reader->pending, record, "skipped", 0, NULL, NULL);
		}
		else if (earlier == 'f')
			partition->delta.future++;
		else if (verdict == SE_RECORD_TOMBSTONE)
			partition->delta.tombstones++;
		else if (verdict == SE_RECORD_BAD)
		{
			Assert(error < batch->nerrors && batch->errors[error].row == i);
			if (!bad_record(reader, partition, record, &batch->errors[error], now))
				break;
		}
		else if (event_time[i] > latest)
			future_record(reader, partition, record, event_time[i]);
		else
		{
			if (processing_time)
				event_time[i] = read_at(reader, partition, event_time[i]);
			accept_record(reader, partition, event_time[i], i);
			good_rows[ngood++] = i;
		}
		if (verdict == SE_RECORD_BAD)
			error++;
		partition->delta.records++;
		partition->delta.gaps += record->offset - partition->next_offset;
		partition->next_offset = record->offset + 1;
		partition->last_offset = record->offset;
		partition->last_timestamp = record->timestamp;
		partition->last_arrival = now;
		partition->caught_up = false;
		partition->dirty = true;
	}

	/* the last record of each partition identifies the log */
	for (int i = nrecords - 1; i >= 0; i--)
	{
		const SeRecord *record = &records[i];
		ReaderPartition *partition = &reader->partitions[record->partition];

		if (partition != identified && record->offset == partition->last_offset)
		{
			partition->last_checksum = se_record_checksum(record);
			identified = partition;
		}
	}
	return ngood;
}

/*
 * The same for records that were bad when they came: they have been counted,
 * and the position stays.  What is bad again has one more dead letter.
 */
static int
judge_replayed(Reader *reader, SeBatch *batch, const SeRecord *records, int nrecords)
{
	int64	   *event_time = batch->columns[reader->stream->event_time - 1].v.i64;
	bool		processing_time = reader->stream->options.processing_time;
	TimestampTz latest = processing_time ? DT_NOEND :
		judged_at + reader->stream->options.max_future;
	int			ngood = 0;
	int			error = 0;

	for (int i = 0; i < nrecords; i++)
	{
		const SeRecord *record = &records[i];
		ReaderPartition *partition = &reader->partitions[record->partition];

		if (batch->verdict[i] == SE_RECORD_BAD)
		{
			const SeRowError *why = &batch->errors[error++];

			se_pending_dead(reader->pending, record, "bad", why->sqlstate, why->message,
							why->column);
			continue;
		}
		partition->dirty = true;
		partition->delta.dead--;
		if (batch->verdict[i] == SE_RECORD_TOMBSTONE)
			partition->delta.tombstones++;
		else if (event_time[i] > latest)
			future_record(reader, partition, record, event_time[i]);
		else
		{
			if (processing_time)
				event_time[i] = read_at(reader, partition, event_time[i]);
			accept_record(reader, partition, event_time[i], i);
			good_rows[ngood++] = i;
		}
	}
	return ngood;
}

/* ---- a query's part ---- */

/*
 * The slice for a record that comes too late for some windows of "slice".  It
 * is longer: it ends with the first window that takes the record, so that it lies
 * in just those windows that do, whenever they are emitted.
 */
static OpenSlice *
rest_of_slice(ReaderQuery *query, const OpenSlice *slice, TimestampTz watermark)
{
	SeWindowIterator iterator;
	SeWindowBounds window;

	se_window_iterate(&iterator, &query->plan->window, slice->start, slice->end, NULL);
	while (se_window_next(&iterator, &window) && se_query_refuses(query, window.end, watermark))
		;
	return se_slice_get(query, slice->start, window.end);
}

/* Forget the entry of a slice that has no rows.  True if it is gone. */
static bool
forget_empty_slice(ReaderQuery *query, OpenSlice *slice)
{
	TimestampTz key[2] = {slice->start, slice->end};

	if (slice->table != NULL || slice->nruns > 0 || slice->batch_rows > 0)
		return false;
	hash_search(query->slices, key, HASH_REMOVE, NULL);
	return true;
}

/*
 * Find the slices of rows[0..n-1]; late rows and those before the first
 * complete window drop out.  Fills row_slice and partly_late, by position, and touched;
 * returns how many rows are left.
 */
static int
assign_slices(Reader *reader, ReaderQuery *query, const SeBatch *batch, const SeRecord *records,
			  int *rows, int n, int *ntouched, int *npartly)
{
	const int64 *event_time = batch->columns[query->plan->time_column - 1].v.i64;
	OpenSlice  *slice = query->last_slice;
	int			kept = 0;

	*ntouched = *npartly = 0;
	for (int i = 0; i < n; i++)
	{
		int			row = rows[i];
		TimestampTz t = event_time[row];
		OpenSlice  *target;
		bool		complete;

		if (slice == NULL || t < slice->start || t >= slice->end || query->plan->zone_column != 0)
		{
			const pg_tz *zone;
			TimestampTz start;
			TimestampTz end;

			if (!se_zone_of_row(reader, query, batch, &records[row], row, &zone))
				continue;
			if (!se_window_slice(&query->plan->window, t, zone, &start, &end))
			{
				se_time_fails(reader, query, &records[row]);
				continue;
			}
			slice = se_slice_get(query, start, end);
		}
		query->counters[records[row].partition].dirty = true;
		complete = slice->last_start >= query->def->complete_from || query->def->emit_partial ||
			se_slice_has_emitted(query, slice, &row_watermark[row]);
		if (se_query_refuses(query, slice->last_end, row_watermark[row]) ||
			(!complete && se_slice_has_emitted(query, slice, NULL)))
		{
			se_late_in_slice(reader, query, slice, &records[row], t, row_watermark[row]);
			if (forget_empty_slice(query, slice))
				slice = NULL;
			continue;
		}
		if (!complete)
		{
			query->counters[records[row].partition].before_start++;
			continue;
		}
		target = slice;
		if (se_query_refuses(query, slice->first_end, row_watermark[row]))
		{
			target = rest_of_slice(query, slice, row_watermark[row]);
			partly_late[(*npartly)++] = kept;
			if (forget_empty_slice(query, slice))
				slice = NULL;
		}
		query->counters[records[row].partition].counted++;
		if (target->batch_rows++ == 0)
			touched[(*ntouched)++] = target;
		row_slice[kept] = target;
		rows[kept++] = row;
	}
	query->last_slice = slice;
	return kept;
}

/* Advance the aggregates of groups[i], which are in slice->table, with rows[i]. */
void
se_update_groups(ReaderQuery *query, const SeBatch *batch, OpenSlice *slice, const int *rows,
				 SeGroup **row_groups, int n)
{
	int			nhidden = se_hidden_aggregates(query->plan);

	for (int agg = 0; agg < query->plan->naggs; agg++)
	{
		const int  *agg_rows;
		SeGroup   **agg_groups;
		int			m = se_eval_aggregate_rows(query->eval, agg, rows, row_groups, n, &agg_rows,
											   &agg_groups);

		if (m > 0)
			se_memtable_update(slice->table, agg, se_eval_args(query->eval, agg), agg_rows, m,
							   agg_groups);
	}
	for (int i = 0; i < nhidden; i++)
		se_memtable_update(slice->table, query->plan->naggs + i,
						   &batch->columns[query->plan->time_column - 1], rows, n, row_groups);
}

static void
update_slice(ReaderQuery *query, const SeBatch *batch, OpenSlice *slice, const int *rows, int n)
{
	if (query->plan->window.kind == SE_WINDOW_SESSION)
	{
		if (slice->table == NULL)
			slice->table = take_memtable(query);
		se_session_touch(query, slice);
	}
	else if (slice->table == NULL)
	{
		slice->table = take_memtable(query);
		if (slice->nruns == 0)
			query->next_close = Min(query->next_close, slice_next_close(query, slice));
	}
	se_memtable_lookup(slice->table, se_eval_keys(query->eval), rows, n, groups);
	if (query->plan->window.kind == SE_WINDOW_GLOBAL && query->def->trigger_count > 0)
		se_global_update(query, batch, slice, rows, groups, n);
	else
		se_update_groups(query, batch, slice, rows, groups, n);
}

/*
 * Add row rows[i] to the groups of slices[i], for i below n <= SE_BATCH_MAX.  The rows of
 * a slice stay in their order.
 */
void
se_add_to_slices(ReaderQuery *query, const SeBatch *batch, const int *rows,
				 OpenSlice *const *slices, int n)
{
	int			ntouched = 0;
	int			at = 0;

	for (int i = 0; i < n; i++)
		if (slices[i]->batch_rows++ == 0)
			touched[ntouched++] = slices[i];
	for (int i = 0; i < ntouched; i++)
	{
		touched[i]->batch_start = at;
		at += touched[i]->batch_rows;
		touched[i]->batch_rows = 0;
	}
	for (int i = 0; i < n; i++)
		slice_rows[slices[i]->batch_start + slices[i]->batch_rows++] = rows[i];
	for (int i = 0; i < ntouched; i++)
	{
		update_slice(query, batch, touched[i], slice_rows + touched[i]->batch_start,
					 touched[i]->batch_rows);
		touched[i]->batch_rows = 0;
	}
}

/* A good record that this query cannot take. */
void
se_record_fails(Reader *reader, ReaderQuery *query, const SeRecord *record, const char *message)
{
	QueryCounters *counters = &query->counters[record->partition];

	counters->failed++;
	counters->dirty = true;
	se_pending_failed(reader->pending, query->def->id, record, message);
}

/* A record beyond the calendar: no window of the query can hold it. */
void
se_time_fails(Reader *reader, ReaderQuery *query, const SeRecord *record)
{
	se_record_fails(reader, query, record,
					"the event time is too near the end of the range of timestamps");
}

/* A key that the result table's index cannot hold: the record fails, for this query. */
bool
se_key_fails(Reader *reader, ReaderQuery *query, const SeRecord *record, int row)
{
	if (se_key_fits(query->plan, se_eval_keys(query->eval), row))
		return false;
	se_record_fails(reader, query, record,
					"the group key is too long for the index of the result table");
	return true;
}

/*
 * Add rows[0..n-1], whose keys and arguments have been evaluated, to the
 * groups of their slices, whatever the watermark.
 */
void
se_add_rows(Reader *reader, ReaderQuery *query, const SeBatch *batch, const SeRecord *records,
			const int *rows, int n)
{
	const int64 *event_time = batch->columns[query->plan->time_column - 1].v.i64;
	OpenSlice  *slice = query->last_slice;
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		int			row = rows[i];
		QueryCounters *counters = &query->counters[records[row].partition];
		TimestampTz start;
		TimestampTz end;

		counters->dirty = true;
		if (slice == NULL || event_time[row] < slice->start || event_time[row] >= slice->end)
		{
			if (!se_window_slice(&query->plan->window, event_time[row], NULL, &start, &end))
			{
				se_time_fails(reader, query, &records[row]);
				continue;
			}
			if (query->plan->window.kind == SE_WINDOW_SESSION)
				se_session_place(query, &start, &end);
			slice = se_slice_get(query, start, end);
		}
		if (query->long_keys && se_key_fails(reader, query, &records[row], row))
			continue;
		counters->counted++;
		row_slice[kept] = slice;
		added_rows[kept++] = row;
	}
	query->last_slice = slice;
	se_add_to_slices(query, batch, added_rows, row_slice, kept);
}

/* Take back rows that were assigned to slices and have such a key. */
static int
drop_long_keys(Reader *reader, ReaderQuery *query, const SeRecord *records, int *rows, int n)
{
	int			kept = 0;

	if (se_keys_are_short(query->plan, se_eval_keys(query->eval), rows, n))
		return n;
	for (int i = 0; i < n; i++)
	{
		const SeRecord *record = &records[rows[i]];

		if (se_key_fails(reader, query, record, rows[i]))
		{
			query->counters[record->partition].counted--;
			row_slice[i]->batch_rows--;
			continue;
		}
		row_slice[kept] = row_slice[i];
		rows[kept++] = rows[i];
	}
	return kept;
}

/* Count the good records that WHERE has not let pass. */
static void
count_filtered(ReaderQuery *query, const SeRecord *records, const int *good, int ngood,
			   const int *passed, int npassed)
{
	if (npassed == ngood)
		return;
	for (int i = 0; i < ngood; i++)
	{
		query->counters[records[good[i]].partition].filtered++;
		query->counters[records[good[i]].partition].dirty = true;
	}
	for (int i = 0; i < npassed; i++)
		query->counters[records[passed[i]].partition].filtered--;
}

/* Leave out replayed records that lie before the query's first offset; how many are left. */
static int
drop_before_begin(ReaderQuery *query, const SeRecord *records, int *rows, int n)
{
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		const SeRecord *record = &records[rows[i]];

		if (record->partition < query->nbegins &&
			record->offset < query->begins[record->partition])
		{
			query->counters[record->partition].before_start++;
			query->counters[record->partition].dirty = true;
		}
		else
			rows[kept++] = rows[i];
	}
	return kept;
}

/*
 * Returns the row of the batch that can be processed only after a commit, or
 * -1 when all were.
 */
static int
process_query(Reader *reader, ReaderQuery *query, SeBatch *batch, const SeRecord *records,
			  int ngood)
{
	SeUserScope scope;
	const int64 *event_time = batch->columns[query->plan->time_column - 1].v.i64;
	int			ntouched;
	int			npartly;
	int			n;
	int			at = 0;
	int			stop = -1;
	const int  *good = good_rows;

	if (replaying && query->begins != NULL)
	{
		memcpy(begun_rows, good_rows, sizeof(int) * ngood);
		ngood = drop_before_begin(query, records, begun_rows, ngood);
		good = begun_rows;
		if (ngood == 0)
			return stop;
	}
	se_blame.query = query;
	se_user_begin(&scope, query->def->owner, query->def->settings);
	memcpy(query_rows, good, sizeof(int) * ngood);
	n = se_eval_filter(query->eval, batch, query_rows, ngood);
	if (query->plan->window.kind != SE_WINDOW_SESSION)
		count_filtered(query, records, good, ngood, query_rows, n);
	se_set_complete_from(reader, query);
	if (query->plan->window.kind == SE_WINDOW_SESSION)
	{
		int			taken = se_session_process(reader, query, batch, records, query_rows, n,
											   row_watermark);

		if (taken < n)
		{
			int			upto = 0;

			stop = query_rows[taken];
			while (upto < ngood && good[upto] < stop)
				upto++;
			count_filtered(query, records, good, upto, query_rows, taken);
		}
		else
			count_filtered(query, records, good, ngood, query_rows, n);
		se_user_end(&scope);
		se_blame.query = NULL;
		return stop;
	}
	if (query->plan->window.by_window)
	{
		se_zoned_process(reader, query, batch, records, query_rows, n, row_watermark);
		se_user_end(&scope);
		se_blame.query = NULL;
		return stop;
	}
	n = assign_slices(reader, query, batch, records, query_rows, n, &ntouched, &npartly);
	if (n > 0)
	{
		se_eval_rows(query->eval, batch, query_rows, n);
		for (int i = 0; i < npartly; i++)
		{
			int			row = query_rows[partly_late[i]];

			if (!query->long_keys || se_key_fits(query->plan, se_eval_keys(query->eval), row))
				se_partly_late_record(reader, query, &records[row], event_time[row],
									  row_watermark[row]);
		}
		if (query->long_keys)
			n = drop_long_keys(reader, query, records, query_rows, n);
		if (ntouched == 1)
			update_slice(query, batch, touched[0], query_rows, n);
		else
		{
			/* order the rows by slice, keeping their order within each */
			for (int i = 0; i < ntouched; i++)
			{
				touched[i]->batch_start = at;
				at += touched[i]->batch_rows;
				touched[i]->batch_rows = 0;
			}
			for (int i = 0; i < n; i++)
				slice_rows[row_slice[i]->batch_start + row_slice[i]->batch_rows++] = query_rows[i];
			for (int i = 0; i < ntouched; i++)
				update_slice(query, batch, touched[i], slice_rows + touched[i]->batch_start,
							 touched[i]->batch_rows);
		}
		for (int i = 0; i < ntouched; i++)
			touched[i]->batch_rows = 0;
	}
	se_user_end(&scope);
	se_blame.query = NULL;
	return stop;
}

/*
 * Take records once more that came late for "query": windows take them as long as their
 * state is kept.  "event_time" receives the time of each, or DT_NOBEGIN for a record
 * that cannot be decoded any more; such are left out.  Inside the open cycle.
 */
void
se_process_late(Reader *reader, ReaderQuery *query, const SeRecord *records, int nrecords,
				TimestampTz *event_time)
{
	MemoryContext old = MemoryContextSwitchTo(reader->batch);
	int64		lateness = query->lateness;
	const int64 *times;
	SeUserScope scope;
	SeBatch    *batch;
	int			ngood = 0;

	MemoryContextReset(reader->batch);
	se_blame.records = records;
	se_eval_error_row = se_state_error_row = -1;
	se_user_begin(&scope, reader->stream->owner, NIL);
	se_source()->decoder_run(reader->decoder, records, nrecords);
	se_user_end(&scope);
	batch = se_source()->decoder_batch(reader->decoder);
	times = batch->columns[query->plan->time_column - 1].v.i64;
	for (int i = 0; i < nrecords; i++)
	{
		event_time[i] = DT_NOBEGIN;
		if (batch->verdict[i] != SE_RECORD_OK)
			continue;
		event_time[i] = times[i];
		row_watermark[i] = reader->watermark;
		good_rows[ngood++] = i;
	}
	replaying = false;
	if (ngood > 0)
	{
		query->lateness = se_query_retention(query);
		(void) process_query(reader, query, batch, records, ngood);
		query->lateness = lateness;
	}
	se_blame.records = NULL;
	reader->dirty = true;
	MemoryContextSwitchTo(old);
}

typedef int (*Judge) (Reader *reader, SeBatch *batch, const SeRecord *records, int nrecords);

/* What judging a batch changes, kept so that it can be done again for fewer records. */
typedef struct JudgeMark
{
	ReaderPartition *partitions;
	SePendingMark pending;
	TimestampTz minute;
	int64		bad_this_minute;
} JudgeMark;

static void
mark_judging(Reader *reader, JudgeMark *mark)
{
	Size		size = sizeof(ReaderPartition) * reader->npartitions;

	mark->partitions = palloc(size);
	memcpy(mark->partitions, reader->partitions, size);
	mark->pending = se_pending_mark(reader->pending);
	mark->minute = reader->minute;
	mark->bad_this_minute = reader->bad_this_minute;
}

static void
unjudge(Reader *reader, const JudgeMark *mark)
{
	memcpy(reader->partitions, mark->partitions, sizeof(ReaderPartition) * reader->npartitions);
	se_pending_rollback(reader->pending, mark->pending);
	reader->minute = mark->minute;
	reader->bad_this_minute = mark->bad_this_minute;
	reader->pause_wanted = false;
}

/*
 * Queries whose windows' ends depend on their rows, of which one may want a commit
 * in the middle of a batch.  Returns how many records were processed.
 *
 * The first session query that stops decides; the others, and those behind it,
 * process what lies before.  Rows of the stopped query before that record have
 * been taken, and no others.
 */
static int
process_sessions(Reader *reader, SeBatch *batch, const SeRecord *records, int nrecords,
				 Judge judge, const JudgeMark *mark, int *ngood)
{
	for (int i = 0; i < reader->nqueries; i++)
	{
		ReaderQuery *query = &reader->queries[i];
		TimestampTz complete_from = query->def->complete_from;
		int			nemitted = query->def->nemitted;
		int			stop;

		if (query->plan->window.kind != SE_WINDOW_SESSION || *ngood == 0)
			continue;
		stop = process_query(reader, query, batch, records, *ngood);
		if (stop >= 0)
		{
			/* its reader feeds no other query */
			nrecords = stop;
			unjudge(reader, mark);
			*ngood = judge(reader, batch, records, nrecords);
			/* the first record of a partition has no say in a commit before it */
			query->def->complete_from = complete_from;
			query->def->nemitted = nemitted;
			se_set_complete_from(reader, query);
			/* its partition is not idle: the commit must get as far as the record's watermark */
			reader->partitions[records[stop].partition].caught_up = false;
		}
	}
	return nrecords;
}

static int
process_records(Reader *reader, const SeRecord *records, int nrecords, Judge judge)
{
	MemoryContext old = MemoryContextSwitchTo(reader->batch);
	SeUserScope scope;
	SeBatch    *batch;
	int			ngood;
	JudgeMark	mark;

	MemoryContextReset(reader->batch);
	se_blame.records = records;
	se_eval_error_row = se_state_error_row = -1;
	PushActiveSnapshot(GetTransactionSnapshot());

	se_user_begin(&scope, reader->stream->owner, NIL);
	se_source()->decoder_run(reader->decoder, records, nrecords);
	se_user_end(&scope);
	batch = se_source()->decoder_batch(reader->decoder);

	replaying = judge == judge_replayed;
	judged_at = GetCurrentTimestamp();
	mark_judging(reader, &mark);
	ngood = judge(reader, batch, records, nrecords);
	nrecords = process_sessions(reader, batch, records, nrecords, judge, &mark, &ngood);
	if (reader->staging != NULL && ngood > 0)
		se_staging_insert(reader->staging, batch, good_rows, ngood);
	for (int i = 0; i < reader->nqueries && ngood > 0; i++)
		if (reader->queries[i].plan->window.kind != SE_WINDOW_SESSION)
		{
			(void) process_query(reader, &reader->queries[i], batch, records, ngood);
			if (reader->queries[i].plan->window.kind == SE_WINDOW_GLOBAL &&
				se_global_fires(&reader->queries[i]))
				reader->commit_wanted = true;
		}

	PopActiveSnapshot();
	se_blame.records = NULL;
	reader->dirty = true;
	MemoryContextSwitchTo(old);
	return nrecords;
}

/*
 * Process a batch inside the open cycle.  Returns how many records were
 * processed: when less than nrecords, the caller commits and comes again with the
 * others.  Raises whatever user code raises; the cycle is lost then.
 */
int
se_process_batch(Reader *reader, const SeRecord *records, int nrecords)
{
	return process_records(reader, records, nrecords, judge_batch);
}

/* The same for records that this reader has counted as dead. */
int
se_process_replayed(Reader *reader, const SeRecord *records, int nrecords)
{
	return process_records(reader, records, nrecords, judge_replayed);
}
