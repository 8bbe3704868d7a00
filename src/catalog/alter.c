/*
 * alter.c
 *	  alter_stream, alter_query; purge_late, purge_dead_letters.
 *
 * NOTES
 *	  An argument that is NULL leaves its setting as it is.  All arguments are
 *	  checked before anything is changed, and the readers concerned read their
 *	  definitions again, so that what is altered holds for the records that come
 *	  after their next commit, and for whole commits.
 *
 *	  alter_stream writes an ALTER FOREIGN TABLE, which runs as the caller: what a
 *	  stream is stands in its table's options and nowhere else.
 *
 *	  State of closed windows that has been dropped does not come back when
 *	  allowed_lateness or correction_horizon grow: kept_from of a query is the end
 *	  of the last window of which that is so, and such windows take no record
 *	  whatever the lateness is.  Shrinking drops state by the next commit.
 *
 *	  What is purged has served its purpose for its reader, but not for verify(),
 *	  which reads the same records again: of dead letters that an operator or the
 *	  clock has made the position is kept; a query whose late records are purged
 *	  cannot be verified any more (late_purged).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "commands/defrem.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "ddl.h"
#include "engine/engine.h"
#include "query/query.h"

PG_FUNCTION_INFO_V1(se_alter_stream);
PG_FUNCTION_INFO_V1(se_alter_query);
PG_FUNCTION_INFO_V1(se_purge_late);
PG_FUNCTION_INFO_V1(se_purge_dead_letters);

/* ---- alter_stream ---- */

/* Arguments of alter_stream, in the order of its declaration. */
enum
{
	STREAM_NAME, STREAM_WATERMARK_DELAY, STREAM_IDLE_TIMEOUT, STREAM_IDLE_CLOSE, STREAM_MAX_FUTURE,
	STREAM_ON_ERROR, STREAM_ON_ERROR_LIMIT, STREAM_STAGING_RETENTION, STREAM_OPTIONS
};

typedef struct OptionChanges
{
	SeStream   *stream;
	List	   *present;		/* of DefElem: the table's options */
	List	   *names;			/* of char *: changed already */
	StringInfoData sql;			/* inside of OPTIONS (...) */
} OptionChanges;

/* Options that say what a position means, or what the results are made of. */
static void
check_alterable(const OptionChanges *changes, const char *name)
{
	static const char *const fixed[] = {"topic", "format", "event_time", "start", "workers", "table"};

	for (int i = 0; i < lengthof(fixed); i++)
		if (strcmp(name, fixed[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("option \"%s\" of stream %s cannot be altered", name,
							changes->stream->name),
					 errdetail("Positions and results of its queries would lose their meaning."),
					 errhint("Create another stream.")));
	if (strcmp(name, "watermark_delay") == 0 && changes->stream->options.processing_time)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the watermark of stream %s is the clock", changes->stream->name)));
}

/* Set an option, or with NULL go back to its default. */
static void
change_option(OptionChanges *changes, const char *name, const char *value)
{
	ListCell   *cell;
	bool		present = false;

	check_alterable(changes, name);
	foreach(cell, changes->names)
		if (strcmp(lfirst(cell), name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" is given twice", name)));
	changes->names = lappend(changes->names, pstrdup(name));
	foreach(cell, changes->present)
		if (strcmp(lfirst_node(DefElem, cell)->defname, name) == 0)
			present = true;
	if (value == NULL && !present)
		return;
	if (changes->sql.len > 0)
		appendStringInfoString(&changes->sql, ", ");
	appendStringInfo(&changes->sql, "%s %s", value == NULL ? "DROP" : present ? "SET" : "ADD",
					 quote_identifier(name));
	if (value != NULL)
		appendStringInfo(&changes->sql, " %s", quote_literal_cstr(value));
}

static void
change_interval(FunctionCallInfo fcinfo, OptionChanges *changes, int arg, const char *name)
{
	if (!PG_ARGISNULL(arg))
		change_option(changes, name,
					  DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(arg))));
}

