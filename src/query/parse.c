/*
 * parse.c
 *	  From the text of a query to its Query, and back to the text of a view.
 *
 * NOTES
 *	  The text comes as an argument of a function, so what the parser reports as
 *	  a position in the client's statement is in truth one inside that argument.
 *	  As for the body of a function, an error context callback turns it into a
 *	  position of an internal query, which clients show with line and caret.
 *
 *	  The window functions live in the extension's schema, which the caller's
 *	  search_path may lack.  It is appended, so that it shadows nothing, by a
 *	  setting of its own nest level: an ERROR restores it with the transaction.
 *
 *	  Parse analysis is done by hand rather than with
 *	  parse_analyze_fixedparams(): the ParseState must outlive it, as the checks
 *	  of compile.c report positions too, and it carries the positions of the
 *	  items of FROM, which are known to the raw statement only and are gone after
 *	  analysis.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "query.h"
#include "query_private.h"

#define EXTENSION_NAME "stream_engine"

/* Whether the word at "position", which counts characters from one, begins with one of "words". */
static bool
is_word(const char *text, int position, const char *const *words)
{
	while (--position > 0 && *text != '\0')
		text += pg_mblen(text);
	for (; *words != NULL; words++)
		if (pg_strncasecmp(text, *words, strlen(*words)) == 0)
			return true;
	return false;
}

/* What those write who come from other engines. */
static void
tell_of_windows(const char *text, int position)
{
	static const char *const columns[] = {"window_start", "window_end", "window_time", NULL};
	static const char *const functions[] = {"tumbl", "hop", "slid", "cumulat", "session", "window",
	"time_bucket", NULL};

	if (geterrcode() == ERRCODE_UNDEFINED_COLUMN && is_word(text, position, columns))
		errhint("The result has window_start and window_end without being told. "
				"In an expression write lower() and upper() of the window, as in lower(tumble(...)).");
	else if (geterrcode() == ERRCODE_UNDEFINED_FUNCTION && is_word(text, position, functions))
		errhint("Windows are tumble(t, size), hop(t, size, every), cumulate(t, size, step), with "
				"origin and time_zone if wanted, and session(t, gap); t is a timestamptz, the "
				"others are intervals.");
}

static void
transpose_position(void *arg)
{
	int			position = geterrposition();

	if (position > 0)
	{
		tell_of_windows(arg, position);
		errposition(0);
		internalerrposition(position);
		internalerrquery((const char *) arg);
	}
}

/* text may be NULL: then nothing is transposed. */
void
se_text_begin(SeTextScope *scope, const char *text)
{
	scope->open = text != NULL;
	if (!scope->open)
		return;
	scope->callback.callback = transpose_position;
	scope->callback.arg = unconstify(char *, text);
	scope->callback.previous = error_context_stack;
	error_context_stack = &scope->callback;
}

void
se_text_end(SeTextScope *scope)
{
	if (scope->open)
		error_context_stack = scope->callback.previous;
}

static Oid
extension_schema(void)
{
	Oid			extension = get_extension_oid(EXTENSION_NAME, false);
	Oid			schema = InvalidOid;
	Relation	catalog = table_open(ExtensionRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(catalog, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return schema;
}

static void
set_locally(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

static void
append_extension_schema(void)
{
	char	   *schema = get_namespace_name(extension_schema());
	StringInfoData path;

	if (schema == NULL)
		elog(ERROR, "schema of extension %s does not exist", EXTENSION_NAME);
	initStringInfo(&path);
	if (namespace_search_path[strspn(namespace_search_path, " ")] != '\0')
		appendStringInfo(&path, "%s, ", namespace_search_path);
	appendStringInfoString(&path, quote_identifier(schema));
	set_locally("search_path", path.data);
}

/* Position of a statement: its first character that is no space. */
static int
statement_location(const char *text, const RawStmt *statement)
{
	int			location = statement->stmt_location;

	return location + (int) strspn(text + location, " \t\r\n\f");
}

/* The leftmost SELECT: there INTO stands, whatever is combined with it. */
static SelectStmt *
leftmost_select(SelectStmt *select)
{
	while (select->op != SETOP_NONE)
		select = select->larg;
	return select;
}

/* A SELECT has no location: that of its first output column, or of its values. */
static int
select_location(SelectStmt *select)
{
	select = leftmost_select(select);
	return exprLocation((Node *) (select->valuesLists ? select->valuesLists : select->targetList));
}

static RawStmt *
single_select(const char *text, ParseState *pstate)
{
	List	   *statements = raw_parser(text, RAW_PARSE_DEFAULT);
	RawStmt    *statement;
	SelectStmt *select;

	if (statements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query is empty"),
				 errhint("Write one SELECT statement.")));

	statement = linitial_node(RawStmt, statements);
	if (!IsA(statement->stmt, SelectStmt))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query is not a SELECT statement"),
				 errhint("Write one SELECT statement."),
				 parser_errposition(pstate, statement_location(text, statement))));
	if (list_length(statements) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query has more than one statement"),
				 errhint("Write one SELECT statement."),
				 parser_errposition(pstate,
									statement_location(text, lsecond_node(RawStmt, statements)))));

	select = (SelectStmt *) statement->stmt;
	if (leftmost_select(select)->intoClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("SELECT INTO is not allowed in a continuous query"),
				 errdetail("The result table is made together with the query."),
				 parser_errposition(pstate,
									leftmost_select(select)->intoClause->rel->location)));
	if (select->op != SETOP_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("UNION, INTERSECT and EXCEPT are not supported in a continuous query"),
				 errhint("Create one query for each SELECT and combine their result tables."),
				 parser_errposition(pstate, select_location(select->rarg))));
	if (select->valuesLists != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("VALUES is not supported in a continuous query"),
				 errhint("Write a SELECT from a stream, grouped by a window."),
				 parser_errposition(pstate, select_location(select))));
	return statement;
}

