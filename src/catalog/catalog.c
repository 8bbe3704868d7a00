/*
 * catalog.c
 *	  Read streams, queries and readers; switch identities.
 *
 * NOTES
 *	  The engine's tables are few and small, and are read when a worker starts,
 *	  at DDL and by functions of the user: plain SPI is fast enough.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "ddl.h"
#include "definitions.h"
#include "engine/engine.h"
#include "query/query.h"

/* As workers have it, so that their brackets cost nothing. */
#define SAFE_SEARCH_PATH "pg_catalog, pg_temp"

const SeSourceLibrary *
se_source(void)
{
	static const SeSourceLibrary *library = NULL;

	if (library == NULL)
	{
		SeSourceLibraryFunction function;

		function = (SeSourceLibraryFunction)
			load_external_function(SE_SOURCE_LIBRARY, SE_SOURCE_SYMBOL, true, NULL);
		if (function()->abi_version != SE_SOURCE_ABI)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("library \"stream_engine_source\" does not fit library \"stream_engine\""),
					 errhint("Install both from the same build, and restart the server.")));
		library = function();
	}
	return library;
}

char *
se_home(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

bool
se_may_see(Oid owner)
{
	return has_privs_of_role(GetUserId(), owner) ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

void
se_catalog_begin(SeCatalogScope *scope)
{
	GetUserIdAndSecContext(&scope->user, &scope->security_context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID,
						   scope->security_context | SECURITY_LOCAL_USERID_CHANGE);
	scope->guc_level = 0;
	if (strcmp(namespace_search_path, SAFE_SEARCH_PATH) != 0)
	{
		scope->guc_level = NewGUCNestLevel();
		(void) set_config_option("search_path", SAFE_SEARCH_PATH, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	SPI_connect();
}

void
se_catalog_end(SeCatalogScope *scope)
{
	SPI_finish();
	if (scope->guc_level > 0)
		AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->user, scope->security_context);
}

uint64
se_spi(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	int			result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);

	if (result != expected)
		elog(ERROR, "statement on the engine's tables returned %s: %s",
			 SPI_result_code_string(result), sql);
	return SPI_processed;
}

void
se_user_begin(SeUserScope *scope, Oid owner, List *settings)
{
	ListCell   *cell;

	GetUserIdAndSecContext(&scope->user, &scope->security_context);
	SetUserIdAndSecContext(owner, scope->security_context | SECURITY_RESTRICTED_OPERATION);
	scope->guc_level = NewGUCNestLevel();
	foreach(cell, settings)
	{
		const char *setting = lfirst(cell);
		const char *value = strchr(setting, '=');
		const char *current;
		char		name[NAMEDATALEN];

		if (value == NULL || value - setting >= NAMEDATALEN)
			continue;
		strlcpy(name, setting, value - setting + 1);
		value++;

		/*
		 * This is done for each batch, and setting costs much more than looking: a
		 * new search_path is parsed, and the end of the scope searches all
		 * settings for those that were set.
		 */
		current = GetConfigOption(name, true, false);
		if (current != NULL && strcmp(current, value) == 0)
			continue;
		(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	}
}

void
se_user_end(SeUserScope *scope)
{
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->user, scope->security_context);
}

/* ---- columns of the current SPI result's first row ---- */

static char *
column_text(HeapTuple tuple, int column)
{
	return SPI_getvalue(tuple, SPI_tuptable->tupdesc, column);
}

static Datum
column_datum(HeapTuple tuple, int column, bool *isnull)
{
	return SPI_getbinval(tuple, SPI_tuptable->tupdesc, column, isnull);
}

static int64
column_int(HeapTuple tuple, int column)
{
	bool		isnull;
	Datum		value = column_datum(tuple, column, &isnull);

	if (isnull)
		return 0;
	return SPI_gettypeid(SPI_tuptable->tupdesc, column) == INT4OID ?
		(int64) DatumGetInt32(value) : DatumGetInt64(value);
}

static bool
column_bool(HeapTuple tuple, int column)
{
	bool		isnull;
	Datum		value = column_datum(tuple, column, &isnull);

	return !isnull && DatumGetBool(value);
}

static Oid
column_oid(HeapTuple tuple, int column)
{
	bool		isnull;
	Datum		value = column_datum(tuple, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

static char *
qualified_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		return NULL;
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name);
}

Oid
se_relation_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* ---- streams ---- */

/* 0 when the table does not say, or when it says what it does not have. */
static AttrNumber
find_event_time(Oid relid, const char *event_time)
{
	AttrNumber	attnum = 0;

	if (event_time != NULL)
		attnum = get_attnum(relid, strcmp(event_time, "processing_time") == 0 ?
							"_processing_time" : event_time);
	return Max(attnum, 0);
}

/* The same, but the column must be there. */
static AttrNumber
event_time_column(Oid relid, const char *event_time)
{
	AttrNumber	attnum = find_event_time(relid, event_time);

	if (attnum > 0 || event_time == NULL)
		return attnum;
	if (strcmp(event_time, "processing_time") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("stream \"%s\" has processing time, but no column \"_processing_time\"",
						get_rel_name(relid)),
				 errhint("Add it: ALTER FOREIGN TABLE ... ADD COLUMN _processing_time timestamptz.")));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("event time column \"%s\" of stream \"%s\" does not exist",
					event_time, get_rel_name(relid)),
			 errhint("It is a column of type timestamptz, '_timestamp' or 'processing_time'.")));
	return 0;
}

