/*
 * query_ddl.c
 *	  create_query and validate_query.
 *
 * NOTES
 *	  A query is four relations: the view <name>_batch, which is its definition
 *	  (the SELECT with the window's bounds in front); the result table <name>; the
 *	  foreign table <name>_open, whose scan computes the open windows; and the
 *	  view <name>_live over the last two.  All belong to the caller and are made
 *	  by plain DDL as the caller.  Automatic dependencies let the other relations
 *	  go with the batch view or the result table; an event trigger removes the
 *	  engine's rows then.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "ddl.h"
#include "engine/engine.h"
#include "query/query.h"
#include "stream_ddl.h"

PG_FUNCTION_INFO_V1(se_create_query);
PG_FUNCTION_INFO_V1(se_validate_query);

#define RESOLVE_TIMEOUT_MS 5000

/* Of intervals that are added to the ends of windows. */
#define MAX_RETENTION_DAYS 36525

/* Arguments of create_query, in the order of its declaration. */
enum
{
	ARG_NAME, ARG_QUERY, ARG_EMIT, ARG_EMIT_INTERVAL, ARG_ALLOWED_LATENESS, ARG_LATE,
	ARG_TRIGGER_COUNT, ARG_TRIGGER_INTERVAL, ARG_CORRECTION_HORIZON, ARG_START, ARG_INTO,
	ARG_RETENTION, ARG_PAUSED, ARG_EMIT_PARTIAL, ARG_IF_NOT_EXISTS, ARG_STATE_TTL
};

static void
refuse(bool given, const char *argument, const char *value)
{
	if (given)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("argument \"%s\" is not supported%s%s", argument,
						value ? " with value " : "", value ? value : "")));
}

/* Sums of it and a time must not overflow; it has no months. */
static void
check_length(const Interval *value, const char *name)
{
	if (value->day < -MAX_RETENTION_DAYS || value->day > MAX_RETENTION_DAYS ||
		value->time < -MAX_RETENTION_DAYS * USECS_PER_DAY ||
		value->time > MAX_RETENTION_DAYS * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not exceed %d days", name, MAX_RETENTION_DAYS)));
}

void
se_check_interval(FunctionCallInfo fcinfo, int arg, const char *name)
{
	Interval   *value;

	if (PG_ARGISNULL(arg))
		return;
	value = PG_GETARG_INTERVAL_P(arg);
	if (value->month != 0 || value->day < 0 || value->time < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative and not have months", name)));
	check_length(value, name);
}

void
se_check_late(const char *value)
{
	if (strcmp(value, "store") != 0 && strcmp(value, "drop") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"late\": \"%s\"", value),
				 errhint("It must be 'store' or 'drop'.")));
}

/* What is not offered is refused here, before anything is changed. */
static void
check_arguments(FunctionCallInfo fcinfo)
{
	char	   *value;

	if (PG_ARGISNULL(ARG_NAME) || PG_ARGISNULL(ARG_QUERY))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("arguments \"name\" and \"query\" must not be null")));

	value = PG_ARGISNULL(ARG_EMIT) ? "final" : text_to_cstring(PG_GETARG_TEXT_PP(ARG_EMIT));
	if (strcmp(value, "final") != 0 && strcmp(value, "changes") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"emit\": \"%s\"", value),
				 errhint("It must be 'final' or 'changes'.")));
	if (strcmp(value, "changes") != 0 && !PG_ARGISNULL(ARG_EMIT_INTERVAL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"emit_interval\" is for emit => 'changes'")));
	if (strcmp(value, "changes") == 0 && !PG_ARGISNULL(ARG_CORRECTION_HORIZON))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"correction_horizon\" is for emit => 'final'")));
	if (!PG_ARGISNULL(ARG_LATE))
		se_check_late(text_to_cstring(PG_GETARG_TEXT_PP(ARG_LATE)));
	se_check_interval(fcinfo, ARG_EMIT_INTERVAL, "emit_interval");
	se_check_interval(fcinfo, ARG_ALLOWED_LATENESS, "allowed_lateness");
	se_check_interval(fcinfo, ARG_CORRECTION_HORIZON, "correction_horizon");
	refuse(!PG_ARGISNULL(ARG_INTO), "into_table", NULL);
	refuse(!PG_ARGISNULL(ARG_RETENTION), "retention", NULL);
}

