/*
 * query_private.h
 *	  What the files of src/query share with each other.
 */
#ifndef SE_QUERY_PRIVATE_H
#define SE_QUERY_PRIVATE_H

#include "postgres.h"

#include "nodes/parsenodes.h"
#include "parser/parse_node.h"
#include "utils/elog.h"

#include "query.h"

/*
 * Error positions of a query text that reached us as a string: while the scope
 * is open, positions of errors and notices become positions of an internal query.
 */
typedef struct SeTextScope
{
	ErrorContextCallback callback;
	bool		open;
} SeTextScope;

/* parse.c */
extern void se_text_begin(SeTextScope *scope, const char *text);
extern void se_text_end(SeTextScope *scope);
extern int	se_from_location(ParseState *pstate, int item);

/* window_clause.c */
extern bool se_window_function(Node *expr, SeWindowKind *kind);
extern TargetEntry *se_window_target(Query *query, SeWindowKind *kind, ParseState *pstate);
extern const char *se_window_name(SeWindowKind kind);
extern void se_window_clause(FuncExpr *window, SeWindowKind kind, Oid stream,
							 AttrNumber event_time, ParseState *pstate, SeWindowSpec *spec,
							 AttrNumber *zone_column);

/* check.c */
extern void se_check_shape(Query *query, ParseState *pstate);
extern void se_check_expression(Node *expr, ParseState *pstate);
extern void se_check_planned(Node *expr);
extern bool se_depends_on_timezone(Node *expr, int *location);

#endif							/* SE_QUERY_PRIVATE_H */
