/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  tumble(), hop(), cumulate() and session() in SQL
 *
 * NOTES
 *	  The functions answer from the same SeWindowSpec as the engine does, so
 *	  that a SELECT gives the same groups as a batch and as a stream.
 *
 *	  They are IMMUTABLE: a zone is only ever named by an argument, and the
 *	  session's TimeZone is not looked at.  That is also why a timestamp without
 *	  time zone is refused by functions of its own, rather than left to the
 *	  implicit cast, which depends on that setting.
 *
 *	  The arguments but the first are constants as a rule, so the compiled spec
 *	  is kept in fn_extra, with the arguments that it was made of, and the slice
 *	  found last, which the next row is likely to belong to.
 *
 *	  The set-returning ones hand out one window a call from that same memory
 *	  (funcapi.h would take fn_extra for itself and drop it after each row).
 *	  A walk that is left unfinished, under a LIMIT for instance, is ended by an
 *	  expression context callback.
 *
 * IDENTIFICATION
 *	  src/window/functions.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "compat/compat.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/rangetypes.h"
#include "utils/timestamp.h"
#include "window/window.h"

PG_FUNCTION_INFO_V1(se_tumble);
PG_FUNCTION_INFO_V1(se_hop);
PG_FUNCTION_INFO_V1(se_cumulate);
PG_FUNCTION_INFO_V1(se_session);
PG_FUNCTION_INFO_V1(se_window_needs_zone);

/* What a call site keeps from row to row. */
typedef struct CallSite
{
	TypeCacheEntry *range_type;

	bool		compiled;		/* are the following valid? */
	SeWindowSpec spec;			/* holds the arguments, too */
	int			zone_length;	/* -1 if there is no zone */
	char		zone_name[TZ_STRLEN_MAX + 1];
	SeWindowBounds slice;		/* of the row before; empty at first */

	bool		walking;		/* in the middle of a set? */
	SeWindowIterator iterator;
} CallSite;

static CallSite *
get_call_site(FunctionCallInfo fcinfo)
{
	CallSite   *site = fcinfo->flinfo->fn_extra;

	if (site == NULL)
	{
		site = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(CallSite));
		site->range_type = lookup_type_cache(TSTZRANGEOID, TYPECACHE_RANGE_INFO);
		fcinfo->flinfo->fn_extra = site;
	}
	return site;
}

static inline bool
same_interval(const Interval *a, const Interval *b)
{
	return a->time == b->time && a->day == b->day && a->month == b->month;
}

/*
 * Bring the call site's spec in line with the arguments.
 *
 * every is NULL for windows that have none; origin_arg is the number of the
 * argument "origin", which "time_zone" follows.
 */
static void
compile_spec(CallSite *site, FunctionCallInfo fcinfo, SeWindowKind kind,
			 const Interval *size, const Interval *every, int origin_arg)
{
	SeWindowSpec *spec = &site->spec;
	bool		has_origin = !PG_ARGISNULL(origin_arg);
	TimestampTz origin = has_origin ? PG_GETARG_TIMESTAMPTZ(origin_arg) : 0;
	const char *zone_name = NULL;
	int			zone_length = -1;

	if (!PG_ARGISNULL(origin_arg + 1))
	{
		text	   *zone = PG_GETARG_TEXT_PP(origin_arg + 1);

		zone_name = VARDATA_ANY(zone);
		zone_length = VARSIZE_ANY_EXHDR(zone);
	}

	if (likely(site->compiled) &&
		same_interval(size, &spec->size) &&
		(every == NULL || same_interval(every, &spec->every)) &&
		has_origin == spec->has_origin && origin == spec->origin &&
		zone_length == site->zone_length &&
		(zone_length <= 0 || memcmp(zone_name, site->zone_name, zone_length) == 0))
		return;

	site->compiled = false;
	memset(spec, 0, sizeof(SeWindowSpec));
	memset(&site->slice, 0, sizeof(SeWindowBounds));

	if (zone_length > TZ_STRLEN_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone name is too long"),
				 errdetail("Time zone names have at most %d bytes.",
						   TZ_STRLEN_MAX)));

	site->zone_length = zone_length;
	if (zone_length >= 0)
	{
		memcpy(site->zone_name, zone_name, zone_length);
		site->zone_name[zone_length] = '\0';
		spec->zone_name = site->zone_name;
	}

	spec->kind = kind;
	spec->size = *size;
	if (every != NULL)
		spec->every = *every;
	spec->has_origin = has_origin;
	spec->origin = origin;

	/* a batch keeps no state per slice: any number that works is allowed */
	se_window_spec_init(spec, 0);
	site->compiled = true;
}

