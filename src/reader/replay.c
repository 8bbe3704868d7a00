/*
 * replay.c
 *	  Records that are processed a second time: retry_dead_letters(), and the
 *	  reader's part in it.
 *
 * NOTES
 *	  Each reader judges records for itself, so a dead letter belongs to the
 *	  readers that counted it as dead; dead_letter_reader names them.  The function
 *	  moves letters into the table replay, one row for each such reader, and
 *	  wakes them.  A reader takes its rows at the beginning of a cycle, behind the
 *	  check that its definition is current (the mended stream is what the letters
 *	  wait for), processes them as if they arrived at that moment, and removes them
 *	  in the commit that holds their effects.  So each letter has been either
 *	  counted as dead or used, in every committed state.
 *
 *	  The function locks the readers' rows before it looks at the letters: a commit
 *	  that adds to them has either ended, or will not get past its fence.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/ddl.h"
#include "engine/engine.h"
#include "reader.h"

PG_FUNCTION_INFO_V1(se_retry_dead_letters);

/* ---- the reader's part ---- */

/* The caller's copy of a column, with a NUL behind it; NULL if it is null. */
static const char *
copy_bytes(HeapTuple tuple, TupleDesc desc, int column, int32 *length)
{
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, desc, column, &isnull);
	bytea	   *bytes;
	char	   *copy;

	*length = 0;
	if (isnull)
		return NULL;
	bytes = DatumGetByteaPP(value);
	*length = VARSIZE_ANY_EXHDR(bytes);
	copy = palloc(*length + 1);
	memcpy(copy, VARDATA_ANY(bytes), *length);
	copy[*length] = '\0';
	if ((Pointer) bytes != DatumGetPointer(value))
		pfree(bytes);
	return copy;
}

/*
 * A record that was set aside: row "i" of SPI_tuptable, whose first columns are partition, offset,
 * kafka_timestamp, key, payload and headers.  What it points to is in "context".
 */
void
se_record_of_row(uint64 i, MemoryContext context, SeRecord *record)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	HeapTuple	tuple = SPI_tuptable->vals[i];
	TupleDesc	desc = SPI_tuptable->tupdesc;
	Datum		value;
	bool		isnull;

	memset(record, 0, sizeof(SeRecord));
	record->partition = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
	record->offset = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
	value = SPI_getbinval(tuple, desc, 3, &isnull);
	record->timestamp = isnull ? SE_NO_TIMESTAMP : DatumGetTimestampTz(value);
	record->key = copy_bytes(tuple, desc, 4, &record->key_len);
	record->payload = copy_bytes(tuple, desc, 5, &record->payload_len);
	record->flags = SE_RECORD_JSONB_HEADERS;
	value = SPI_getbinval(tuple, desc, 6, &isnull);
	record->handle = isnull ? NULL : DatumGetJsonbPCopy(value);
	MemoryContextSwitchTo(old);
}

/* The next records that wait for this reader, in the cycle's context. */
static SeRecord *
waiting_records(Reader *reader, int *nrecords)
{
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, INT4OID, INT8OID};
	Datum		values[3];
	SeRecord   *records;

	values[0] = Int32GetDatum(reader->def->id);
	values[1] = Int32GetDatum(SE_BATCH_MAX);
	values[2] = Int64GetDatum(SE_AGAIN_BYTES);
	se_catalog_begin(&scope);
	/* lengths are known without reading what is stored out of line */
	se_spi("SELECT partition, \"offset\", kafka_timestamp, key, payload, headers FROM"
		   " (SELECT *, pg_catalog.sum(pg_catalog.octet_length(payload))"
		   "  OVER (ORDER BY partition, \"offset\" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before"
		   "  FROM (SELECT * FROM stream_engine.replay"
		   "   WHERE reader = $1 AND query IS NULL ORDER BY partition, \"offset\" LIMIT $2) r) m"
		   " WHERE before IS NULL OR before < $3 ORDER BY partition, \"offset\"",
		   3, types, values, NULL, SPI_OK_SELECT);
	*nrecords = (int) SPI_processed;
	records = MemoryContextAlloc(reader->cycle, sizeof(SeRecord) * Max(*nrecords, 1));
	for (int i = 0; i < *nrecords; i++)
		se_record_of_row(i, reader->cycle, &records[i]);
	se_catalog_end(&scope);
	return records;
}

static void
positions_array(const SeRecord *records, int n, Datum *partitions, Datum *offsets)
{
	Datum	   *p = palloc(sizeof(Datum) * Max(n, 1));
	Datum	   *o = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		p[i] = Int32GetDatum(records[i].partition);
		o[i] = Int64GetDatum(records[i].offset);
	}
	*partitions = PointerGetDatum(construct_array(p, n, INT4OID, 4, true, TYPALIGN_INT));
	*offsets = PointerGetDatum(construct_array(o, n, INT8OID, 8, true, TYPALIGN_DOUBLE));
}

/*
 * Process some of the records that wait for this reader, in the open cycle,
 * which has done nothing else; the caller commits it.  False: none waits.
 */
