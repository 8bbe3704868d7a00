/*
 * side.c
 *	  Collect late records and dead letters, write them at commit.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/jsonb.h"
#include "utils/rangetypes.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "catalog/definitions.h"
#include "compat/compat.h"
#include "side.h"

/* One row of late_event or dead_letter. */
typedef struct PendingRow
{
	int32		query;			/* late record; 0: dead letter */
	int32		partition;
	int64		offset;
	TimestampTz timestamp;		/* SE_NO_TIMESTAMP: none */
	bytea	   *key;			/* NULL: none */
	bytea	   *payload;
	Jsonb	   *headers;		/* NULL: none, or the row is of a failed record */
	/* late */
	TimestampTz event_time;
	TimestampTz watermark;
	int			nwindows;
	SeWindowBounds *windows;
	bool		partly;			/* other windows took it */
	/* dead */
	const char *reason;
	char	   *sqlstate;
	char	   *message;
	char	   *column;
} PendingRow;

struct SePending
{
	MemoryContext context;
	Size		bytes;
	List	   *rows;			/* of PendingRow */
};

SePending *
se_pending_create(MemoryContext context)
{
	SePending  *pending = MemoryContextAllocZero(context, sizeof(SePending));

	pending->context = context;
	return pending;
}

Size
se_pending_memory(const SePending *pending)
{
	return pending->bytes;
}

int
se_pending_rows(const SePending *pending)
{
	return list_length(pending->rows);
}

SePendingMark
se_pending_mark(const SePending *pending)
{
	SePendingMark mark = {list_length(pending->rows), pending->bytes};

	return mark;
}

void
se_pending_rollback(SePending *pending, SePendingMark mark)
{
	MemoryContext old = MemoryContextSwitchTo(pending->context);
	List	   *kept = NIL;

	for (int i = 0; i < list_length(pending->rows); i++)
	{
		PendingRow *row = list_nth(pending->rows, i);

		if (i < mark.rows || row->query != 0)
			kept = lappend(kept, row);
	}
	list_free(pending->rows);
	pending->rows = kept;
	pending->bytes = Max(pending->bytes, mark.bytes);
	MemoryContextSwitchTo(old);
}

static bytea *
copy_bytes(SePending *pending, const char *data, int32 length)
{
	bytea	   *copy;

	if (data == NULL)
		return NULL;
	copy = palloc(VARHDRSZ + length);
	SET_VARSIZE(copy, VARHDRSZ + length);
	memcpy(VARDATA(copy), data, length);
	pending->bytes += VARHDRSZ + length;
	return copy;
}

/* A second try wants them. */
static Jsonb *
copy_headers(SePending *pending, const SeRecord *record)
{
	Jsonb	   *headers;

	if (record->handle == NULL)
		return NULL;
	headers = DatumGetJsonbPCopy(se_source()->record_headers(record));
	if (JB_ROOT_COUNT(headers) == 0)
		return NULL;
	pending->bytes += VARSIZE(headers);
	return headers;
}

static PendingRow *
add_row(SePending *pending, const SeRecord *record)
{
	PendingRow *row = palloc0(sizeof(PendingRow));

	row->partition = record->partition;
	row->offset = record->offset;
	row->timestamp = record->timestamp;
	row->key = copy_bytes(pending, record->key, record->key_len);
	row->payload = copy_bytes(pending, record->payload, record->payload_len);
	pending->rows = lappend(pending->rows, row);
	pending->bytes += sizeof(PendingRow) + sizeof(ListCell);
	return row;
}

static void
add_late(SePending *pending, int32 query, const SeRecord *record, TimestampTz event_time,
		 TimestampTz watermark, const SeWindowBounds *windows, int nwindows, bool partly)
{
	MemoryContext old = MemoryContextSwitchTo(pending->context);
	PendingRow *row = add_row(pending, record);

	row->query = query;
	row->headers = copy_headers(pending, record);
	row->event_time = event_time;
	row->watermark = watermark;
	row->nwindows = nwindows;
	row->windows = palloc(sizeof(SeWindowBounds) * Max(nwindows, 1));
	memcpy(row->windows, windows, sizeof(SeWindowBounds) * nwindows);
	row->partly = partly;
	MemoryContextSwitchTo(old);
}

void
se_pending_late(SePending *pending, int32 query, const SeRecord *record, TimestampTz event_time,
				TimestampTz watermark, const SeWindowBounds *windows, int nwindows)
{
	add_late(pending, query, record, event_time, watermark, windows, nwindows, false);
}

