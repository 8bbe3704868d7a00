/*
 * decoder.c
 *	  Decoders of streams: made from the foreign table, run batch by batch.
 *
 * NOTES
 *	  See decoder_internal.h for the parts.
 *
 *	  A run first does what raises no error, column by column.  The rest, calls of
 *	  the types' input functions, defaults and CHECKs, are tasks of a row each, done
 *	  in one subtransaction.  When a task fails and its row is to blame, the
 *	  subtransaction is rolled back, the row is bad, and the next task goes on in
 *	  a new subtransaction: the values made so far are memory of the batch, which
 *	  a rollback leaves alone.  Only if the subtransaction had changed the database
 *	  (a volatile default) the tasks before are done again.  So a batch without
 *	  bad rows costs one subtransaction, and each bad row one more.
 *
 *	  Input functions of types look at TimeZone, DateStyle and IntervalStyle.  A
 *	  record must mean the same to every reader of the stream, so these
 *	  have fixed values while records' values are read.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "compat/compat.h"
#include "decoder_internal.h"
#include "options.h"
#include "vector.h"

/* A message of a row is cut off behind so many bytes. */
#define MESSAGE_MAX 2000

/* Milliseconds and so on of option "epoch"; -1: no such unit. */
static int
epoch_digits(const char *unit)
{
	if (strcmp(unit, "s") == 0)
		return 0;
	if (strcmp(unit, "ms") == 0)
		return 3;
	if (strcmp(unit, "us") == 0)
		return 6;
	return -1;
}

static void
free_scanner(void *arg)
{
	SeDecoder  *decoder = arg;

	se_json_destroy(decoder->json);
	decoder->json = NULL;
}

/* Fill one column of the decoder from attribute and options. */
static void
create_column(SeDecoder *decoder, SeColumn *column, Form_pg_attribute attribute)
{
	List	   *options = GetForeignColumnOptions(decoder->relid, attribute->attnum);
	const char *path = se_option_value(options, "path");
	const char *unit = se_option_value(options, "epoch");
	int			digits = -1;

	column->attnum = attribute->attnum;
	column->name = pstrdup(NameStr(attribute->attname));
	column->not_null = attribute->attnotnull;
	column->slot = -1;

	if (attribute->attgenerated)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("generated columns are not supported in streams"),
				 errdetail("Column \"%s\" is generated.", column->name)));

	/* a path says that the column is the record's, whatever its name */
	if (path == NULL)
		column->metadata = se_metadata_of_column(column->name);

	if (unit != NULL)
	{
		digits = epoch_digits(unit);
		if (digits < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for option \"%s\": \"%s\"", "epoch", unit),
					 errhint("Valid values are s, ms and us.")));
	}

	se_coercion_init(&column->coercion, attribute->atttypid, attribute->atttypmod, digits,
					 decoder->context);
	column->type_name = format_type_be(column->coercion.base);
	if (column->metadata != SE_META_NONE)
		se_metadata_check(column);
	else if (path != NULL)
	{
		const char *message;
		int			position;
		char	   *utf8 = pg_server_to_any(path, strlen(path), PG_UTF8);

		column->slot = se_json_add_path(decoder->json, utf8, &message, &position);
		if (column->slot < 0 && message != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid path \"%s\" of column \"%s\"", path, column->name),
					 errdetail("The path is wrong at byte %d.", position + 1),
					 errhint("%c%s.", pg_toupper((unsigned char) message[0]), message + 1)));
	}
	else
		column->slot = se_json_add_member(decoder->json,
										  pg_server_to_any(column->name, strlen(column->name),
														   PG_UTF8));
	if (column->metadata == SE_META_NONE && column->slot < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	column->fast = se_coerce_is_fast(column);
}

