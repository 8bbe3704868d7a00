/*
 * table_source.c
 *	  A source that reads records from a relation of the database.
 *
 * NOTES
 *	  The relation has the columns partition int, "offset" bigint, timestamp
 *	  timestamptz, key bytea, value bytea and, as it likes, headers jsonb and
 *	  topic text.  A stream over it behaves as one over Kafka does, so that what
 *	  the engine does with records can be tried, and tested, without a broker.
 *
 *	  The relation is read through SPI with the rights of the user for whom the
 *	  stream was opened, under the caller's snapshot: fetch and the questions
 *	  about offsets need a transaction.  A record is delivered when it is seen;
 *	  writers must therefore commit in the order of offsets within a partition,
 *	  as a record behind the position is not looked for again.
 *
 *	  Records are copied into the source's own context, which lives in that of
 *	  open() and is emptied by release.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "options.h"
#include "source.h"

/* How often the engine looks for new rows. */
#define POLL_MS 20

/* Largest value of the option "partitions". */
#define MAX_PARTITIONS 100000

typedef struct TablePartition
{
	int32		partition;
	int64		next;
	int64		high;			/* last known end, -1 */
	bool		at_end;			/* told since the last record */
} TablePartition;

typedef enum TableQuery
{
	QUERY_RECORDS,
	QUERY_BOUNDS,
	QUERY_COUNT,
	QUERY_TIME
} TableQuery;

#define TABLE_QUERIES 4

typedef struct TableSource
{
	MemoryContext context;		/* of the source itself */
	MemoryContext records;		/* emptied by release */
	Oid			userid;
	char	   *relation;		/* quoted, with its schema */
	bool		has_headers;
	char	   *topic;			/* NULL: all rows */
	int			fixed_partitions;	/* of the server's option, 0 if none */
	SPIPlanPtr	plans[TABLE_QUERIES];
	int			npartitions;
	int			turn;			/* partition with which the next fetch begins */
	TablePartition *partitions;
	bool		closed;
	MemoryContextCallback callback;
} TableSource;

/* ---- options ---- */

/*
 * se_table_validate
 *		All options of a server, user mapping, foreign table or column.
 */
void
se_table_validate(List *options, int place)
{
	static const char *const server_options[] = {"table", "partitions"};
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		char	   *value = defGetString(def);

		if (place == SE_ON_SERVER && strcmp(def->defname, "table") == 0)
		{
			if (list_length(textToQualifiedNameList(cstring_to_text(value))) != 2)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"table\" must be a name with its schema"),
						 errhint("Write it as \"schema.name\".")));
		}
		else if (place == SE_ON_SERVER && strcmp(def->defname, "partitions") == 0)
			(void) se_option_integer(def->defname, value, 1, MAX_PARTITIONS);
		else if (!se_stream_option_check(def->defname, value, place))
		{
			const char *names[32];
			int			nnames = 0;

			if (place == SE_ON_SERVER)
			{
				for (int i = 0; i < lengthof(server_options); i++)
					names[nnames++] = server_options[i];
			}
			nnames += se_stream_option_names(place, names + nnames, lengthof(names) - nnames);
			se_invalid_option(def->defname, place, NULL,
							  se_closest_name(def->defname, names, nnames));
		}
	}
	if (place == SE_ON_SERVER && se_option_value(options, "table") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"table\" is required for a server of stream_engine_table")));
}

/* ---- open and close ---- */

static void
table_close_callback(void *argument)
{
	TableSource *source = argument;

	for (int i = 0; i < TABLE_QUERIES; i++)
	{
		if (source->plans[i] != NULL)
			SPI_freeplan(source->plans[i]);
		source->plans[i] = NULL;
	}
}

/*
 * Check that the relation has a column of a type; returns false if it has none
 * of that name and it is not required.
 */
static bool
check_column(Relation relation, const char *name, Oid type, bool required)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(relation), name);

	if (attnum == InvalidAttrNumber)
	{
		if (required)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("relation \"%s\" has no column \"%s\"",
							RelationGetRelationName(relation), name),
					 errdetail("The table of a stream_engine_table server needs the columns "
							   "partition integer, \"offset\" bigint, timestamp timestamp with "
							   "time zone, key bytea and value bytea.")));
		return false;
	}
	if (get_atttype(RelationGetRelid(relation), attnum) != type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" is not of type %s", name,
						RelationGetRelationName(relation), format_type_be(type))));
	return true;
}