static void
check_positive(FunctionCallInfo fcinfo, int arg, const char *name)
{
	Interval   *value;

	if (PG_ARGISNULL(arg))
		return;
	value = PG_GETARG_INTERVAL_P(arg);
	if (value->month != 0 || (double) value->day * USECS_PER_DAY + value->time <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a positive interval without months", name)));
	check_length(value, name);
}

/* Only a window that ends can be shown before, or corrected. */
static void
check_emission(FunctionCallInfo fcinfo, const SeQueryPlan *plan)
{
	const char *argument = NULL;

	if (plan->window.kind != SE_WINDOW_GLOBAL)
		return;
	if (!PG_ARGISNULL(ARG_CORRECTION_HORIZON))
		argument = "correction_horizon";
	else if (!PG_ARGISNULL(ARG_EMIT) &&
			 strcmp(text_to_cstring(PG_GETARG_TEXT_PP(ARG_EMIT)), "changes") == 0)
		argument = "emit => 'changes'";
	else if (!PG_ARGISNULL(ARG_ALLOWED_LATENESS) &&
			 (PG_GETARG_INTERVAL_P(ARG_ALLOWED_LATENESS)->time != 0 ||
			  PG_GETARG_INTERVAL_P(ARG_ALLOWED_LATENESS)->day != 0))
		argument = "allowed_lateness";
	if (argument != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s is not supported for queries without a window", argument)));
}

static void
store_emission(FunctionCallInfo fcinfo, int32 query)
{
	SeCatalogScope scope;
	Oid			types[5] = {INT4OID, TEXTOID, INTERVALOID, INTERVALOID, INTERVALOID};
	static const int args[5] = {-1, ARG_EMIT, ARG_EMIT_INTERVAL, ARG_ALLOWED_LATENESS,
	ARG_CORRECTION_HORIZON};
	Datum		values[5];
	char		nulls[] = "     ";

	values[0] = Int32GetDatum(query);
	for (int i = 1; i < lengthof(args); i++)
	{
		values[i] = PG_GETARG_DATUM(args[i]);
		nulls[i] = PG_ARGISNULL(args[i]) ? 'n' : ' ';
	}
	se_catalog_begin(&scope);
	se_spi("UPDATE stream_engine.query SET emit = COALESCE($2, 'final'),"
		   " emit_interval = CASE WHEN $2 = 'changes' THEN COALESCE($3, '1 second'::interval) END,"
		   " allowed_lateness = COALESCE($4, '0'::interval), correction_horizon = $5 WHERE id = $1",
		   5, types, values, nulls, SPI_OK_UPDATE);
	se_catalog_end(&scope);
}

/* A query without a window needs a trigger, and only such a query has one. */
static void
check_triggers(FunctionCallInfo fcinfo, const SeQueryPlan *plan)
{
	bool		given = !PG_ARGISNULL(ARG_TRIGGER_COUNT) || !PG_ARGISNULL(ARG_TRIGGER_INTERVAL);

	if (plan->window.kind == SE_WINDOW_GLOBAL && !given)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a query without a window never emits anything by itself"),
				 errhint("Give trigger_count or trigger_interval, or group by a window such as tumble().")));
	if (plan->window.kind != SE_WINDOW_GLOBAL && (given || !PG_ARGISNULL(ARG_STATE_TTL)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger_count, trigger_interval and state_ttl are for queries without a window")));
	if (!PG_ARGISNULL(ARG_TRIGGER_COUNT) && PG_GETARG_INT64(ARG_TRIGGER_COUNT) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"trigger_count\" must be positive")));
	check_positive(fcinfo, ARG_TRIGGER_INTERVAL, "trigger_interval");
	check_positive(fcinfo, ARG_STATE_TTL, "state_ttl");
}

static void
store_triggers(FunctionCallInfo fcinfo, int32 query)
{
	SeCatalogScope scope;
	Oid			types[4] = {INT4OID, INT8OID, INTERVALOID, INTERVALOID};
	Datum		values[4];
	char		nulls[] = "    ";

	values[0] = Int32GetDatum(query);
	values[1] = PG_GETARG_DATUM(ARG_TRIGGER_COUNT);
	values[2] = PG_GETARG_DATUM(ARG_TRIGGER_INTERVAL);
	values[3] = PG_GETARG_DATUM(ARG_STATE_TTL);
	nulls[1] = PG_ARGISNULL(ARG_TRIGGER_COUNT) ? 'n' : ' ';
	nulls[2] = PG_ARGISNULL(ARG_TRIGGER_INTERVAL) ? 'n' : ' ';
	nulls[3] = PG_ARGISNULL(ARG_STATE_TTL) ? 'n' : ' ';
	se_catalog_begin(&scope);
	se_spi("UPDATE stream_engine.query SET trigger_count = $2, trigger_interval = $3,"
		   " state_ttl = $4 WHERE id = $1", 4, types, values, nulls, SPI_OK_UPDATE);
	se_catalog_end(&scope);
}