static void
change_json_options(OptionChanges *changes, Jsonb *options)
{
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	char	   *name = NULL;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"options\" must be a JSON object")));
	it = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (value.type == jbvNull)
			change_option(changes, name, NULL);
		else if (value.type == jbvString)
			change_option(changes, name, pnstrdup(value.val.string.val, value.val.string.len));
		else if (value.type == jbvNumeric)
			change_option(changes, name,
						  DatumGetCString(DirectFunctionCall1(numeric_out,
															  NumericGetDatum(value.val.numeric))));
		else if (value.type == jbvBool)
			change_option(changes, name, value.val.boolean ? "true" : "false");
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" must be a string, a number, a boolean or null", name)));
	}
}

/* Staging has tables and a reader of its own, which are made with the stream. */
static void
check_staging(FunctionCallInfo fcinfo, const SeStream *stream)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(stream->id);
	Interval   *retention;
	bool		has_staging;

	if (PG_ARGISNULL(STREAM_STAGING_RETENTION))
		return;
	retention = PG_GETARG_INTERVAL_P(STREAM_STAGING_RETENTION);
	if (retention->month == 0 && retention->day == 0 && retention->time == 0)
		return;
	se_catalog_begin(&scope);
	has_staging = se_spi("SELECT FROM stream_engine.reader WHERE stream = $1 AND head", 1, &type,
						 &value, NULL, SPI_OK_SELECT) > 0;
	se_catalog_end(&scope);
	if (!has_staging)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream %s keeps no rows, which cannot be altered", stream->name),
				 errhint("Create another stream over the topic, with staging_retention.")));
}

Datum
se_alter_stream(PG_FUNCTION_ARGS)
{
	OptionChanges changes = {0};
	Oid			relid;

	se_require_argument(fcinfo, STREAM_NAME, "name");
	relid = PG_GETARG_OID(STREAM_NAME);
	changes.stream = se_find_stream(relid);
	/* before any row: readers hold it while they wait for their rows */
	se_wake_manager();
	LockRelationOid(relid, AccessExclusiveLock);
	if (get_rel_name(relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("stream %s has been dropped", changes.stream->name)));
	changes.present = GetForeignTable(relid)->options;
	initStringInfo(&changes.sql);

	check_staging(fcinfo, changes.stream);
	change_interval(fcinfo, &changes, STREAM_WATERMARK_DELAY, "watermark_delay");
	change_interval(fcinfo, &changes, STREAM_IDLE_TIMEOUT, "idle_timeout");
	change_interval(fcinfo, &changes, STREAM_IDLE_CLOSE, "idle_close");
	change_interval(fcinfo, &changes, STREAM_MAX_FUTURE, "max_future");
	change_interval(fcinfo, &changes, STREAM_STAGING_RETENTION, "staging_retention");
	if (!PG_ARGISNULL(STREAM_ON_ERROR))
		change_option(&changes, "on_error", text_to_cstring(PG_GETARG_TEXT_PP(STREAM_ON_ERROR)));
	if (!PG_ARGISNULL(STREAM_ON_ERROR_LIMIT))
		change_option(&changes, "on_error_limit",
					  psprintf("%d", PG_GETARG_INT32(STREAM_ON_ERROR_LIMIT)));
	if (!PG_ARGISNULL(STREAM_OPTIONS))
		change_json_options(&changes, PG_GETARG_JSONB_P(STREAM_OPTIONS));
	if (changes.sql.len == 0)
		PG_RETURN_VOID();

	SPI_connect();
	/* by the name that it has now: it may have been renamed while we waited for the lock */
	se_run_utility(psprintf("ALTER FOREIGN TABLE %s OPTIONS (%s)",
							quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
													   get_rel_name(relid)), changes.sql.data));
	SPI_finish();
	se_fence_stream(changes.stream->id);
	PG_RETURN_VOID();
}

/* ---- alter_query ---- */

/* Arguments of alter_query, in the order of its declaration. */
enum
{
	QUERY_NAME, QUERY_EMIT_INTERVAL, QUERY_LATE, QUERY_TRIGGER_INTERVAL, QUERY_ALLOWED_LATENESS,
	QUERY_CORRECTION_HORIZON, QUERY_PAUSED
};

static void
refuse_unless(bool fits, const SeQueryDef *query, const char *argument, const char *what)
{
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("argument \"%s\" is for %s, which query %s is not", argument, what,
						query->name)));
}