void
se_pending_partly_late(SePending *pending, int32 query, const SeRecord *record,
					   TimestampTz event_time, TimestampTz watermark,
					   const SeWindowBounds *windows, int nwindows)
{
	add_late(pending, query, record, event_time, watermark, windows, nwindows, true);
}

void
se_pending_failed(SePending *pending, int32 query, const SeRecord *record, const char *message)
{
	MemoryContext old = MemoryContextSwitchTo(pending->context);
	PendingRow *row = add_row(pending, record);

	row->query = query;
	row->message = pstrdup(message);
	MemoryContextSwitchTo(old);
}

void
se_pending_dead(SePending *pending, const SeRecord *record, const char *reason, int sqlstate,
				const char *message, const char *column)
{
	MemoryContext old = MemoryContextSwitchTo(pending->context);
	PendingRow *row = add_row(pending, record);

	row->headers = copy_headers(pending, record);
	row->reason = reason;
	row->sqlstate = pstrdup(unpack_sql_state(sqlstate));
	row->message = message ? pstrdup(message) : NULL;
	row->column = column ? pstrdup(column) : NULL;
	MemoryContextSwitchTo(old);
}

static int
compare_rows(const ListCell *a, const ListCell *b)
{
	const PendingRow *x = lfirst(a);
	const PendingRow *y = lfirst(b);

	if (x->query != y->query)
		return x->query < y->query ? -1 : 1;
	if (x->partition != y->partition)
		return x->partition < y->partition ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset ? 1 : 0;
}

static Datum
windows_array(const PendingRow *row)
{
	TypeCacheEntry *type = lookup_type_cache(TSTZRANGEOID, TYPECACHE_RANGE_INFO);
	Datum	   *elements = palloc(sizeof(Datum) * Max(row->nwindows, 1));

	for (int i = 0; i < row->nwindows; i++)
	{
		RangeBound	lower = {TimestampTzGetDatum(row->windows[i].start), false, true, true};
		RangeBound	upper = {TimestampTzGetDatum(row->windows[i].end), false, false, false};

		elements[i] = RangeTypePGetDatum(se_make_range(type, &lower, &upper, false));
	}
	return PointerGetDatum(construct_array(elements, row->nwindows, TSTZRANGEOID, -1, false,
										   TYPALIGN_DOUBLE));
}

static void
set_common(const PendingRow *row, TimestampTz now, Datum *values, char *nulls)
{
	values[1] = Int32GetDatum(row->partition);
	values[2] = Int64GetDatum(row->offset);
	values[3] = TimestampTzGetDatum(row->timestamp);
	nulls[3] = row->timestamp == SE_NO_TIMESTAMP ? 'n' : ' ';
	values[4] = PointerGetDatum(row->key);
	nulls[4] = row->key ? ' ' : 'n';
	values[5] = PointerGetDatum(row->payload);
	nulls[5] = row->payload ? ' ' : 'n';
	values[6] = TimestampTzGetDatum(now);
}

static void
execute(SPIPlanPtr plan, Datum *values, const char *nulls)
{
	int			result = SPI_execute_plan(plan, values, nulls, false, 0);

	if (result != SPI_OK_INSERT)
		elog(ERROR, "insert into a side output returned %s", SPI_result_code_string(result));
}

static SPIPlanPtr
prepare(const char *sql, int nargs, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(sql, nargs, types);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return plan;
}