static SeSource *
table_open_source(Oid relid, Oid userid)
{
	ForeignTable *table = GetForeignTable(relid);
	ForeignServer *server = GetForeignServer(table->serverid);
	const char *name = se_option_value(server->options, "table");
	const char *partitions = se_option_value(server->options, "partitions");
	SeStreamOptions options;
	Relation	relation;
	List	   *names;
	char	   *schema;
	TableSource *source;
	MemoryContext context;
	MemoryContext caller;

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("server \"%s\" has no option \"table\"", server->servername)));
	se_stream_options(relid, &options);

	context = AllocSetContextCreate(CurrentMemoryContext, "table source", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(context);
	source = palloc0(sizeof(TableSource));
	source->context = context;
	source->records = AllocSetContextCreate(context, "table source records",
											ALLOCSET_DEFAULT_SIZES);
	source->userid = userid;
	if (partitions != NULL)
		source->fixed_partitions = se_option_integer("partitions", partitions, 1, MAX_PARTITIONS);

	names = textToQualifiedNameList(cstring_to_text(name));
	relation = relation_openrv(makeRangeVarFromNameList(names), AccessShareLock);
	schema = get_namespace_name(RelationGetNamespace(relation));
	source->relation = quote_qualified_identifier(schema, RelationGetRelationName(relation));
	(void) check_column(relation, "partition", INT4OID, true);
	(void) check_column(relation, "offset", INT8OID, true);
	(void) check_column(relation, "timestamp", TIMESTAMPTZOID, true);
	(void) check_column(relation, "key", BYTEAOID, true);
	(void) check_column(relation, "value", BYTEAOID, true);
	source->has_headers = check_column(relation, "headers", JSONBOID, false);
	if (options.topic[0] != '\0' && check_column(relation, "topic", TEXTOID, false))
		source->topic = pstrdup(options.topic);
	relation_close(relation, AccessShareLock);

	source->callback.func = table_close_callback;
	source->callback.arg = source;
	MemoryContextRegisterResetCallback(context, &source->callback);
	MemoryContextSwitchTo(caller);
	return (SeSource *) source;
}

static void
table_close_source(SeSource *opaque)
{
	MemoryContextDelete(((TableSource *) opaque)->context);
}

/* ---- queries ---- */

/* What run_query has to undo; an error's (sub)transaction abort does the same. */
typedef struct QueryFrame
{
	Oid			userid;
	int			security;
	int			gucs;
	bool		snapshot;
} QueryFrame;

static const char *
query_text(const TableSource *source, TableQuery query)
{
	const char *topic = source->topic ? " AND topic OPERATOR(pg_catalog.=) $4" : "";

	switch (query)
	{
		case QUERY_RECORDS:
			return psprintf("SELECT \"offset\", \"timestamp\", key, value%s FROM %s "
							"WHERE partition OPERATOR(pg_catalog.=) $1 "
							"AND \"offset\" OPERATOR(pg_catalog.>=) $2%s "
							"ORDER BY \"offset\" LIMIT $3",
							source->has_headers ? ", headers" : "", source->relation, topic);
		case QUERY_BOUNDS:
			return psprintf("SELECT pg_catalog.min(\"offset\"), pg_catalog.max(\"offset\") "
							"FROM %s WHERE partition OPERATOR(pg_catalog.=) $1%s",
							source->relation, topic);
		case QUERY_COUNT:
			return psprintf("SELECT pg_catalog.max(partition) FROM %s WHERE true%s",
							source->relation, topic);
		case QUERY_TIME:
			return psprintf("SELECT pg_catalog.min(\"offset\") FROM %s "
							"WHERE partition OPERATOR(pg_catalog.=) $1 "
							"AND \"timestamp\" OPERATOR(pg_catalog.>=) $5%s",
							source->relation, topic);
	}
	return NULL;				/* keep compiler quiet */
}