/* "name type collate" of each output column, and their names alone. */
static void
output_columns(TupleDesc desc, StringInfo definitions, StringInfo names)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		appendStringInfo(definitions, ", %s %s", quote_identifier(NameStr(att->attname)),
						 format_type_extended(att->atttypid, att->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
											  FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(att->attcollation) && att->attcollation != get_typcollation(att->atttypid))
			appendStringInfo(definitions, " COLLATE %s",
							 generate_collation_name(att->attcollation));
		appendStringInfo(names, ", %s", quote_identifier(NameStr(att->attname)));
	}
}

static void
comment(const char *kind, const RangeVar *name, const char *text)
{
	se_run_utility(psprintf("COMMENT ON %s %s IS %s", kind, se_quote_name(name),
							quote_literal_cstr(text)));
}

typedef struct QueryRelations
{
	RangeVar   *result;
	RangeVar   *batch;
	RangeVar   *open;
	RangeVar   *live;
	Oid			result_oid;
	Oid			batch_oid;
	Oid			open_oid;
	Oid			live_oid;
} QueryRelations;

/* Name of the output column that shows a key. */
static const char *
key_column(const SeQueryPlan *plan, int key)
{
	return NameStr(TupleDescAttr(plan->output_desc, plan->keys[key].output - 1)->attname);
}

/* "shows_open": the result table holds rows of open windows as well. */
static void
create_relations(QueryRelations *relations, const SeQueryPlan *plan, const char *batch_sql,
				 bool shows_open)
{
	StringInfoData definitions;
	StringInfoData names;
	StringInfoData keys;
	char	   *shown;
	int			nest_level;

	initStringInfo(&definitions);
	initStringInfo(&names);
	initStringInfo(&keys);
	output_columns(plan->output_desc, &definitions, &names);
	for (int i = 0; i < plan->nkeys; i++)
		appendStringInfo(&keys, ", %s",
						 quote_identifier(key_column(plan, i)));
	shown = se_quote_name(relations->result);

	SPI_connect();
	/* names in the text are qualified for this path: under another they may be others' */
	nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", SE_BATCH_SEARCH_PATH, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	se_run_utility(psprintf("CREATE VIEW %s AS %s", se_quote_name(relations->batch), batch_sql));
	AtEOXact_GUC(true, nest_level);
	se_run_utility(psprintf("CREATE TABLE %s (window_start timestamp with time zone NOT NULL,"
							" window_end timestamp with time zone NOT NULL%s,"
							" is_final boolean NOT NULL DEFAULT true,"
							" revision integer NOT NULL DEFAULT 0,"
							" emitted_at timestamp with time zone NOT NULL DEFAULT pg_catalog.clock_timestamp())",
							shown, definitions.data));
	se_run_utility(psprintf("CREATE UNIQUE INDEX ON %s (window_start, window_end%s) NULLS NOT DISTINCT",
							shown, keys.data));
	se_run_utility(psprintf("ALTER TABLE %s REPLICA IDENTITY FULL", shown));
	se_run_utility(psprintf("CREATE FOREIGN TABLE %s (window_start timestamp with time zone,"
							" window_end timestamp with time zone%s, is_final boolean) SERVER stream_engine_state",
							se_quote_name(relations->open), definitions.data));
	se_run_utility(psprintf("CREATE VIEW %s WITH (security_invoker = true) AS"
							" SELECT window_start, window_end%s, is_final, revision, emitted_at FROM %s%s"
							" UNION ALL"
							" SELECT window_start, window_end%s, is_final, 0, NULL::timestamp with time zone FROM %s",
							se_quote_name(relations->live), names.data, shown,
							shows_open ? " WHERE is_final" : "", names.data,
							se_quote_name(relations->open)));
	comment("TABLE", relations->result, "closed windows of a stream_engine query");
	comment("VIEW", relations->batch, psprintf("the query of %s, run as a batch over the topic", shown));
	comment("FOREIGN TABLE", relations->open, psprintf("open windows of %s", shown));
	comment("VIEW", relations->live, psprintf("closed and open windows of %s", shown));
	SPI_finish();

	relations->result_oid = RangeVarGetRelid(relations->result, NoLock, false);
	relations->batch_oid = RangeVarGetRelid(relations->batch, NoLock, false);
	relations->open_oid = RangeVarGetRelid(relations->open, NoLock, false);
	relations->live_oid = RangeVarGetRelid(relations->live, NoLock, false);
	se_depend_auto(relations->open_oid, relations->batch_oid);
	se_depend_auto(relations->live_oid, relations->batch_oid);
	se_depend_auto(relations->live_oid, relations->result_oid);
}