void
se_stream_check_event_time(const SeStream *stream)
{
	(void) event_time_column(stream->relid, stream->options.event_time);
}

static SeStream *
stream_load(const char *condition, Datum key, Oid keytype)
{
	SeCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext inner;
	SeStream   *stream = NULL;

	se_catalog_begin(&scope);
	if (se_spi(psprintf("SELECT s.id, s.relation::oid, s.state, h.home FROM stream_engine.stream s"
						" LEFT JOIN stream_engine.stream_home h ON h.stream = s.id WHERE s.%s",
						condition),
			   1, &keytype, &key, NULL, SPI_OK_SELECT) == 1)
	{
		HeapTuple	tuple = SPI_tuptable->vals[0];
		Oid			relid = column_oid(tuple, 2);
		char	   *home;

		inner = MemoryContextSwitchTo(caller);
		stream = palloc0(sizeof(SeStream));
		stream->id = (int32) column_int(tuple, 1);
		stream->relid = relid;
		stream->state = column_text(tuple, 3);
		home = column_text(tuple, 4);
		stream->at_home = home != NULL && strcmp(home, se_home()) == 0;
		MemoryContextSwitchTo(inner);
	}
	se_catalog_end(&scope);

	if (stream == NULL)
		return NULL;
	stream->name = qualified_name(stream->relid);
	if (stream->name == NULL)
		return NULL;
	stream->owner = se_relation_owner(stream->relid);
	stream->serverid = GetForeignTable(stream->relid)->serverid;
	se_source()->stream_options(stream->relid, &stream->options);
	/* who drops or pauses it need not have it in order */
	stream->event_time = find_event_time(stream->relid, stream->options.event_time);
	return stream;
}

SeStream *
se_stream_load(int32 id)
{
	return stream_load("id = $1", Int32GetDatum(id), INT4OID);
}

SeStream *
se_stream_by_relation(Oid relid)
{
	return stream_load("relation = $1", ObjectIdGetDatum(relid), OIDOID);
}

bool
se_stream_lookup(Oid relid, AttrNumber *event_time)
{
	SeStreamOptions options;

	if (get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE ||
		!se_source()->is_stream_server(GetForeignTable(relid)->serverid))
		return false;
	se_source()->stream_options(relid, &options);
	*event_time = event_time_column(relid, options.event_time);
	return true;
}

/* ---- queries ---- */

#define QUERY_COLUMNS \
	"SELECT q.id, q.stream, q.batch_view::oid, q.result::oid, q.open_table::oid, q.state, q.emit, q.late," \
	" (extract(epoch FROM q.allowed_lateness) * 1000000)::bigint, q.emit_partial, q.start, q.settings," \
	" p.reader, p.closed_through, p.complete_from, p.state_stamp," \
	" q.trigger_count, (extract(epoch FROM q.trigger_interval) * 1000000)::bigint," \
	" (extract(epoch FROM q.state_ttl) * 1000000)::bigint," \
	" (extract(epoch FROM q.emit_interval) * 1000000)::bigint," \
	" (extract(epoch FROM q.correction_horizon) * 1000000)::bigint, p.changes_seq, p.changes_at," \
	" q.late_purged, q.kept_from, c.window_start, c.window_end, c.next_hash," \
	" p.windows_closed > 0 OR (p.rows_out > 0 AND q.emit = 'final')," \
	" p.emitted_from, p.emitted_through" \
	" FROM stream_engine.query q LEFT JOIN stream_engine.query_progress p ON p.query = q.id" \
	" LEFT JOIN stream_engine.closing c ON c.query = q.id "