/* The table may have been altered since it was opened: what it gives is taken as these types. */
static void
check_result(const TableSource *source, TableQuery query)
{
	static const Oid types[TABLE_QUERIES][5] = {
		[QUERY_RECORDS] = {INT8OID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID, JSONBOID},
		[QUERY_BOUNDS] = {INT8OID, INT8OID},
		[QUERY_COUNT] = {INT4OID},
		[QUERY_TIME] = {INT8OID}
	};

	for (int i = 0; i < SPI_tuptable->tupdesc->natts; i++)
		if (SPI_gettypeid(SPI_tuptable->tupdesc, i + 1) != types[query][i])
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("a column of %s is not of type %s any more", source->relation,
							format_type_be(types[query][i]))));
}

/*
 * Run one of the queries as the source's user; the result is in SPI_tuptable
 * until end_query().
 */
static void
begin_query(TableSource *source, TableQuery query, int32 partition, int64 offset, int limit,
			TimestampTz time, QueryFrame *frame)
{
	static Oid	types[5] = {INT4OID, INT8OID, INT8OID, TEXTOID, TIMESTAMPTZOID};
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};

	values[0] = Int32GetDatum(partition);
	values[1] = Int64GetDatum(offset);
	values[2] = Int64GetDatum(limit);
	values[3] = source->topic ? CStringGetTextDatum(source->topic) : (Datum) 0;
	if (source->topic == NULL)
		nulls[3] = 'n';
	values[4] = TimestampTzGetDatum(time);

	frame->snapshot = !ActiveSnapshotSet();
	if (frame->snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&frame->userid, &frame->security);
	SetUserIdAndSecContext(source->userid, frame->security | SECURITY_RESTRICTED_OPERATION);
	frame->gucs = NewGUCNestLevel();

	SPI_connect();
	if (source->plans[query] == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(query_text(source, query), lengthof(types), types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare a query of the table source: %s",
				 SPI_result_code_string(SPI_result));
		source->plans[query] = plan;
	}
	if (SPI_execute_plan(source->plans[query], values, nulls, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "query of the table source failed");
	check_result(source, query);
}

static void
end_query(QueryFrame *frame)
{
	SPI_finish();
	AtEOXact_GUC(false, frame->gucs);
	SetUserIdAndSecContext(frame->userid, frame->security);
	if (frame->snapshot)
		PopActiveSnapshot();
}

static int64
result_int64(int column, int64 if_null)
{
	bool		isnull;
	Datum		value;

	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);
	return isnull ? if_null : DatumGetInt64(value);
}

static int
table_partitions(SeSource *opaque, int timeout_ms)
{
	TableSource *source = (TableSource *) opaque;
	QueryFrame	frame;
	bool		isnull;
	Datum		last;
	int			result;

	if (source->fixed_partitions > 0)
		return source->fixed_partitions;

	begin_query(source, QUERY_COUNT, 0, 0, 0, 0, &frame);
	last = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	result = isnull ? 1 : DatumGetInt32(last) + 1;
	end_query(&frame);
	return Max(result, 1);
}

static void
table_offsets(SeSource *opaque, int32 partition, int timeout_ms, int64 *low, int64 *high)
{
	TableSource *source = (TableSource *) opaque;
	QueryFrame	frame;

	begin_query(source, QUERY_BOUNDS, partition, 0, 0, 0, &frame);
	*low = result_int64(1, 0);
	*high = result_int64(2, -1) + 1;
	end_query(&frame);
}

static int64
table_offset_for_time(SeSource *opaque, int32 partition, TimestampTz t, int timeout_ms)
{
	TableSource *source = (TableSource *) opaque;
	QueryFrame	frame;
	int64		result;
	int64		low;

	begin_query(source, QUERY_TIME, partition, 0, 0, t, &frame);
	result = result_int64(1, -1);
	end_query(&frame);
	if (result < 0)
		table_offsets(opaque, partition, timeout_ms, &low, &result);
	return result;
}

static int64
table_cached_high(SeSource *opaque, int32 partition)
{
	TableSource *source = (TableSource *) opaque;

	for (int i = 0; i < source->npartitions; i++)
	{
		if (source->partitions[i].partition == partition)
			return source->partitions[i].high;
	}
	return -1;
}

