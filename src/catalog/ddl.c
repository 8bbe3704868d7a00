/*
 * ddl.c
 *	  What creating streams and creating queries have in common: names, rights,
 *	  start positions, readers.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/regproc.h"
#include "utils/varlena.h"

#include "compat/compat.h"
#include "ddl.h"

void
se_require_argument(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

RangeVar *
se_parse_name(const char *name)
{
	RangeVar   *parsed = makeRangeVarFromNameList(se_string_to_qualified_name_list(name));

	if (parsed->catalogname != NULL &&
		strcmp(parsed->catalogname, get_database_name(MyDatabaseId)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cross-database references are not implemented: \"%s\"", name)));
	return parsed;
}

RangeVar *
se_name_with_suffix(const RangeVar *name, const char *suffix)
{
	int			room = NAMEDATALEN - 1 - (int) strlen(suffix);
	char	   *base = pnstrdup(name->relname,
								pg_mbcliplen(name->relname, strlen(name->relname), room));

	return makeRangeVar(name->schemaname, psprintf("%s%s", base, suffix), -1);
}

char *
se_quote_name(const RangeVar *name)
{
	return quote_qualified_identifier(name->schemaname, name->relname);
}

void
se_run_utility(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "SPI_execute returned %s: %s", SPI_result_code_string(result), sql);
}

void
se_check_owner(Oid relid)
{
	if (!se_relation_owned(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/* ---- start positions ---- */

typedef struct PartitionStart
{
	int32		partition;
	int64		offset;
} PartitionStart;

/* Parse '{"0": 12, "1": 0}'; raises on anything else. */
static List *
parse_offsets(const char *text)
{
	Jsonb	   *jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	List	   *result = NIL;
	int32		partition = 0;

	if (!JB_ROOT_IS_OBJECT(jsonb))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start offsets must be a JSON object of offsets by partition")));
	it = JsonbIteratorInit(&jsonb->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			partition = pg_strtoint32(pnstrdup(value.val.string.val, value.val.string.len));
		else if (token == WJB_VALUE)
		{
			PartitionStart *start = palloc(sizeof(PartitionStart));

			if (value.type != jbvNumeric)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("start offset of partition %d must be a number", partition)));
			start->partition = partition;
			start->offset = DatumGetInt64(DirectFunctionCall1(numeric_int8,
															  NumericGetDatum(value.val.numeric)));
			if (partition < 0 || start->offset < 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("partitions and start offsets must not be negative")));
			result = lappend(result, start);
		}
	}
	return result;
}

static bool
start_is_offsets(const char *start)
{
	while (*start == ' ')
		start++;
	return *start == '{';
}

static TimestampTz
start_timestamp(const char *start)
{
	TimestampTz t;

	t = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(start),
												ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	if (TIMESTAMP_NOT_FINITE(t))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start must be finite, use 'earliest' or 'latest'")));
	return t;
}

static void
tell_of_starts(void *arg)
{
	errhint("It can be 'earliest', 'latest', a time, or offsets by partition as in {\"0\": 1200, \"1\": 0}.");
}

char *
se_check_start(const char *start)
{
	ErrorContextCallback callback = {error_context_stack, tell_of_starts, NULL};
	char	   *result;

	if (strcmp(start, "earliest") == 0 || strcmp(start, "latest") == 0)
		return pstrdup(start);
	error_context_stack = &callback;
	if (start_is_offsets(start))
	{
		(void) parse_offsets(start);
		result = pstrdup(start);
	}
	else
		result = pstrdup(timestamptz_to_str(start_timestamp(start)));
	error_context_stack = callback.previous;
	return result;
}

int
se_resolve_start(const SeStream *stream, const char *start, int timeout_ms,
				 SePosition **positions, bool **complete, int64 *nrecords)
{
	const SeSourceRoutine *routine = se_source()->routine_of_server(stream->serverid);
	SeSource   *source = routine->open(stream->relid, stream->owner);
	int			npartitions = routine->partitions(source, timeout_ms);
	List	   *offsets = start_is_offsets(start) ? parse_offsets(start) : NIL;
	ListCell   *cell;

	*positions = palloc(sizeof(SePosition) * Max(npartitions, 1));
	*complete = palloc0(sizeof(bool) * Max(npartitions, 1));
	*nrecords = 0;
	foreach(cell, offsets)
	{
		PartitionStart *given = lfirst(cell);

		if (given->partition >= npartitions)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("start names partition %d, but the topic has %d partitions",
							given->partition, npartitions)));
	}
	for (int i = 0; i < npartitions; i++)
	{
		int64		low;
		int64		high;
		int64		offset;

		routine->offsets(source, i, timeout_ms, &low, &high);
		if (strcmp(start, "earliest") == 0)
			offset = low;
		else if (strcmp(start, "latest") == 0)
			offset = high;
		else if (offsets != NIL)
		{
			offset = low;
			foreach(cell, offsets)
			{
				PartitionStart *given = lfirst(cell);

				if (given->partition == i)
					offset = given->offset;
			}
			if (offset > high)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("start offset %lld of partition %d is behind its end %lld",
								(long long) offset, i, (long long) high)));
		}
		else
			offset = routine->offset_for_time(source, i, start_timestamp(start), timeout_ms);

		(*positions)[i].partition = i;
		(*positions)[i].offset = offset;
		(*complete)[i] = strcmp(start, "earliest") == 0;
		*nrecords += Max(high - Max(offset, low), 0);
	}
	routine->close(source);
	return npartitions;
}

TimestampTz
se_stream_complete_from(const SeStream *stream)
{
	return stream->options.processing_time ? GetCurrentTimestamp() : DT_NOBEGIN;
}

int32
se_reader_create(int32 stream, bool head, const char *start, const SePosition *positions,
				 const bool *complete, int npositions)
{
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, BOOLOID, TEXTOID};
	Datum		values[3];
	bool		isnull;
	int32		reader;

	se_catalog_begin(&scope);
	values[0] = Int32GetDatum(stream);
	values[1] = BoolGetDatum(head);
	values[2] = CStringGetTextDatum(start);
	se_spi("INSERT INTO stream_engine.reader (stream, head, start) VALUES ($1, $2, $3) RETURNING id",
		   3, types, values, NULL, SPI_OK_INSERT_RETURNING);
	reader = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	for (int i = 0; positions != NULL && i < npositions; i++)
	{
		Oid			ptypes[4] = {INT4OID, INT4OID, INT8OID, BOOLOID};
		Datum		pvalues[4];

		pvalues[0] = Int32GetDatum(reader);
		pvalues[1] = Int32GetDatum(positions[i].partition);
		pvalues[2] = Int64GetDatum(positions[i].offset);
		pvalues[3] = BoolGetDatum(complete[i]);
		se_spi("INSERT INTO stream_engine.reader_partition"
			   " (reader, partition, start_offset, next_offset, complete)"
			   " VALUES ($1, $2, $3, $3, $4)", 4, ptypes, pvalues, NULL, SPI_OK_INSERT);
	}
	se_catalog_end(&scope);
	return reader;
}