static void
load_emitted(SeQueryDef *query, HeapTuple tuple)
{
	Datum	   *bounds[2];
	int			n[2];

	for (int i = 0; i < 2; i++)
	{
		bool		isnull;
		Datum		value = column_datum(tuple, 30 + i, &isnull);

		if (isnull)
			return;
		deconstruct_array(DatumGetArrayTypeP(value), TIMESTAMPTZOID, 8, true, TYPALIGN_DOUBLE,
						  &bounds[i], NULL, &n[i]);
	}
	query->nemitted = Min(n[0], n[1]);
	query->emitted = palloc(sizeof(SeEmittedSpan) * Max(query->nemitted, 1));
	for (int i = 0; i < query->nemitted; i++)
	{
		query->emitted[i].from = DatumGetTimestampTz(bounds[0][i]);
		query->emitted[i].through = DatumGetTimestampTz(bounds[1][i]);
	}
}

static SeQueryDef *
query_of_row(HeapTuple tuple)
{
	SeQueryDef *query = palloc0(sizeof(SeQueryDef));
	Datum		value;
	bool		isnull;

	query->id = (int32) column_int(tuple, 1);
	query->stream = (int32) column_int(tuple, 2);
	query->batch_view = column_oid(tuple, 3);
	query->result = column_oid(tuple, 4);
	query->open_table = column_oid(tuple, 5);
	query->state = column_text(tuple, 6);
	query->emit = column_text(tuple, 7);
	query->late = column_text(tuple, 8);
	query->allowed_lateness = column_int(tuple, 9);
	query->emit_partial = column_bool(tuple, 10);
	query->start = column_text(tuple, 11);
	value = column_datum(tuple, 12, &isnull);
	if (!isnull)
	{
		Datum	   *elements;
		int			nelements;

		deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT,
						  &elements, NULL, &nelements);
		for (int i = 0; i < nelements; i++)
			query->settings = lappend(query->settings, TextDatumGetCString(elements[i]));
	}
	query->reader = (int32) column_int(tuple, 13);
	value = column_datum(tuple, 14, &isnull);
	query->closed_through = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
	value = column_datum(tuple, 15, &isnull);
	query->complete_from = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
	value = column_datum(tuple, 16, &isnull);
	query->has_stamp = !isnull;
	query->state_stamp = isnull ? 0 : DatumGetInt64(value);
	query->trigger_count = column_int(tuple, 17);
	query->trigger_interval = column_int(tuple, 18);
	query->state_ttl = column_int(tuple, 19);
	query->emit_interval = column_int(tuple, 20);
	query->correction_horizon = column_int(tuple, 21);
	query->changes_seq = column_int(tuple, 22);
	value = column_datum(tuple, 23, &isnull);
	query->changes_at = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
	query->late_purged = column_bool(tuple, 24);
	query->kept_from = DatumGetTimestampTz(column_datum(tuple, 25, &isnull));
	value = column_datum(tuple, 26, &isnull);
	query->closing = !isnull;
	if (query->closing)
	{
		query->closing_start = DatumGetTimestampTz(value);
		query->closing_end = DatumGetTimestampTz(column_datum(tuple, 27, &isnull));
		query->closing_hash = column_int(tuple, 28);
	}
	value = column_datum(tuple, 29, &isnull);
	query->has_emitted = !isnull && DatumGetBool(value);
	load_emitted(query, tuple);
	return query;
}

/*
 * With "in_snapshot" the rows are those of the active snapshot and not of a new
 * one.
 */