/* The settings that decide what the query's functions do. */
static Datum
pinned_settings(void)
{
	static const char *const names[] = {
		"search_path", "TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits",
		"bytea_output", "lc_monetary", "lc_numeric", "lc_time", "default_text_search_config"
	};
	Datum		values[lengthof(names)];

	for (int i = 0; i < lengthof(names); i++)
		values[i] = CStringGetTextDatum(psprintf("%s=%s", names[i],
												 GetConfigOptionByName(names[i], NULL, false)));
	return PointerGetDatum(construct_array(values, lengthof(names), TEXTOID, -1, false,
										   TYPALIGN_INT));
}

static int32
insert_query(FunctionCallInfo fcinfo, const QueryRelations *relations, const SeStream *stream,
			 const char *start, bool session)
{
	SeCatalogScope scope;
	Oid			types[11] = {INT4OID, OIDOID, OIDOID, OIDOID, OIDOID, TEXTOID, BOOLOID, TEXTOID,
	TEXTARRAYOID, TEXTOID, BOOLOID};
	Datum		values[11];
	bool		paused = !PG_ARGISNULL(ARG_PAUSED) && PG_GETARG_BOOL(ARG_PAUSED);
	bool		isnull;
	int32		query;

	values[0] = Int32GetDatum(stream->id);
	values[1] = ObjectIdGetDatum(relations->batch_oid);
	values[2] = ObjectIdGetDatum(relations->result_oid);
	values[3] = ObjectIdGetDatum(relations->live_oid);
	values[4] = ObjectIdGetDatum(relations->open_oid);
	values[5] = PG_ARGISNULL(ARG_LATE) ? CStringGetTextDatum("store") : PG_GETARG_DATUM(ARG_LATE);
	values[6] = BoolGetDatum(!PG_ARGISNULL(ARG_EMIT_PARTIAL) && PG_GETARG_BOOL(ARG_EMIT_PARTIAL));
	values[7] = CStringGetTextDatum(start);
	values[8] = pinned_settings();
	values[9] = CStringGetTextDatum(paused ? "paused" : "running");
	values[10] = BoolGetDatum(session);
	se_catalog_begin(&scope);
	se_spi("INSERT INTO stream_engine.query"
		   " (stream, batch_view, result, live_view, open_table, late, emit_partial, start, settings,"
		   " state, session)"
		   " VALUES ($1, $2::regclass, $3::regclass, $4::regclass, $5::regclass, $6, $7, $8, $9, $10,"
		   " $11) RETURNING id", 11, types, values, NULL, SPI_OK_INSERT_RETURNING);
	query = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	se_catalog_end(&scope);
	return query;
}

static void
insert_progress(int32 query, int32 reader, const SeStream *stream)
{
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, INT4OID, TIMESTAMPTZOID};
	Datum		values[3];

	values[0] = Int32GetDatum(query);
	values[1] = Int32GetDatum(reader);
	values[2] = TimestampTzGetDatum(se_stream_complete_from(stream));
	se_catalog_begin(&scope);
	se_spi("INSERT INTO stream_engine.query_progress (query, reader, complete_from)"
		   " VALUES ($1, $2, $3)", 3, types, values, NULL, SPI_OK_INSERT);
	se_catalog_end(&scope);
}

