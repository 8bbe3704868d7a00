/*
 * stream_ddl.c
 *	  create_stream, and the engine's part of a stream: its row, its staging
 *	  tables, its head reader.
 *
 * NOTES
 *	  create_stream is sugar: it writes a CREATE FOREIGN TABLE, which runs as the
 *	  caller, so that the right to create in the schema and USAGE on the server
 *	  are Postgres's own checks.  A foreign table written by hand becomes a
 *	  stream when the first query on it is created.
 *
 *	  Staging are unlogged tables in schema stream_engine, owned by the stream's
 *	  owner; an automatic dependency drops them and the view <stream>_recent with
 *	  the foreign table.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "foreign/foreign.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_coerce.h"
#include "parser/parser.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "ddl.h"
#include "engine/engine.h"
#include "sink/staging.h"
#include "stream_ddl.h"

PG_FUNCTION_INFO_V1(se_create_stream);
PG_FUNCTION_INFO_V1(se_home_sql);

#define CHECK_TIMEOUT_MS 5000

/* Arguments of create_stream, in the order of its declaration. */
enum
{
	ARG_NAME, ARG_SERVER, ARG_TOPIC, ARG_COLUMNS, ARG_EVENT_TIME, ARG_WATERMARK_DELAY, ARG_FORMAT,
	ARG_INCLUDE, ARG_IDLE_TIMEOUT, ARG_IDLE_CLOSE, ARG_MAX_FUTURE, ARG_START, ARG_ON_ERROR,
	ARG_ON_ERROR_LIMIT, ARG_STAGING_RETENTION, ARG_WORKERS, ARG_OPTIONS, ARG_IF_NOT_EXISTS
};

static void
add_option(StringInfo out, const char *name, const char *value)
{
	if (out->len > 0)
		appendStringInfoString(out, ", ");
	appendStringInfo(out, "%s %s", quote_identifier(name), quote_literal_cstr(value));
}

static void
add_interval_option(FunctionCallInfo fcinfo, StringInfo out, int arg, const char *name)
{
	if (!PG_ARGISNULL(arg))
		add_option(out, name,
				   DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(arg))));
}

static void
add_text_option(FunctionCallInfo fcinfo, StringInfo out, int arg, const char *name)
{
	if (!PG_ARGISNULL(arg))
		add_option(out, name, text_to_cstring(PG_GETARG_TEXT_PP(arg)));
}

/* The options argument: more table options; returns true for "defer_check": true. */
static bool
add_json_options(StringInfo out, Jsonb *options)
{
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	char	   *name = NULL;
	bool		defer_check = false;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"options\" must be a JSON object")));
	it = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *text = NULL;

		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (value.type == jbvString)
			text = pnstrdup(value.val.string.val, value.val.string.len);
		else if (value.type == jbvNumeric)
			text = DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value.val.numeric)));
		else if (value.type == jbvBool)
			text = pstrdup(value.val.boolean ? "true" : "false");
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" must be a string, a number or a boolean", name)));
		if (strcmp(name, "defer_check") == 0)
		{
			if (!parse_bool(text, &defer_check))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"defer_check\" must be a boolean")));
		}
		else
			add_option(out, name, text);
	}
	return defer_check;
}

/* Refuse text that is more than one CREATE FOREIGN TABLE. */
static void
check_is_one_table(const char *sql)
{
	List	   *statements = raw_parser(sql, RAW_PARSE_DEFAULT);

	if (list_length(statements) != 1 ||
		!IsA(linitial_node(RawStmt, statements)->stmt, CreateForeignTableStmt))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the column list must hold columns and constraints only")));
}

