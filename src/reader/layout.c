/*
 * layout.c
 *	  The layout of a query's groups: its own aggregates, and those that a kind
 *	  of window keeps for itself.
 *
 * NOTES
 *	  A session's group knows its first and last event time.  They are
 *	  ordinary min and max aggregates behind the query's, so that they are
 *	  updated, logged and merged as all others are.  So are the marks that commits
 *	  leave there, see session_private.h: their input is no column.
 */
#include "postgres.h"

#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "nodes/makefuncs.h"
#include "utils/fmgroids.h"

#include "reader.h"
#include "session.h"

static Aggref *
hidden_aggregate(Oid function, Oid argtype, Oid result, AttrNumber column)
{
	Aggref	   *aggref = makeNode(Aggref);

	aggref->aggfnoid = function;
	aggref->aggtype = result;
	aggref->aggtranstype = InvalidOid;
	aggref->aggkind = AGGKIND_NORMAL;
	aggref->aggsplit = AGGSPLIT_SIMPLE;
	aggref->aggno = aggref->aggtransno = -1;
	aggref->location = -1;
	if (OidIsValid(argtype))
	{
		Var		   *var = makeVar(1, column, argtype, -1, InvalidOid, 0);

		aggref->aggargtypes = list_make1_oid(argtype);
		aggref->args = list_make1(makeTargetEntry((Expr *) var, 1, NULL, false));
	}
	else
		aggref->aggstar = true;
	return aggref;
}

/* The inputs of marks. */
#define INPUT_REVISION (-1)
#define INPUT_SHOWN (-2)
#define MAX_MARKS 3

/* Hidden aggregates that rows advance. */
int
se_hidden_aggregates(const SeQueryPlan *plan)
{
	return plan->window.kind == SE_WINDOW_SESSION || plan->window.kind == SE_WINDOW_GLOBAL ? 2 : 0;
}

/* The marks of a session's group; returns their number. */
static int
add_marks(const SeQueryDef *def, Aggref **aggs)
{
	if (!se_session_revises(def))
		return 0;
	aggs[0] = hidden_aggregate(F_MAX_INT8, INT8OID, INT8OID, INPUT_REVISION);
	if (strcmp(def->emit, "changes") != 0)
		return 1;
	aggs[1] = hidden_aggregate(F_MIN_TIMESTAMPTZ, TIMESTAMPTZOID, TIMESTAMPTZOID, INPUT_SHOWN);
	aggs[2] = hidden_aggregate(F_MAX_TIMESTAMPTZ, TIMESTAMPTZOID, TIMESTAMPTZOID, INPUT_SHOWN);
	return 3;
}

SeGroupLayout *
se_query_layout(const SeQueryPlan *plan, const SeQueryDef *def, MemoryContext context)
{
	SeKeySpec	keys[SE_MAX_KEYS];
	int			nhidden = se_hidden_aggregates(plan);
	Aggref	  **aggs = palloc(sizeof(Aggref *) * (plan->naggs + nhidden + MAX_MARKS));

	for (int i = 0; i < plan->nkeys; i++)
		keys[i] = plan->keys[i].spec;
	for (int i = 0; i < plan->naggs; i++)
		aggs[i] = plan->aggs[i].aggref;
	if (plan->window.kind == SE_WINDOW_SESSION)
	{
		aggs[plan->naggs] = hidden_aggregate(F_MIN_TIMESTAMPTZ, TIMESTAMPTZOID, TIMESTAMPTZOID,
											 plan->time_column);
		aggs[plan->naggs + 1] = hidden_aggregate(F_MAX_TIMESTAMPTZ, TIMESTAMPTZOID,
												 TIMESTAMPTZOID, plan->time_column);
		nhidden += add_marks(def, aggs + plan->naggs + nhidden);
	}
	else if (plan->window.kind == SE_WINDOW_GLOBAL)
	{
		aggs[plan->naggs] = hidden_aggregate(F_COUNT_, InvalidOid, INT8OID, 0);
		aggs[plan->naggs + 1] = hidden_aggregate(F_MAX_TIMESTAMPTZ, TIMESTAMPTZOID,
												 TIMESTAMPTZOID, plan->time_column);
	}
	return se_layout_create(plan->nkeys, keys, plan->naggs + nhidden, aggs, context);
}

static uint32
interval_stamp(uint32 stamp, const Interval *interval)
{
	int64		fields[3] = {interval->time, interval->day, interval->month};

	return hash_combine(stamp, hash_bytes((const unsigned char *) fields, sizeof(fields)));
}

/*
 * What state was written under: the format of its groups and the bounds of its
 * slices.  A definition of another stamp cannot go on with it.
 */
uint32
se_query_stamp(const SeQueryPlan *plan, const SeGroupLayout *layout)
{
	const SeWindowSpec *window = &plan->window;
	const char *zone = window->zone_name ? window->zone_name : "";
	int64		fields[3] = {window->kind, window->has_origin ? window->origin : 0,
	plan->zone_column};
	uint32		stamp = se_layout_stamp(layout);

	stamp = interval_stamp(stamp, &window->size);
	stamp = interval_stamp(stamp, &window->every);
	stamp = hash_combine(stamp, hash_bytes((const unsigned char *) fields, sizeof(fields)));
	return hash_combine(stamp, hash_bytes((const unsigned char *) zone, strlen(zone)));
}