/* Microseconds of an interval of a fixed length that is not negative. */
static int64
argument_interval(FunctionCallInfo fcinfo, int arg, const char *name)
{
	se_check_interval(fcinfo, arg, name);
	return PG_GETARG_INTERVAL_P(arg)->day * USECS_PER_DAY + PG_GETARG_INTERVAL_P(arg)->time;
}

/* What does not fit the query is refused here, before anything is changed. */
static void
check_changes(FunctionCallInfo fcinfo, const SeQueryDef *query)
{
	bool		global = query->trigger_count > 0 || query->trigger_interval > 0;
	bool		changes = strcmp(query->emit, "changes") == 0;

	if (!PG_ARGISNULL(QUERY_EMIT_INTERVAL))
	{
		refuse_unless(changes, query, "emit_interval", "queries with emit => 'changes'");
		(void) argument_interval(fcinfo, QUERY_EMIT_INTERVAL, "emit_interval");
	}
	if (!PG_ARGISNULL(QUERY_TRIGGER_INTERVAL))
	{
		refuse_unless(global, query, "trigger_interval", "queries without a window");
		if (argument_interval(fcinfo, QUERY_TRIGGER_INTERVAL, "trigger_interval") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"trigger_interval\" must be a positive interval without months")));
	}
	if (!PG_ARGISNULL(QUERY_LATE))
		se_check_late(text_to_cstring(PG_GETARG_TEXT_PP(QUERY_LATE)));
	if (PG_ARGISNULL(QUERY_ALLOWED_LATENESS) && PG_ARGISNULL(QUERY_CORRECTION_HORIZON))
		return;

	if (global)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s is not supported for queries without a window",
						PG_ARGISNULL(QUERY_ALLOWED_LATENESS) ? "correction_horizon" :
						"allowed_lateness")));
	if (se_query_plan_of_view(query->batch_view)->window.kind == SE_WINDOW_SESSION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("allowed_lateness and correction_horizon of session windows cannot be altered"),
				 errdetail("What is kept of each session depends on them."),
				 errhint("Create the query anew.")));
	if (!PG_ARGISNULL(QUERY_ALLOWED_LATENESS))
		(void) argument_interval(fcinfo, QUERY_ALLOWED_LATENESS, "allowed_lateness");
	if (!PG_ARGISNULL(QUERY_CORRECTION_HORIZON))
	{
		refuse_unless(!changes, query, "correction_horizon", "queries with emit => 'final'");
		(void) argument_interval(fcinfo, QUERY_CORRECTION_HORIZON, "correction_horizon");
	}
}

/*
 * Windows that have been closed for longer than their state was kept have none to
 * be corrected with.  The reader's row is locked: no window closes meanwhile.
 */
static void
keep_longer(const SeQueryDef *query, int64 retention)
{
	int64		before = Max(query->allowed_lateness, query->correction_horizon);
	SeCatalogScope scope;
	Oid			types[2] = {INT4OID, INT8OID};
	Datum		values[2];

	if (retention <= before)
		return;
	values[0] = Int32GetDatum(query->id);
	values[1] = Int64GetDatum(before);
	se_catalog_begin(&scope);
	se_spi("UPDATE stream_engine.query q SET kept_from = GREATEST(q.kept_from,"
		   " r.watermark - $2 * '1 microsecond'::interval)"
		   " FROM stream_engine.query_progress p JOIN stream_engine.reader r ON r.id = p.reader"
		   " WHERE q.id = $1 AND p.query = q.id AND r.watermark > '-infinity'",
		   2, types, values, NULL, SPI_OK_UPDATE);
	se_catalog_end(&scope);
}