bool
se_replay_run(Reader *reader)
{
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, INT4ARRAYOID, INT8ARRAYOID};
	Datum		values[3];
	SeRecord   *records;
	int			n;

	PushActiveSnapshot(GetTransactionSnapshot());
	records = waiting_records(reader, &n);
	PopActiveSnapshot();
	if (n == 0)
		return false;

	/* a session that must be emitted first makes it stop earlier */
	n = se_process_replayed(reader, records, n);

	PushActiveSnapshot(GetTransactionSnapshot());
	values[0] = Int32GetDatum(reader->def->id);
	positions_array(records, n, &values[1], &values[2]);
	se_catalog_begin(&scope);
	se_spi("DELETE FROM stream_engine.replay p"
		   " USING ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS d(partition, \"offset\")"
		   " WHERE p.reader = $1 AND p.query IS NULL AND p.partition = d.partition"
		   " AND p.\"offset\" = d.\"offset\"", 3, types, values, NULL, SPI_OK_DELETE);
	se_catalog_end(&scope);
	PopActiveSnapshot();
	SE_FAILPOINT("replay.processed");
	return true;
}

/* ---- the function ---- */

/*
 * Positions of the stream's bad records for which "condition" holds, which is
 * evaluated by the caller over what he may see.
 */
static uint64
matching_letters(Oid stream, const char *condition, Datum *partitions, Datum *offsets)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext inner;
	Oid			type = REGCLASSOID;
	Datum		value = ObjectIdGetDatum(stream);
	SPIPlanPtr	plan;
	SeRecord   *records;
	uint64		n;
	int			result;
	char	   *sql;

	/* on lines of its own, so that a comment in it ends there */
	sql = psprintf("SELECT d.partition, d.\"offset\" FROM stream_engine.dead_letters d"
				   " WHERE d.stream = $1 AND d.reason = 'bad' AND (\n%s\n)", condition);
	SPI_connect();
	plan = SPI_prepare(sql, 1, &type);
	if (plan == NULL || !SPI_is_cursor_plan(plan))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the condition must be one expression over the columns of stream_engine.dead_letters")));
	result = SPI_execute_plan(plan, &value, NULL, false, 0);
	if (result == SPI_OK_SELECT &&
		(SPI_tuptable->tupdesc->natts != 2 ||
		 SPI_gettypeid(SPI_tuptable->tupdesc, 1) != INT4OID ||
		 SPI_gettypeid(SPI_tuptable->tupdesc, 2) != INT8OID))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the condition must be one expression over the columns of stream_engine.dead_letters")));
	if (result != SPI_OK_SELECT)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the condition must not change anything")));
	n = SPI_processed;
	if (n > MaxAllocSize / sizeof(SeRecord))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many dead letters at once"),
				 errhint("Narrow the condition.")));
	inner = MemoryContextSwitchTo(caller);
	records = palloc0(sizeof(SeRecord) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		records[i].partition = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
		records[i].offset = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
	}
	positions_array(records, (int) n, partitions, offsets);
	MemoryContextSwitchTo(inner);
	SPI_finish();
	return n;
}

Datum
se_retry_dead_letters(PG_FUNCTION_ARGS)
{
	SeStream   *stream;
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, INT4ARRAYOID, INT8ARRAYOID};
	Datum		values[3];
	char	   *condition;
	int64		queued;
	bool		isnull;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"stream\" must not be null")));
	stream = se_stream_by_relation(PG_GETARG_OID(0));
	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" is not a stream",
						get_rel_name(PG_GETARG_OID(0)) ? get_rel_name(PG_GETARG_OID(0)) : "?"),
				 errhint("See the view stream_engine.streams.")));
	se_check_owner(stream->relid);
	condition = PG_ARGISNULL(1) ? "true" : text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (matching_letters(stream->relid, condition, &values[1], &values[2]) == 0)
		PG_RETURN_INT64(0);

	values[0] = Int32GetDatum(stream->id);
	se_catalog_begin(&scope);
	se_spi("SELECT FROM stream_engine.reader WHERE stream = $1 ORDER BY id FOR UPDATE",
		   1, types, values, NULL, SPI_OK_SELECT);
	se_spi("WITH held AS (SELECT h.reader, h.partition, h.\"offset\""
		   "  FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS w(partition, \"offset\")"
		   "  JOIN stream_engine.dead_letter_reader h ON h.partition = w.partition AND h.\"offset\" = w.\"offset\""
		   "  JOIN stream_engine.reader r ON r.id = h.reader WHERE r.stream = $1),"
		   " letter AS (DELETE FROM stream_engine.dead_letter d WHERE d.stream = $1 AND d.reason = 'bad'"
		   "  AND (d.partition, d.\"offset\") IN (SELECT h.partition, h.\"offset\" FROM held h) RETURNING d.*),"
		   " released AS (DELETE FROM stream_engine.dead_letter_reader h USING letter l, stream_engine.reader r"
		   "  WHERE h.partition = l.partition AND h.\"offset\" = l.\"offset\" AND r.id = h.reader AND r.stream = $1),"
		   " queued AS (INSERT INTO stream_engine.replay (reader, partition, \"offset\", kafka_timestamp, key, payload, headers)"
		   "  SELECT DISTINCT h.reader, l.partition, l.\"offset\", l.kafka_timestamp, l.key, l.payload, l.headers"
		   "  FROM letter l JOIN held h ON h.partition = l.partition AND h.\"offset\" = l.\"offset\")"
		   " SELECT pg_catalog.count(*) FROM letter", 3, types, values, NULL, SPI_OK_SELECT);
	queued = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	se_catalog_end(&scope);
	se_wake_at_commit();
	PG_RETURN_INT64(queued);
}