static List *
queries_load(const char *condition, Datum key, Oid keytype, bool in_snapshot)
{
	SeCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext inner;
	List	   *result = NIL;
	ListCell   *cell;

	se_catalog_begin(&scope);
	if (SPI_execute_with_args(psprintf(QUERY_COLUMNS "WHERE %s ORDER BY q.id", condition),
							  1, &keytype, &key, NULL, in_snapshot, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the queries");
	inner = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		result = lappend(result, query_of_row(SPI_tuptable->vals[i]));
	MemoryContextSwitchTo(inner);
	se_catalog_end(&scope);

	foreach(cell, result)
	{
		SeQueryDef *query = lfirst(cell);

		query->owner = se_relation_owner(query->batch_view);
		query->name = qualified_name(query->result);
	}
	return result;
}

SeQueryDef *
se_query_load(int32 id)
{
	List	   *queries = queries_load("q.id = $1", Int32GetDatum(id), INT4OID, false);

	return queries == NIL ? NULL : linitial(queries);
}

SeQueryDef *
se_query_by_open_table(Oid relid)
{
	List	   *queries = queries_load("q.open_table = $1", ObjectIdGetDatum(relid), OIDOID, true);

	return queries == NIL ? NULL : linitial(queries);
}

List *
se_reader_queries(int32 reader)
{
	return queries_load("p.reader = $1 AND q.state = 'running'", Int32GetDatum(reader), INT4OID,
						false);
}

SeQueryPlan *
se_query_plan_of_view(Oid view)
{
	Relation	relation = try_relation_open(view, AccessShareLock);
	Query	   *query;
	SeQueryPlan *plan;
	SeUserScope scope;

	if (relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the query has been dropped")));
	query = copyObject(get_view_query(relation));
	/* planning evaluates what is constant, be it the owner's own functions */
	se_user_begin(&scope, relation->rd_rel->relowner, NIL);
	plan = se_query_compile(query, NULL, se_stream_lookup, 2);
	se_user_end(&scope);
	relation_close(relation, NoLock);
	return plan;
}

/* ---- readers ---- */

SeReaderDef *
se_reader_load(int32 id)
{
	SeCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext inner;
	SeReaderDef *reader = NULL;
	Oid			type = INT4OID;
	Datum		key = Int32GetDatum(id);

	se_catalog_begin(&scope);
	if (se_spi("SELECT id, stream, head, start, generation, seq, watermark"
			   " FROM stream_engine.reader WHERE id = $1",
			   1, &type, &key, NULL, SPI_OK_SELECT) == 1)
	{
		HeapTuple	tuple = SPI_tuptable->vals[0];
		bool		isnull;

		inner = MemoryContextSwitchTo(caller);
		reader = palloc0(sizeof(SeReaderDef));
		reader->id = (int32) column_int(tuple, 1);
		reader->stream = (int32) column_int(tuple, 2);
		reader->head = column_bool(tuple, 3);
		reader->start = column_text(tuple, 4);
		reader->generation = column_int(tuple, 5);
		reader->seq = column_int(tuple, 6);
		reader->watermark = DatumGetTimestampTz(column_datum(tuple, 7, &isnull));
		MemoryContextSwitchTo(inner);
	}
	se_catalog_end(&scope);
	return reader;
}

/*
 * pg_upgrade brings along positions and state and leaves the database its oid, but
 * the cluster has another identifier.  No dump has homes, and no template has the
 * oid of its copy: what has both goes on here, as a physical copy does.
 */
static void
adopt_upgraded_streams(Datum home)
{
	Oid			type = TEXTOID;

	se_spi("UPDATE stream_engine.stream_home SET home = $1 WHERE home <> $1"
		   " AND pg_catalog.split_part(home, '/', 2) = pg_catalog.split_part($1, '/', 2)",
		   1, &type, &home, NULL, SPI_OK_UPDATE);
}

/*
 * Some relations go without an event trigger: what is made of temporary functions at the end of
 * their session.  And a DROP may have an older snapshot than the row of what it drops.
 */
static void
forget_gone(void)
{
	se_spi("SELECT stream_engine.forget(pg_catalog.array_agg(r.oid)) FROM"
		   " (SELECT s.relation::oid FROM stream_engine.stream s"
		   "  UNION ALL SELECT q.result::oid FROM stream_engine.query q"
		   "  UNION ALL SELECT q.batch_view::oid FROM stream_engine.query q) AS r(oid)"
		   " WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = r.oid)"
		   " HAVING pg_catalog.count(*) > 0", 0, NULL, NULL, NULL, SPI_OK_SELECT);
}

int
se_catalog_wanted_readers(int32 **readers)
{
	SeCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;
	Oid			type = TEXTOID;
	Datum		home = CStringGetTextDatum(se_home());
	int			count;

	se_catalog_begin(&scope);
	adopt_upgraded_streams(home);
	forget_gone();
	se_spi("SELECT r.id FROM stream_engine.reader r"
		   " JOIN stream_engine.stream s ON s.id = r.stream"
		   " JOIN stream_engine.stream_home h ON h.stream = s.id"
		   " WHERE s.state = 'running' AND h.home = $1 AND (r.head OR EXISTS"
		   "  (SELECT FROM stream_engine.query_progress p JOIN stream_engine.query q ON q.id = p.query"
		   "   WHERE p.reader = r.id AND q.state = 'running')) ORDER BY r.id",
		   1, &type, &home, NULL, SPI_OK_SELECT);
	count = (int) SPI_processed;
	*readers = MemoryContextAlloc(caller, sizeof(int32) * Max(count, 1));
	for (int i = 0; i < count; i++)
		(*readers)[i] = (int32) column_int(SPI_tuptable->vals[i], 1);
	se_catalog_end(&scope);
	return count;
}

/*
 * The reader's queries are set aside with the error, each with a reader of its own,
 * for it is not known whose fault it is; a head reader takes the stream with it.
 */
void
se_catalog_reader_failed(int32 reader, const char *message, int sqlstate)
{
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, TEXTOID, TEXTOID};
	Datum		values[3];
	int32	   *queries;
	int			nqueries;

	values[0] = Int32GetDatum(reader);
	values[1] = CStringGetTextDatum(message);
	values[2] = CStringGetTextDatum(unpack_sql_state(sqlstate));
	se_catalog_begin(&scope);
	/*
	 * Readers before queries, as sessions do it.  One who has it locked is about to change
	 * something, and the manager does not wait for him.
	 */
	if (se_spi("SELECT FROM stream_engine.reader WHERE id = $1 FOR UPDATE SKIP LOCKED", 1, types,
			   values, NULL, SPI_OK_SELECT) == 0)
	{
		se_catalog_end(&scope);
		return;
	}
	se_spi("UPDATE stream_engine.query q SET state = 'error', error = $2, error_sqlstate = $3,"
		   " error_hint = 'Mend the cause, then call stream_engine.resume().',"
		   " error_partition = NULL, error_offset = NULL, error_at = pg_catalog.clock_timestamp()"
		   " FROM stream_engine.query_progress p"
		   " WHERE p.query = q.id AND p.reader = $1 AND q.state = 'running' RETURNING q.id",
		   3, types, values, NULL, SPI_OK_UPDATE_RETURNING);
	nqueries = (int) SPI_processed;
	queries = palloc(sizeof(int32) * Max(nqueries, 1));
	for (int i = 0; i < nqueries; i++)
		queries[i] = (int32) column_int(SPI_tuptable->vals[i], 1);
	se_spi("UPDATE stream_engine.stream s SET state = 'error', error = $2, error_sqlstate = $3,"
		   " error_partition = NULL, error_offset = NULL, error_at = pg_catalog.clock_timestamp()"
		   " FROM stream_engine.reader r WHERE r.id = $1 AND r.head AND s.id = r.stream",
		   3, types, values, NULL, SPI_OK_UPDATE);
	for (int i = 0; i < nqueries; i++)
		se_query_split(queries[i]);
	se_catalog_end(&scope);
}

bool
se_catalog_reader_is_asked(int32 reader, int64 generation, int pid, int waited_ms)
{
	SeCatalogScope scope;
	Oid			types[4] = {INT4OID, INT8OID, INT4OID, INT4OID};
	Datum		values[4];
	bool		result;

	values[0] = Int32GetDatum(reader);
	values[1] = Int64GetDatum(generation);
	values[2] = Int32GetDatum(pid);
	values[3] = Int32GetDatum(waited_ms);
	se_catalog_begin(&scope);
	/* who waits for a row has its tuple locked and waits for the transaction that has changed it */
	result = se_spi("SELECT FROM stream_engine.reader r JOIN stream_engine.stream s ON s.id = r.stream"
					" WHERE r.id = $1 AND ((r.generation <> $2 AND $2 <> 0) OR EXISTS (SELECT"
					"  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_locks t ON t.pid = l.pid"
					"  JOIN pg_catalog.pg_database d ON d.oid = t.database AND d.datname = pg_catalog.current_database()"
					"  WHERE NOT l.granted"
					"  AND l.waitstart < pg_catalog.clock_timestamp() - $4 * '1 millisecond'::interval"
					"  AND ((t.locktype = 'tuple' AND t.relation = 'stream_engine.reader'::pg_catalog.regclass)"
					"   OR (t.locktype = 'relation' AND t.relation = s.relation AND NOT t.granted))"
					"  AND $3 = ANY (pg_catalog.pg_blocking_pids(l.pid))))",
					4, types, values, NULL, SPI_OK_SELECT) > 0;
	se_catalog_end(&scope);
	return result;
}

bool
se_catalog_may_see_reader(int32 reader)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		key = Int32GetDatum(reader);
	Oid			user = GetUserId();
	bool		result = false;

	se_catalog_begin(&scope);
	se_spi("SELECT c.relowner FROM stream_engine.reader r JOIN stream_engine.stream s ON s.id = r.stream"
		   " JOIN pg_catalog.pg_class c ON c.oid = s.relation WHERE r.id = $1"
		   " UNION SELECT c.relowner FROM stream_engine.query_progress w"
		   " JOIN stream_engine.query q ON q.id = w.query"
		   " JOIN pg_catalog.pg_class c ON c.oid = q.batch_view WHERE w.reader = $1",
		   1, &type, &key, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed && !result; i++)
	{
		bool		isnull;

		result = has_privs_of_role(user, DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
																		SPI_tuptable->tupdesc, 1,
																		&isnull)));
	}
	se_catalog_end(&scope);
	return result;
}