Datum
se_alter_query(PG_FUNCTION_ARGS)
{
	SeQueryDef *query;
	int64		lateness;
	int64		horizon;
	SeCatalogScope scope;
	Oid			types[6] = {INT4OID, INTERVALOID, TEXTOID, INTERVALOID, INTERVALOID, INTERVALOID};
	Datum		values[6];
	char		nulls[] = "      ";

	se_require_argument(fcinfo, QUERY_NAME, "name");
	query = se_find_query(PG_GETARG_OID(QUERY_NAME));
	check_changes(fcinfo, query);
	se_fence_query(query->id);
	/* as it is now that nobody else changes it */
	query = se_query_load(query->id);
	if (query == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the query has been dropped")));

	lateness = PG_ARGISNULL(QUERY_ALLOWED_LATENESS) ? query->allowed_lateness :
		argument_interval(fcinfo, QUERY_ALLOWED_LATENESS, "allowed_lateness");
	horizon = PG_ARGISNULL(QUERY_CORRECTION_HORIZON) ? query->correction_horizon :
		argument_interval(fcinfo, QUERY_CORRECTION_HORIZON, "correction_horizon");
	keep_longer(query, Max(lateness, horizon));

	values[0] = Int32GetDatum(query->id);
	for (int i = 1; i < lengthof(values); i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	se_catalog_begin(&scope);
	se_spi("UPDATE stream_engine.query SET emit_interval = COALESCE($2, emit_interval),"
		   " late = COALESCE($3, late),"
	/* what has been dropped has left no positions */
		   " late_purged = late_purged OR (late = 'drop' AND $3 = 'store'),"
		   " trigger_interval = COALESCE($4, trigger_interval),"
		   " allowed_lateness = COALESCE($5, allowed_lateness),"
		   " correction_horizon = COALESCE($6, correction_horizon) WHERE id = $1",
		   lengthof(values), types, values, nulls, SPI_OK_UPDATE);
	se_catalog_end(&scope);
	if (!PG_ARGISNULL(QUERY_PAUSED))
		se_query_set_paused(query->id, PG_GETARG_BOOL(QUERY_PAUSED));
	PG_RETURN_VOID();
}

/* ---- purge ---- */

Datum
se_purge_late(PG_FUNCTION_ARGS)
{
	SeQueryDef *query;
	SeCatalogScope scope;
	Oid			types[2] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[2];
	uint64		n;

	se_require_argument(fcinfo, 0, "query");
	se_require_argument(fcinfo, 1, "before");
	query = se_find_query(PG_GETARG_OID(0));
	values[0] = Int32GetDatum(query->id);
	values[1] = PG_GETARG_DATUM(1);
	se_catalog_begin(&scope);
	/* no commit of the reader, which may be about to retry some */
	(void) se_query_lock_reader(query->id);
	n = se_spi("DELETE FROM stream_engine.late_event WHERE query = $1 AND seen_at < $2 AND NOT retry",
			   2, types, values, NULL, SPI_OK_DELETE);
	if (n > 0)
		se_spi("UPDATE stream_engine.query SET late_purged = true WHERE id = $1", 1, types, values,
			   NULL, SPI_OK_UPDATE);
	se_catalog_end(&scope);
	PG_RETURN_INT64((int64) n);
}

Datum
se_purge_dead_letters(PG_FUNCTION_ARGS)
{
	SeStream   *stream;
	SeCatalogScope scope;
	Oid			types[2] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[2];
	uint64		n;

	se_require_argument(fcinfo, 0, "stream");
	se_require_argument(fcinfo, 1, "before");
	stream = se_find_stream(PG_GETARG_OID(0));
	values[0] = Int32GetDatum(stream->id);
	values[1] = PG_GETARG_DATUM(1);
	se_catalog_begin(&scope);

	/* a reader that has not come to the record yet would want the verdict */
#define PASSED \
	" d.stream = $1 AND d.seen_at < $2 AND NOT EXISTS (SELECT FROM stream_engine.reader_partition p" \
	" JOIN stream_engine.reader r ON r.id = p.reader WHERE r.stream = $1" \
	" AND r.absorbed_by IS NULL AND p.partition = d.partition AND p.next_offset <= d.\"offset\")"

	n = se_spi("DELETE FROM stream_engine.dead_letter d WHERE d.reason = 'bad' AND" PASSED,
			   2, types, values, NULL, SPI_OK_DELETE);
	n += se_spi("UPDATE stream_engine.dead_letter d SET key = NULL, payload = NULL, headers = NULL, purged = true"
				" WHERE d.reason <> 'bad' AND NOT d.purged AND" PASSED, 2, types, values, NULL,
				SPI_OK_UPDATE);
	se_catalog_end(&scope);
	PG_RETURN_INT64((int64) n);
}