/* What the engine asks of a stream's table beyond what the wrapper checks. */
static void
check_stream(const SeStream *stream)
{
	Relation	relation = table_open(stream->relid, AccessShareLock);
	Oid			type;
	SeUserScope scope;

	se_stream_check_event_time(stream);
	if (stream->event_time == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("stream \"%s\" has no event time", RelationGetRelationName(relation)),
				 errhint("Set the table's option event_time to a column, to '_timestamp' or to 'processing_time'.")));
	type = TupleDescAttr(RelationGetDescr(relation), stream->event_time - 1)->atttypid;
	if (type != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("event time column \"%s\" has type %s, not timestamp with time zone",
						get_attname(stream->relid, stream->event_time, false),
						format_type_be(type)),
				 TypeCategory(type) == TYPCATEGORY_NUMERIC ?
				 errhint("Declare it as timestamptz and tell the unit since 1970, as in timestamptz EPOCH 'ms'.") :
				 errhint("Declare it as timestamptz; a time without zone is then read as UTC.")));
	if (stream->options.workers > 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a stream is read by one worker"),
				 errhint("Leave \"workers\" at 1.")));

	/* paths, formats, epochs; constant parts of DEFAULT and CHECK are evaluated */
	se_user_begin(&scope, stream->owner, NIL);
	(void) se_source()->decoder_create(relation, stream->event_time, NULL, CurrentMemoryContext);
	se_user_end(&scope);
	table_close(relation, NoLock);
}

static void
depend(Oid dependent, Oid on, DependencyType kind)
{
	ObjectAddress from;
	ObjectAddress to;

	ObjectAddressSet(from, RelationRelationId, dependent);
	ObjectAddressSet(to, RelationRelationId, on);
	recordDependencyOn(&from, &to, kind);
}

void
se_depend_auto(Oid dependent, Oid on)
{
	depend(dependent, on, DEPENDENCY_AUTO);
}

void
se_depend_auto_once(Oid dependent, Oid on)
{
	deleteDependencyRecordsForSpecific(RelationRelationId, dependent, DEPENDENCY_AUTO,
									   RelationRelationId, on);
	se_depend_auto(dependent, on);
}

/*
 * The staging tables and their view.  Tables are made as superuser, for users
 * have no CREATE on our schema, and given to the stream's owner.
 */
static Oid
create_staging(const SeStream *stream)
{
	SeCatalogScope scope;
	Relation	relation = table_open(stream->relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(relation);
	StringInfoData columns;
	StringInfoData names;
	StringInfoData view;
	RangeVar   *view_name;
	Oid			view_oid;

	initStringInfo(&columns);
	initStringInfo(&names);
	initStringInfo(&view);
	/* names of collations are to be found under the path that they are written for */
	se_catalog_begin(&scope);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		appendStringInfo(&columns, "%s%s %s", columns.len > 0 ? ", " : "",
						 quote_identifier(NameStr(att->attname)),
						 format_type_extended(att->atttypid, att->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
											  FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(att->attcollation) && att->attcollation != get_typcollation(att->atttypid))
			appendStringInfo(&columns, " COLLATE %s",
							 generate_collation_name(att->attcollation));
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
						 quote_identifier(NameStr(att->attname)));
	}

	for (int child = 0; child < SE_STAGING_CHILDREN; child++)
	{
		char	   *name = se_staging_table_name(stream->id, child);
		Oid			oid;

		se_run_utility(psprintf("CREATE UNLOGGED TABLE stream_engine.%s (%s) USING heap"
								" WITH (autovacuum_enabled = false)", name, columns.data));
		se_run_utility(psprintf("ALTER TABLE stream_engine.%s OWNER TO %s", name,
								quote_identifier(GetUserNameFromId(stream->owner, false))));
		oid = get_relname_relid(name, get_namespace_oid(SE_SCHEMA, false));
		se_depend_auto(oid, stream->relid);
		appendStringInfo(&view, "%sSELECT %s FROM stream_engine.%s", child > 0 ? " UNION ALL " : "",
						 names.data, name);
	}
	se_catalog_end(&scope);

	view_name = se_name_with_suffix(makeRangeVar(get_namespace_name(RelationGetNamespace(relation)),
												 RelationGetRelationName(relation), -1), "_recent");
	SPI_connect();
	se_run_utility(psprintf("CREATE VIEW %s AS %s", se_quote_name(view_name), view.data));
	se_run_utility(psprintf("COMMENT ON VIEW %s IS %s", se_quote_name(view_name),
							quote_literal_cstr(psprintf("rows of stream %s that were consumed lately",
														stream->name))));
	SPI_finish();
	view_oid = RangeVarGetRelid(view_name, NoLock, false);
	se_depend_auto(view_oid, stream->relid);
	table_close(relation, NoLock);
	return view_oid;
}