static void
table_assign(SeSource *opaque, const SePosition *positions, int npositions)
{
	TableSource *source = (TableSource *) opaque;

	if (source->partitions != NULL)
		pfree(source->partitions);
	source->partitions = MemoryContextAllocZero(source->context,
												Max(npositions, 1) * sizeof(TablePartition));
	for (int i = 0; i < npositions; i++)
	{
		source->partitions[i].partition = positions[i].partition;
		source->partitions[i].next = positions[i].offset;
		source->partitions[i].high = -1;
	}
	source->npartitions = npositions;
	source->turn = 0;
}

/* ---- fetch ---- */

/* Bytes of a column, copied; NULL stays NULL. */
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
	return copy;
}

static void
fetch_partition(TableSource *source, TablePartition *partition, SeSourceBatch *batch, int limit)
{
	QueryFrame	frame;
	MemoryContext caller;
	uint64		nrows;

	begin_query(source, QUERY_RECORDS, partition->partition, partition->next, limit, 0, &frame);
	nrows = SPI_processed;
	caller = MemoryContextSwitchTo(source->records);
	for (uint64 i = 0; i < nrows; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		SeRecord   *record = &batch->records[batch->nrecords++];
		bool		isnull;
		Datum		value;

		record->partition = partition->partition;
		record->flags = SE_RECORD_JSONB_HEADERS;
		record->offset = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		value = SPI_getbinval(tuple, desc, 2, &isnull);
		record->timestamp = isnull ? SE_NO_TIMESTAMP : DatumGetTimestampTz(value);
		record->key = copy_bytes(tuple, desc, 3, &record->key_len);
		record->payload = copy_bytes(tuple, desc, 4, &record->payload_len);
		record->handle = NULL;
		if (source->has_headers)
		{
			value = SPI_getbinval(tuple, desc, 5, &isnull);
			if (!isnull)
				record->handle = DatumGetJsonbPCopy(value);
		}
		partition->next = record->offset + 1;
		partition->at_end = false;
	}
	MemoryContextSwitchTo(caller);
	end_query(&frame);

	if (nrows < limit)
	{
		partition->high = partition->next;
		if (!partition->at_end && batch->nevents < SE_EVENTS_MAX)
		{
			SeSourceEvent *event = &batch->events[batch->nevents++];

			memset(event, 0, sizeof(*event));
			event->kind = SE_EVENT_EOF;
			event->partition = partition->partition;
			event->offset = partition->next;
			partition->at_end = true;
		}
	}
	else if (partition->high < partition->next)
	{
		int64		low;

		table_offsets((SeSource *) source, partition->partition, 0, &low, &partition->high);
	}
}

static void
table_fetch(SeSource *opaque, SeSourceBatch *batch, int max_records)
{
	TableSource *source = (TableSource *) opaque;
	int			share;

	batch->nrecords = batch->nevents = 0;
	max_records = Min(max_records, SE_BATCH_MAX);
	if (source->npartitions == 0 || max_records <= 0)
		return;

	/* all partitions advance alike; who came last in one fetch is first in the next */
	share = Max(max_records / source->npartitions, 1);
	for (int i = 0; i < source->npartitions && batch->nrecords < max_records; i++)
	{
		TablePartition *partition = &source->partitions[(source->turn + i) % source->npartitions];

		fetch_partition(source, partition, batch, Min(share, max_records - batch->nrecords));
	}
	source->turn = (source->turn + 1) % source->npartitions;
}

static void
table_release(SeSource *opaque, SeSourceBatch *batch)
{
	MemoryContextReset(((TableSource *) opaque)->records);
	batch->nrecords = 0;
}

static int
table_wait_fd(SeSource *opaque, int *poll_ms)
{
	*poll_ms = POLL_MS;
	return -1;
}

static void
table_drain_fd(SeSource *opaque)
{
}

const SeSourceRoutine se_table_routine = {
	.name = "table",
	.open = table_open_source,
	.close = table_close_source,
	.partitions = table_partitions,
	.offsets = table_offsets,
	.offset_for_time = table_offset_for_time,
	.cached_high = table_cached_high,
	.assign = table_assign,
	.fetch = table_fetch,
	.release = table_release,
	.wait_fd = table_wait_fd,
	.drain_fd = table_drain_fd,
};