SeDecoder *
se_decoder_create(Relation stream, AttrNumber event_time, const Bitmapset *needed,
				  MemoryContext context)
{
	MemoryContext mine = AllocSetContextCreate(context, "stream_engine decoder",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(mine);
	SeDecoder  *decoder = palloc0(sizeof(SeDecoder));
	ForeignTable *table = GetForeignTable(RelationGetRelid(stream));
	const char *format = se_option_value(table->options, "format");
	const char *topic = se_option_value(table->options, "topic");

	if (format != NULL && strcmp(format, "json") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("format \"%s\" is not supported", format),
				 errhint("The supported format is json.")));

	decoder->context = mine;
	decoder->relid = RelationGetRelid(stream);
	decoder->relname = pstrdup(RelationGetRelationName(stream));
	decoder->topic = topic ? pstrdup(topic) : NULL;
	decoder->desc = CreateTupleDescCopyConstr(RelationGetDescr(stream));
	decoder->event_time = event_time;
	decoder->encode = GetDatabaseEncoding() != PG_UTF8 &&
		GetDatabaseEncoding() != PG_SQL_ASCII;
	decoder->status = palloc0(sizeof(SeJsonStatus) * SE_BATCH_MAX);
	decoder->row_errors = palloc0(sizeof(SeRowError) * SE_BATCH_MAX);
	decoder->columns = palloc0(sizeof(SeColumn) * Max(decoder->desc->natts, 1));

	decoder->callback.func = free_scanner;
	decoder->callback.arg = decoder;
	MemoryContextRegisterResetCallback(mine, &decoder->callback);
	decoder->json = se_json_create();
	if (decoder->json == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));

	decoder->batch.ncolumns = decoder->desc->natts;
	decoder->batch.columns = palloc0(sizeof(SeVector) * Max(decoder->desc->natts, 1));
	decoder->batch.context = AllocSetContextCreate(mine, "stream_engine batch",
												   ALLOCSET_DEFAULT_SIZES);

	for (int i = 0; i < decoder->desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(decoder->desc, i);
		SeColumn   *column = &decoder->columns[decoder->ncolumns];

		if (attribute->attisdropped)
			continue;
		decoder->ncolumns++;
		create_column(decoder, column, attribute);
		column->needed = column->attnum == event_time || bms_is_member(column->attnum, needed);
		se_vector_init(&decoder->batch.columns[i], se_rep_of_type(attribute->atttypid),
					   SE_BATCH_MAX, mine);

		if (column->attnum == event_time &&
			column->coercion.base != TIMESTAMPTZOID && column->coercion.base != TIMESTAMPOID)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("event time column \"%s\" is of type %s", column->name,
							column->type_name),
					 errhint("The event time must be of type timestamp with time zone.")));
	}

	se_rules_create(decoder, stream);
	for (int i = 0; i < decoder->ncolumns; i++)
	{
		if (bms_is_member(decoder->columns[i].attnum, decoder->check_columns))
			decoder->columns[i].needed = true;
	}
	MemoryContextSwitchTo(old);
	return decoder;
}

SeBatch *
se_decoder_batch(SeDecoder *decoder)
{
	return &decoder->batch;
}

/* ---- errors of rows ---- */

/* Takes "message", which lives in the batch's context. */
static void
set_bad_row(SeDecoder *decoder, int row, const SeColumn *column, int sqlstate, char *message)
{
	SeRowError *error = &decoder->row_errors[row];

	if (strlen(message) > MESSAGE_MAX)
	{
		int			len = pg_mbcliplen(message, strlen(message), MESSAGE_MAX);

		strcpy(message + len, "...");
	}
	decoder->batch.verdict[row] = SE_RECORD_BAD;
	error->row = row;
	error->sqlstate = sqlstate;
	error->message = message;
	error->column = column ? unconstify(char *, column->name) : NULL;
	decoder->batch.nerrors++;
}

void
se_decoder_bad_row(SeDecoder *decoder, int row, const SeColumn *column, int sqlstate,
				   const char *format,...)
{
	MemoryContext old;
	StringInfoData message;

	if (decoder->batch.verdict[row] != SE_RECORD_OK)
		return;

	old = MemoryContextSwitchTo(decoder->batch.context);
	initStringInfo(&message);
	for (;;)
	{
		va_list		args;
		int			more;

		va_start(args, format);
		more = appendStringInfoVA(&message, format, args);
		va_end(args);
		if (more == 0)
			break;
		enlargeStringInfo(&message, more);
	}
	set_bad_row(decoder, row, column, sqlstate, message.data);
	MemoryContextSwitchTo(old);
}

char *
se_decoder_printable(SeDecoder *decoder, const char *data, int len)
{
	char	   *result = MemoryContextAlloc(decoder->batch.context, Min(len, MESSAGE_MAX + 1) + 1);

	/* set_bad_row cuts off the message, at a character */
	len = Min(len, MESSAGE_MAX + 1);
	memcpy(result, data, len);
	result[len] = '\0';
	for (int i = 0; i < len; i++)
	{
		if (decoder->encode && IS_HIGHBIT_SET(result[i]))
			result[i] = '?';
	}
	return result;
}