SeStream *
se_stream_register(Oid relid, bool check_source)
{
	SeCatalogScope scope;
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2];
	SeStream   *stream;
	SePosition *positions = NULL;
	bool	   *complete = NULL;
	int			npositions = 0;
	char	   *start;

	if (isAnyTempNamespace(get_rel_namespace(relid)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("a stream cannot be temporary"),
				 errdetail("Its workers could not see the tables of this session.")));
	values[0] = ObjectIdGetDatum(relid);
	values[1] = CStringGetTextDatum(se_home());
	se_catalog_begin(&scope);
	se_spi("WITH s AS (INSERT INTO stream_engine.stream (relation) VALUES ($1::regclass) RETURNING id)"
		   " INSERT INTO stream_engine.stream_home (stream, home) SELECT id, $2 FROM s",
		   2, types, values, NULL, SPI_OK_INSERT);
	se_catalog_end(&scope);
	CommandCounterIncrement();

	stream = se_stream_by_relation(relid);
	check_stream(stream);
	start = se_check_start(stream->options.start ? stream->options.start : "earliest");
	if (check_source)
	{
		int64		nrecords;

		npositions = se_resolve_start(stream, start, CHECK_TIMEOUT_MS, &positions, &complete,
									  &nrecords);
	}
	if (stream->options.staging_retention > 0)
	{
		Oid			view = create_staging(stream);
		Oid			vtypes[2] = {OIDOID, INT4OID};
		Datum		vvalues[2];

		vvalues[0] = ObjectIdGetDatum(view);
		vvalues[1] = Int32GetDatum(stream->id);
		se_catalog_begin(&scope);
		se_spi("UPDATE stream_engine.stream SET recent_view = $1::regclass WHERE id = $2",
			   2, vtypes, vvalues, NULL, SPI_OK_UPDATE);
		se_catalog_end(&scope);
		(void) se_reader_create(stream->id, true, start, positions, complete, npositions);
		se_wake_at_commit();
	}
	return stream;
}