void
se_pending_write(SePending *pending, int32 stream, int32 reader, TimestampTz now)
{
	SPIPlanPtr	late = NULL;
	SPIPlanPtr	dead = NULL;
	SPIPlanPtr	dead_reader = NULL;
	SPIPlanPtr	failed = NULL;
	ListCell   *cell;

	/* of a topic that was made anew the same offset is another record: it takes the row */
	list_sort(pending->rows, compare_rows);
	foreach(cell, pending->rows)
	{
		const PendingRow *row = lfirst(cell);
		Datum		values[12];
		char		nulls[] = "            ";

		set_common(row, now, values, nulls);
		if (row->query != 0 && row->message != NULL)
		{
			Oid			types[] = {INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID,
			TIMESTAMPTZOID, TEXTOID};

			if (failed == NULL)
				failed = prepare("INSERT INTO stream_engine.failed_record (query, partition, \"offset\","
								 " kafka_timestamp, key, payload, seen_at, message)"
								 " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
								 " ON CONFLICT (query, partition, \"offset\") DO UPDATE SET"
								 " kafka_timestamp = $4, key = $5, payload = $6, seen_at = $7, message = $8",
								 lengthof(types), types);
			values[0] = Int32GetDatum(row->query);
			values[7] = CStringGetTextDatum(row->message);
			execute(failed, values, nulls);
		}
		else if (row->query != 0)
		{
			Oid			types[] = {INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID,
			TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TSTZRANGEARRAYOID, BOOLOID, JSONBOID};

			if (late == NULL)
				late = prepare("INSERT INTO stream_engine.late_event (query, partition, \"offset\","
							   " kafka_timestamp, key, payload, seen_at, event_time, watermark, windows,"
							   " partly, headers) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
							   " ON CONFLICT (query, partition, \"offset\") DO UPDATE SET"
							   " kafka_timestamp = $4, key = $5, payload = $6, seen_at = $7,"
							   " event_time = $8, watermark = $9, windows = $10, partly = $11,"
							   " headers = $12, former = false",
							   lengthof(types), types);
			values[0] = Int32GetDatum(row->query);
			values[7] = TimestampTzGetDatum(row->event_time);
			values[8] = TimestampTzGetDatum(row->watermark);
			values[9] = windows_array(row);
			values[10] = BoolGetDatum(row->partly);
			values[11] = PointerGetDatum(row->headers);
			nulls[11] = row->headers ? ' ' : 'n';
			execute(late, values, nulls);
		}
		else
		{
			Oid			types[] = {INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID,
			TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID};

			if (dead == NULL)
				dead = prepare("INSERT INTO stream_engine.dead_letter (stream, partition, \"offset\","
							   " kafka_timestamp, key, payload, seen_at, reason, sqlstate, message, column_name, headers)"
							   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
							   /* skip() did not know the record; or the topic was made anew */
							   " ON CONFLICT (stream, partition, \"offset\") DO UPDATE SET"
							   " kafka_timestamp = $4, key = $5, payload = $6, headers = $12,"
							   " sqlstate = CASE $8 WHEN 'bad' THEN $9 ELSE dead_letter.sqlstate END,"
							   " message = CASE $8 WHEN 'bad' THEN $10 ELSE dead_letter.message END,"
							   " column_name = $11,"
							   " seen_at = CASE $8 WHEN 'bad' THEN $7 ELSE dead_letter.seen_at END"
							   " WHERE (dead_letter.reason = 'skipped' AND dead_letter.payload IS NULL)"
							   " OR (dead_letter.reason = 'bad' AND $8 = 'bad'"
							   " AND (dead_letter.kafka_timestamp, dead_letter.key, dead_letter.payload)"
							   " IS DISTINCT FROM ($4, $5, $6))",
							   lengthof(types), types);
			values[0] = Int32GetDatum(stream);
			values[7] = CStringGetTextDatum(row->reason);
			values[8] = CStringGetTextDatum(row->sqlstate);
			values[9] = row->message ? CStringGetTextDatum(row->message) : (Datum) 0;
			nulls[9] = row->message ? ' ' : 'n';
			values[10] = row->column ? CStringGetTextDatum(row->column) : (Datum) 0;
			nulls[10] = row->column ? ' ' : 'n';
			values[11] = PointerGetDatum(row->headers);
			nulls[11] = row->headers ? ' ' : 'n';
			execute(dead, values, nulls);

			/* what other clocks judged is no matter for a second try */
			if (strcmp(row->reason, "bad") != 0)
				continue;
			if (dead_reader == NULL)
				dead_reader = prepare("INSERT INTO stream_engine.dead_letter_reader (reader, partition, \"offset\")"
									  " VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", 3, types);
			values[0] = Int32GetDatum(reader);
			execute(dead_reader, values, NULL);
		}
	}
	pending->rows = NIL;
	pending->bytes = 0;
}

PG_FUNCTION_INFO_V1(se_readable);

/* Kafka's bytes are UTF-8 when they are text. */
Datum
se_readable(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);
	const char *data = VARDATA_ANY(bytes);
	int			length = VARSIZE_ANY_EXHDR(bytes);

	for (int i = 0; GetDatabaseEncoding() != PG_UTF8 && i < length; i++)
		if (IS_HIGHBIT_SET(data[i]))
			PG_RETURN_NULL();
	if (!pg_verify_mbstr(PG_UTF8, data, length, true))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(data, length));
}