/* The errors in the order of their rows. */
static void
collect_errors(SeDecoder *decoder)
{
	SeBatch    *batch = &decoder->batch;
	int			n = 0;

	if (batch->nerrors == 0)
		return;
	batch->errors = MemoryContextAlloc(batch->context, sizeof(SeRowError) * batch->nerrors);
	for (int row = 0; row < batch->nrecords; row++)
	{
		if (batch->verdict[row] == SE_RECORD_BAD)
			batch->errors[n++] = decoder->row_errors[row];
	}
	Assert(n == batch->nerrors);
}

/* ---- tasks ---- */

void
se_decoder_add_task(SeDecoder *decoder, SeTaskList *list, int row, int column)
{
	if (list->ntasks == list->capacity)
	{
		list->capacity = Max(list->capacity * 2, 256);
		if (list->tasks == NULL)
			list->tasks = MemoryContextAllocHuge(decoder->batch.context,
												 sizeof(SeTask) * list->capacity);
		else
			list->tasks = repalloc_huge(list->tasks, sizeof(SeTask) * list->capacity);
	}
	list->tasks[list->ntasks].row = row;
	list->tasks[list->ntasks].column = column;
	list->ntasks++;
}

/*
 * Does the server say such things of itself, whatever its input?
 */
static bool
is_servers_trouble(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
			return true;
	}
	return sqlstate == ERRCODE_DATA_CORRUPTED || sqlstate == ERRCODE_INDEX_CORRUPTED;
}

/*
 * Is a code one of the user's?  Such classes the standard leaves to servers, and
 * ours uses few of them; that of PL/pgSQL is what the user's functions raise.
 */
static bool
is_users_own(int sqlstate)
{
	static const char *const servers[] = {"53", "54", "55", "57", "58", "72", "XX"};
	const char *state = unpack_sql_state(sqlstate);

	if (strchr("56789IJKLMNOPQRSTUVWXYZ", state[0]) == NULL)
		return false;
	for (int i = 0; i < lengthof(servers); i++)
		if (strncmp(state, servers[i], 2) == 0)
			return false;
	return true;
}

/*
 * Is an error the record's fault?  Data exceptions and constraint violations
 * are, and what functions of the user's raise.  Input functions ("input")
 * complain in a few more ways about their input; from a default or a CHECK the
 * same would mean that the stream's definition is broken.  Those of types that are
 * not the server's own do as they like: hstore's raised internal errors up to
 * PostgreSQL 15, and PostGIS's do.
 */
static bool
row_is_to_blame(const SeDecoder *decoder, const SeTask *task, int sqlstate, bool input)
{
	if (input && decoder->columns[task->column].coercion.type >= FirstNormalObjectId)
		return !is_servers_trouble(sqlstate);
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			return true;
	}
	switch (sqlstate)
	{
		case ERRCODE_FEATURE_NOT_SUPPORTED: /* characters of another encoding */
		case ERRCODE_SYNTAX_ERROR:	/* tsquery, jsonpath */
		case ERRCODE_INVALID_NAME:	/* the reg... types */
		case ERRCODE_UNDEFINED_OBJECT:
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_AMBIGUOUS_FUNCTION:
		case ERRCODE_INVALID_SCHEMA_NAME:
			return input;
	}
	return is_users_own(sqlstate);
}