Datum
se_create_stream(PG_FUNCTION_ARGS)
{
	StringInfoData sql;
	StringInfoData options;
	RangeVar   *name;
	List	   *include = NIL;
	char	   *columns;
	bool		defer_check = false;
	bool		processing_time = false;
	Oid			relid;

	se_require_argument(fcinfo, ARG_NAME, "name");
	se_require_argument(fcinfo, ARG_SERVER, "server");
	se_require_argument(fcinfo, ARG_COLUMNS, "columns");
	name = se_parse_name(text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME)));
	/* a temporary or system table of that name is another one */
	name->schemaname = get_namespace_name(RangeVarGetCreationNamespace(name));

	if (!PG_ARGISNULL(ARG_IF_NOT_EXISTS) && PG_GETARG_BOOL(ARG_IF_NOT_EXISTS))
	{
		relid = RangeVarGetRelid(name, NoLock, true);
		if (OidIsValid(relid))
		{
			ereport(NOTICE,
					(errcode(ERRCODE_DUPLICATE_TABLE),
					 errmsg("relation \"%s\" already exists, skipping", name->relname)));
			PG_RETURN_OID(relid);
		}
	}

	if (!PG_ARGISNULL(ARG_INCLUDE))
	{
		Datum	   *elements;
		bool	   *nulls;
		int			nelements;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(ARG_INCLUDE), TEXTOID, -1, false, TYPALIGN_INT,
						  &elements, &nulls, &nelements);
		for (int i = 0; i < nelements; i++)
			if (!nulls[i])
				include = lappend(include, TextDatumGetCString(elements[i]));
	}

	initStringInfo(&options);
	add_text_option(fcinfo, &options, ARG_TOPIC, "topic");
	add_text_option(fcinfo, &options, ARG_FORMAT, "format");
	if (PG_ARGISNULL(ARG_EVENT_TIME))
	{
		add_option(&options, "event_time", "_timestamp");
		include = lappend(include, "timestamp");
	}
	else
	{
		char	   *event_time = NameStr(*PG_GETARG_NAME(ARG_EVENT_TIME));

		add_option(&options, "event_time", event_time);
		if (strcmp(event_time, "_timestamp") == 0)
			include = lappend(include, "timestamp");
		if (strcmp(event_time, "processing_time") == 0)
		{
			include = lappend(include, "processing_time");
			processing_time = true;
		}
	}
	/* the clock waits for nobody */
	if (!processing_time)
		add_interval_option(fcinfo, &options, ARG_WATERMARK_DELAY, "watermark_delay");
	add_interval_option(fcinfo, &options, ARG_IDLE_TIMEOUT, "idle_timeout");
	add_interval_option(fcinfo, &options, ARG_IDLE_CLOSE, "idle_close");
	add_interval_option(fcinfo, &options, ARG_MAX_FUTURE, "max_future");
	add_interval_option(fcinfo, &options, ARG_STAGING_RETENTION, "staging_retention");
	if (!PG_ARGISNULL(ARG_START))
		add_option(&options, "start",
				   se_check_start(text_to_cstring(PG_GETARG_TEXT_PP(ARG_START))));
	add_text_option(fcinfo, &options, ARG_ON_ERROR, "on_error");
	if (!PG_ARGISNULL(ARG_ON_ERROR_LIMIT))
		add_option(&options, "on_error_limit", psprintf("%d", PG_GETARG_INT32(ARG_ON_ERROR_LIMIT)));
	if (!PG_ARGISNULL(ARG_WORKERS))
		add_option(&options, "workers", psprintf("%d", PG_GETARG_INT32(ARG_WORKERS)));
	if (!PG_ARGISNULL(ARG_OPTIONS))
		defer_check = add_json_options(&options, PG_GETARG_JSONB_P(ARG_OPTIONS));

	if (!OidIsValid(get_foreign_server_oid(NameStr(*PG_GETARG_NAME(ARG_SERVER)), true)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", NameStr(*PG_GETARG_NAME(ARG_SERVER))),
				 errhint("CREATE SERVER ... FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers 'host:port').")));
	columns = se_translate_columns(text_to_cstring(PG_GETARG_TEXT_PP(ARG_COLUMNS)), include);
	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE FOREIGN TABLE %s (\n\t%s\n) SERVER %s OPTIONS (%s)",
					 se_quote_name(name), columns,
					 quote_identifier(NameStr(*PG_GETARG_NAME(ARG_SERVER))), options.data);
	check_is_one_table(sql.data);

	SPI_connect();
	se_run_utility(sql.data);
	SPI_finish();
	relid = RangeVarGetRelid(name, NoLock, false);
	if (!se_source()->is_stream_server(GetForeignTable(relid)->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of streams",
						NameStr(*PG_GETARG_NAME(ARG_SERVER))),
				 errhint("Create it with FOREIGN DATA WRAPPER stream_engine_kafka.")));
	(void) se_stream_register(relid, !defer_check);
	if (se_shared == NULL)
		ereport(WARNING,
				(errmsg("stream \"%s\" can be queried, but nothing is consumed until stream_engine is preloaded",
						name->relname),
				 errhint("Set shared_preload_libraries = 'stream_engine' in postgresql.conf (after a comma if it names others) and restart the server. "
						 "max_worker_processes, now %d, must have room for 2 workers of the engine and one for each stream and each query.",
						 max_worker_processes)));
	PG_RETURN_OID(relid);
}

Datum
se_home_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(se_home()));
}