/* Location of an item of FROM; of a join, that of what is joined. */
static int
raw_location(Node *item)
{
	switch (nodeTag(item))
	{
		case T_RangeVar:
			return ((RangeVar *) item)->location;
		case T_RangeTableSample:
			return raw_location(((RangeTableSample *) item)->relation);
		case T_RangeTableFunc:
			return ((RangeTableFunc *) item)->location;
#if SE_HAVE_JSON_TABLE
		case T_JsonTable:
			return ((JsonTable *) item)->location;
#endif
		case T_JoinExpr:
			return raw_location(((JoinExpr *) item)->rarg);
		case T_RangeSubselect:
			return select_location((SelectStmt *) ((RangeSubselect *) item)->subquery);
		case T_RangeFunction:
			return exprLocation(linitial(linitial_node(List,
													   ((RangeFunction *) item)->functions)));
		default:
			return -1;
	}
}

static List *
from_locations(SelectStmt *select)
{
	List	   *locations = NIL;
	ListCell   *cell;

	foreach(cell, select->fromClause)
		locations = lappend_int(locations, raw_location(lfirst(cell)));
	return locations;
}

/* Location of an item of FROM (0 = the first), -1 if it is not known. */
int
se_from_location(ParseState *pstate, int item)
{
	List	   *locations = pstate ? (List *) pstate->p_ref_hook_state : NIL;

	return item < list_length(locations) ? list_nth_int(locations, item) : -1;
}

/*
 * Parse and analyse one SELECT.  The Query and *pstate are palloc'd; "text" must
 * live as long as *pstate.  Takes an AccessShareLock on what the query reads, until
 * the end of the transaction.
 */
Query *
se_query_parse(const char *text, ParseState **pstate)
{
	SeTextScope scope;
	ParseState *state = make_parsestate(NULL);
	RawStmt    *statement;
	Query	   *query;
	int			nest_level;
	bool		pushed = false;

	state->p_sourcetext = text;
	se_text_begin(&scope, text);
	statement = single_select(text, state);
	state->p_ref_hook_state = from_locations((SelectStmt *) statement->stmt);

	nest_level = NewGUCNestLevel();
	append_extension_schema();
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}

	query = transformTopLevelStmt(state, statement);

	if (pushed)
		PopActiveSnapshot();
	AtEOXact_GUC(true, nest_level);
	se_text_end(&scope);

	*pstate = state;
	return query;
}

/*
 * Raise an error unless the current user (of a stored view's query: the view's
 * owner) may read what the query reads.
 */
void
se_query_check_permissions(Query *query)
{
	se_check_query_permissions(query);
}

/* lower(range) or upper(range) of a range over timestamptz */
static Expr *
range_bound(Oid function, Expr *range)
{
	return (Expr *) makeFuncExpr(function, TIMESTAMPTZOID, list_make1(copyObject(range)),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

static Expr *
infinite_time(TimestampTz value)
{
	return (Expr *) makeConst(TIMESTAMPTZOID, -1, InvalidOid, sizeof(TimestampTz),
							  TimestampTzGetDatum(value), false, FLOAT8PASSBYVAL);
}

/*
 * The text of the batch view of a query that se_query_compile has accepted,
 * palloc'd.  Names are qualified, but for those that SE_BATCH_SEARCH_PATH finds, and constants
 * spelled so that it means the same under any DateStyle and IntervalStyle.
 */
char *
se_query_batch_sql(Query *query)
{
	SeWindowKind kind;
	TargetEntry *window;
	Expr	   *start;
	Expr	   *end;
	char	   *text;
	int			nest_level;
	ListCell   *cell;

	query = copyObject(query);
	window = se_window_target(query, &kind, NULL);
	if (window != NULL)
	{
		start = range_bound(F_LOWER_ANYRANGE, window->expr);
		end = range_bound(F_UPPER_ANYRANGE, window->expr);
	}
	else
	{
		start = infinite_time(DT_NOBEGIN);
		end = infinite_time(DT_NOEND);
	}

	foreach(cell, query->targetList)
		lfirst_node(TargetEntry, cell)->resno += 2;
	query->targetList = lcons(makeTargetEntry(end, 2, pstrdup("window_end"), false),
							  query->targetList);
	query->targetList = lcons(makeTargetEntry(start, 1, pstrdup("window_start"), false),
							  query->targetList);

	nest_level = NewGUCNestLevel();
	set_locally("search_path", SE_BATCH_SEARCH_PATH);
	set_locally("datestyle", "ISO");
	set_locally("intervalstyle", "postgres");
	set_locally("extra_float_digits", "1");
	text = pg_get_querydef(query, true);
	AtEOXact_GUC(true, nest_level);
	return text;
}