/* Find the slice of a row, in site->slice. */
static void
find_slice(CallSite *site, TimestampTz t)
{
	SeWindowBounds *slice = &site->slice;

	if (t >= slice->start && t < slice->end)
		return;
	if (!se_window_slice(&site->spec, t, NULL, &slice->start, &slice->end))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
}

static Datum
window_datum(CallSite *site, const SeWindowBounds *window)
{
	RangeBound	lower;
	RangeBound	upper;

	lower.val = TimestampTzGetDatum(window->start);
	lower.infinite = false;
	lower.inclusive = true;
	lower.lower = true;

	upper.val = TimestampTzGetDatum(window->end);
	upper.infinite = false;
	upper.inclusive = false;
	upper.lower = false;

	return RangeTypePGetDatum(se_make_range(site->range_type,
											&lower, &upper, false));
}

/*
 * tumble(ts timestamptz, size interval, origin timestamptz, time_zone text)
 * returns tstzrange
 */
Datum
se_tumble(PG_FUNCTION_ARGS)
{
	CallSite   *site;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();

	site = get_call_site(fcinfo);
	compile_spec(site, fcinfo, SE_WINDOW_TUMBLE,
				 PG_GETARG_INTERVAL_P(1), NULL, 2);
	find_slice(site, PG_GETARG_TIMESTAMPTZ(0));

	return window_datum(site, &site->slice);
}

/* The executor will not fetch the rest of a set. */
static void
abandon_walk(Datum arg)
{
	((CallSite *) DatumGetPointer(arg))->walking = false;
}

/*
 * Common part of the functions that return a set of windows:
 * (ts timestamptz, size interval, every interval, origin timestamptz,
 * time_zone text)
 */
static Datum
next_window(FunctionCallInfo fcinfo, SeWindowKind kind)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	CallSite   *site;
	SeWindowBounds window;

	if (result == NULL || !IsA(result, ReturnSetInfo) ||
		(result->allowedModes & SFRM_ValuePerCall) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));

	site = get_call_site(fcinfo);
	if (!site->walking)
	{
		if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		{
			result->isDone = ExprEndResult;
			PG_RETURN_NULL();
		}

		compile_spec(site, fcinfo, kind,
					 PG_GETARG_INTERVAL_P(1), PG_GETARG_INTERVAL_P(2), 3);
		find_slice(site, PG_GETARG_TIMESTAMPTZ(0));
		se_window_iterate(&site->iterator, &site->spec,
						  site->slice.start, site->slice.end, NULL);
		RegisterExprContextCallback(result->econtext, abandon_walk,
									PointerGetDatum(site));
		site->walking = true;
	}

	if (!se_window_next(&site->iterator, &window))
	{
		site->walking = false;
		UnregisterExprContextCallback(result->econtext, abandon_walk,
									  PointerGetDatum(site));
		result->isDone = ExprEndResult;
		PG_RETURN_NULL();
	}

	result->isDone = ExprMultipleResult;
	return window_datum(site, &window);
}

/*
 * hop(ts timestamptz, size interval, every interval, origin timestamptz,
 * time_zone text) returns setof tstzrange
 */
Datum
se_hop(PG_FUNCTION_ARGS)
{
	return next_window(fcinfo, SE_WINDOW_HOP);
}

/*
 * cumulate(ts timestamptz, size interval, step interval, origin timestamptz,
 * time_zone text) returns setof tstzrange
 */
Datum
se_cumulate(PG_FUNCTION_ARGS)
{
	return next_window(fcinfo, SE_WINDOW_CUMULATE);
}

/*
 * session(ts timestamptz, gap interval) returns tstzrange
 *
 * Where a session ends depends on other rows, so no function of one row can
 * tell; the name exists for the engine to recognize.
 */
Datum
se_session(PG_FUNCTION_ARGS)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("session windows are supported only in continuous queries"),
			 errhint("Use session() in the GROUP BY clause of a query given to stream_engine.create_query.")));
	PG_RETURN_NULL();
}

/*
 * Takes the place of each window function for timestamp without time zone and
 * for date.
 */
Datum
se_window_needs_zone(PG_FUNCTION_ARGS)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);

	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("windows need a timestamp with time zone, not %s",
					OidIsValid(type) ? format_type_be(type) : "a zoneless time"),
			 errdetail("Which instant a time without zone means would depend on the setting of TimeZone."),
			 errhint("Name the zone with AT TIME ZONE, for example AT TIME ZONE 'UTC'.")));
	PG_RETURN_NULL();
}