Datum
se_create_query(PG_FUNCTION_ARGS)
{
	QueryRelations relations = {0};
	ParseState *pstate;
	Query	   *query;
	SeQueryPlan *plan;
	SeStream   *stream;
	char	   *batch_sql;
	char	   *start;
	int32		query_id;
	int32		reader = 0;
	bool		session;
	SePosition *positions;
	bool	   *complete;
	int			npositions;
	int64		nrecords;

	se_require_preload();
	check_arguments(fcinfo);
	relations.result = se_parse_name(text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME)));
	if (!PG_ARGISNULL(ARG_IF_NOT_EXISTS) && PG_GETARG_BOOL(ARG_IF_NOT_EXISTS))
	{
		Oid			existing = RangeVarGetRelid(relations.result, NoLock, true);

		if (OidIsValid(existing))
		{
			ereport(NOTICE,
					(errcode(ERRCODE_DUPLICATE_TABLE),
					 errmsg("relation \"%s\" already exists, skipping", relations.result->relname)));
			PG_RETURN_OID(existing);
		}
	}
	relations.result->schemaname =
		get_namespace_name(RangeVarGetCreationNamespace(relations.result));
	if (isAnyTempNamespace(get_namespace_oid(relations.result->schemaname, false)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("a query cannot be temporary"),
				 errdetail("Its workers could not see the tables of this session.")));
	if (OidIsValid(RangeVarGetRelid(relations.result, NoLock, true)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", relations.result->relname)));
	relations.batch = se_name_with_suffix(relations.result, "_batch");
	relations.open = se_name_with_suffix(relations.result, "_open");
	relations.live = se_name_with_suffix(relations.result, "_live");

	query = se_query_parse(text_to_cstring(PG_GETARG_TEXT_PP(ARG_QUERY)), &pstate);
	plan = se_query_compile(query, pstate, se_stream_lookup, 0);
	check_triggers(fcinfo, plan);
	check_emission(fcinfo, plan);
	batch_sql = se_query_batch_sql(query);

	stream = se_stream_by_relation(plan->stream);
	if (stream == NULL)
	{
		se_check_owner(plan->stream);
		stream = se_stream_register(plan->stream, true);
	}
	if (!stream->at_home)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream %s was restored from a copy and does not run", stream->name),
				 errhint("Call stream_engine.resume() with a start position first.")));
	start = PG_ARGISNULL(ARG_START) ? stream->options.start :
		text_to_cstring(PG_GETARG_TEXT_PP(ARG_START));
	start = se_check_start(start ? start : "earliest");

	npositions = se_resolve_start(stream, start, RESOLVE_TIMEOUT_MS, &positions, &complete,
								  &nrecords);
	create_relations(&relations, plan, batch_sql, plan->window.kind == SE_WINDOW_GLOBAL ||
					 (!PG_ARGISNULL(ARG_EMIT) &&
					  strcmp(text_to_cstring(PG_GETARG_TEXT_PP(ARG_EMIT)), "changes") == 0));
	session = plan->window.kind == SE_WINDOW_SESSION;
	query_id = insert_query(fcinfo, &relations, stream, start, session);
	if (PG_ARGISNULL(ARG_PAUSED) || !PG_GETARG_BOOL(ARG_PAUSED))
		reader = se_reader_to_join(stream->id, session, start, positions, npositions);
	if (reader == 0)
		reader = se_reader_create(stream->id, false, start, positions, complete, npositions);
	insert_progress(query_id, reader, stream);
	store_triggers(fcinfo, query_id);
	store_emission(fcinfo, query_id);
	se_wake_at_commit();

	if (stream->options.processing_time)
		ereport(NOTICE,
				(errmsg("query \"%s\" starts at %s: %lld records are to be read",
						relations.result->relname, start, (long long) nrecords),
				 errdetail("The first complete window is the first that begins from now on.")));
	else if (strcmp(start, "earliest") == 0)
		ereport(NOTICE,
				(errmsg("query \"%s\" starts at the earliest record: %lld records are to be read, and every window is complete",
						relations.result->relname, (long long) nrecords)));
	else
		ereport(NOTICE,
				(errmsg("query \"%s\" starts at %s: %lld records are to be read",
						relations.result->relname, start, (long long) nrecords),
				 errdetail("The first complete window begins at the first event time read plus the watermark delay, or later.")));
	PG_RETURN_OID(relations.result_oid);
}

Datum
se_validate_query(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ParseState *pstate;
	Query	   *query;
	SeQueryPlan *plan;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"query\" must not be null")));
	InitMaterializedSRF(fcinfo, 0);
	query = se_query_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &pstate);
	plan = se_query_compile(query, pstate, se_stream_lookup, 0);
	se_query_describe(plan, rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}