/* Set what input functions look at, until the current level of settings ends. */
static void
pin_settings(void)
{
	const char *zone = pg_get_timezone_name(session_timezone);

	if (strcmp(zone, "UTC") != 0)
		(void) set_config_option("timezone", "UTC", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (DateOrder != DATEORDER_MDY)
		(void) set_config_option("datestyle", "ISO, MDY", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (IntervalStyle != INTSTYLE_POSTGRES)
		(void) set_config_option("intervalstyle", "postgres", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/* Do the tasks from *next on; *next is the one that is done. */
static void
do_tasks(SeDecoder *decoder, const SeTaskList *list, SeTaskWork work, bool pinned,
		 volatile int *next)
{
	int			nest_level = NewGUCNestLevel();

	if (pinned)
		pin_settings();
	for (; *next < list->ntasks; (*next)++)
	{
		const SeTask *task = &list->tasks[*next];

		CHECK_FOR_INTERRUPTS();
		if (decoder->batch.verdict[task->row] == SE_RECORD_OK)
			work(decoder, task);
	}
	AtEOXact_GUC(true, nest_level);
}

void
se_decoder_tasks(SeDecoder *decoder, const SeTaskList *list, SeTaskWork work, bool pinned)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile int next = 0;

	if (list->ntasks == 0)
		return;

	/*
	 * A scan inside a parallel query cannot start subtransactions before
	 * PostgreSQL 17: there a bad row is an error of the query.
	 */
	if (!se_subtransactions_allowed())
	{
		MemoryContextSwitchTo(decoder->batch.context);
		do_tasks(decoder, list, work, pinned, &next);
		MemoryContextSwitchTo(old);
		return;
	}

	while (next < list->ntasks)
	{
		int			first = next;

		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(decoder->batch.context);
		PG_TRY();
		{
			do_tasks(decoder, list, work, pinned, &next);
			ReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(old);
			CurrentResourceOwner = owner;
		}
		PG_CATCH();
		{
			ErrorData  *error;
			bool		changes;
			const SeTask *task;
			SeColumn   *column;

			MemoryContextSwitchTo(decoder->batch.context);
			error = CopyErrorData();
			FlushErrorState();
			changes = TransactionIdIsValid(GetCurrentTransactionIdIfAny());
			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(old);
			CurrentResourceOwner = owner;

			if (next >= list->ntasks ||
				!row_is_to_blame(decoder, &list->tasks[next], error->sqlerrcode, pinned))
				ReThrowError(error);
			task = &list->tasks[next];
			column = task->column < 0 ? NULL : &decoder->columns[task->column];
			if (error->detail != NULL)
				se_decoder_bad_row(decoder, task->row, column, error->sqlerrcode,
								   "%s (%s)", error->message, error->detail);
			else
				se_decoder_bad_row(decoder, task->row, column, error->sqlerrcode,
								   "%s", error->message);
			next = changes ? first : next + 1;
		}
		PG_END_TRY();
	}
}

/* ---- a run ---- */

static void
value_task(SeDecoder *decoder, const SeTask *task)
{
	SeColumn   *column = &decoder->columns[task->column];
	const SeJsonValue *value;
	ErrorData  *error = NULL;
	Datum		datum;
	bool		isnull;

	if (column->metadata != SE_META_NONE)
	{
		se_metadata_task(decoder, task);
		return;
	}
	value = &se_json_values(decoder->json, column->slot)[task->row];
	datum = se_coerce_value(&column->coercion, value, &isnull, &error);
	if (error != NULL)
	{
		if (error->detail != NULL)
			se_decoder_bad_row(decoder, task->row, column, error->sqlerrcode,
							   "%s (%s)", error->message, error->detail);
		else
			se_decoder_bad_row(decoder, task->row, column, error->sqlerrcode,
							   "%s", error->message);
		return;
	}
	se_vector_set(&decoder->batch.columns[column->attnum - 1], task->row,
				  column->coercion.type, datum, isnull);
}

void
se_decoder_run(SeDecoder *decoder, const SeRecord *records, int nrecords)
{
	SeBatch    *batch = &decoder->batch;

	Assert(nrecords <= SE_BATCH_MAX);
	MemoryContextReset(batch->context);
	memset(&decoder->values, 0, sizeof(SeTaskList));
	memset(&decoder->defaults, 0, sizeof(SeTaskList));
	batch->nrecords = nrecords;
	batch->records = records;
	batch->nerrors = 0;
	batch->errors = NULL;
	for (int row = 0; row < nrecords; row++)
		batch->verdict[row] = records[row].payload ? SE_RECORD_OK : SE_RECORD_TOMBSTONE;

	se_json_decoder_run(decoder);
	for (int i = 0; i < decoder->ncolumns; i++)
	{
		SeColumn   *column = &decoder->columns[i];

		/* every record has its position: if nobody reads it, nothing is to be judged */
		if ((column->metadata == SE_META_PARTITION || column->metadata == SE_META_OFFSET) &&
			!column->needed)
			memset(batch->columns[column->attnum - 1].null, false, nrecords);
		else if (column->metadata != SE_META_NONE)
			se_metadata_run(decoder, i);
	}
	se_decoder_tasks(decoder, &decoder->values, value_task, true);
	se_rules_run(decoder);
	collect_errors(decoder);
}
