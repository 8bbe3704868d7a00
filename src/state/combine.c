/*
 * combine.c
 *	  Aggregates that run through their own transition, combine and serialise
 *	  functions.
 *
 * NOTES
 *	  The rules are nodeAgg.c's and nodeWindowAgg.c's: strict functions skip
 *	  nulls; a strict transition without an initial value adopts a copy of its
 *	  first argument; by-reference states are copied into the aggregate's memory
 *	  unless the function put them there.
 *
 *	  Support functions demand an AggState as their context.  They are given one
 *	  that has nothing but the two expression contexts which AggCheckCallContext
 *	  and AggGetTempMemoryContext read; the first one's memory is the memtable's
 *	  state_context, so one reset frees all states, whatever they hold.
 *	  AggRegisterCallback would attach to a context that nobody shuts down:
 *	  only ordered-set aggregates use it, and those are refused.
 *
 *	  Call information is the layout's and is shared by its memtables; a call
 *	  sets the memory context first.  No function here calls back into another
 *	  aggregate of the same layout.
 *
 *	  Aggregates with DISTINCT have sets of values as states (distinct.c), and are
 *	  run from beginning to end by se_combine_run.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_agg.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "source/vector.h"
#include "state/state_internal.h"

struct SeCombineCall
{
	int			nargs;
	Oid		   *arg_types;
	Oid			collation;
	bool		internal;		/* the transition type is "internal" */
	int16		typlen;			/* of the transition type */
	bool		typbyval;
	Datum		init_value;
	bool		init_isnull;
	FmgrInfo	transition;
	FmgrInfo	combine;
	FmgrInfo	serial;			/* fn_oid invalid if none, as the next two */
	FmgrInfo	deserial;
	FmgrInfo	final;
	int			final_nargs;
	FunctionCallInfo transition_call;
	FunctionCallInfo combine_call;
	FunctionCallInfo final_call;
	AggState   *agg_state;
	ExprContext *agg_context;
};

/* Whether values of the type do not say by themselves, to any process, what they hold. */
bool
se_type_is_anonymous(Oid type)
{
	return type == RECORDOID || type == RECORDARRAYOID;
}

/*
 * Why the aggregate cannot be run in parts, or NULL.
 */
const char *
se_combine_refusal(const Aggref *aggref)
{
	HeapTuple	tuple;
	Form_pg_aggregate form;
	const char *reason = NULL;
	ListCell   *lc;

	if (aggref->aggdistinct != NIL)
		return se_distinct_refusal(aggref);
	foreach(lc, aggref->args)
	{
		if (se_type_is_anonymous(exprType((Node *) lfirst_node(TargetEntry, lc)->expr)))
			return "Its argument is an anonymous row, whose columns are known to one process only.";
	}

	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggref->aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	if (!OidIsValid(form->aggcombinefn))
		reason = "The aggregate has no combine function.";
	else if (form->aggtranstype == INTERNALOID &&
			 (!OidIsValid(form->aggserialfn) || !OidIsValid(form->aggdeserialfn)))
		reason = "The aggregate's state cannot be serialized.";
	else if (OidIsValid(form->aggfinalfn) && form->aggfinalmodify != AGGMODIFY_READ_ONLY)
		reason = "The aggregate's final function modifies its state.";
	ReleaseSysCache(tuple);
	return reason;
}

static void
init_function(FmgrInfo *function, Oid oid, Expr *expr, MemoryContext context)
{
	fmgr_info_cxt(oid, function, context);
	fmgr_info_set_expr((Node *) expr, function);
}

static FunctionCallInfo
make_call(FmgrInfo *function, int nargs, Oid collation, AggState *agg_state)
{
	FunctionCallInfo call = palloc0(SizeForFunctionCallInfo(nargs));

	InitFunctionCallInfoData(*call, function, nargs, collation, (Node *) agg_state, NULL);
	return call;
}

/* Look up what partial states are combined and written with. */
static void
compile_combine(SeCombineCall *call, Form_pg_aggregate form, Oid transtype, MemoryContext context)
{
	Expr	   *expr;

	build_aggregate_transfn_expr((Oid[]) {transtype}, 1, 0, false, transtype, call->collation,
								 form->aggcombinefn, InvalidOid, &expr, NULL);
	init_function(&call->combine, form->aggcombinefn, expr, context);
	call->combine_call = make_call(&call->combine, 2, call->collation, call->agg_state);
	if (call->internal && call->combine.fn_strict)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("combine function with transition type %s must not be declared STRICT",
						format_type_be(transtype))));

	if (call->internal)
	{
		build_aggregate_serialfn_expr(form->aggserialfn, &expr);
		init_function(&call->serial, form->aggserialfn, expr, context);
		build_aggregate_deserialfn_expr(form->aggdeserialfn, &expr);
		init_function(&call->deserial, form->aggdeserialfn, expr, context);
	}
}

/*
 * Look up everything that is needed to run the aggregate.  The result lives in
 * "context"; *transtype receives the resolved transition type.
 */
SeCombineCall *
se_combine_compile(const Aggref *aggref, MemoryContext context, Oid *transtype)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	SeCombineCall *call = palloc0(sizeof(SeCombineCall));
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
	Form_pg_aggregate form;
	Datum		init_text;
	bool		init_isnull;
	Oid			arg_types[FUNC_MAX_ARGS];
	Expr	   *expr;
	int			nargs;
	int			i = 0;
	ListCell   *lc;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggref->aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	nargs = get_aggregate_argtypes((Aggref *) aggref, arg_types);
	*transtype = resolve_aggregate_transtype(aggref->aggfnoid, form->aggtranstype, arg_types,
											 nargs);
	call->nargs = list_length(aggref->args);
	call->arg_types = palloc0(sizeof(Oid) * Max(call->nargs, 1));
	foreach(lc, aggref->args)
		call->arg_types[i++] = exprType((Node *) lfirst_node(TargetEntry, lc)->expr);
	call->collation = aggref->inputcollid;
	call->internal = *transtype == INTERNALOID;
	get_typlenbyval(*transtype, &call->typlen, &call->typbyval);

	call->agg_state = makeNode(AggState);
	call->agg_context = makeNode(ExprContext);
	call->agg_state->curaggcontext = call->agg_context;
	call->agg_state->tmpcontext = makeNode(ExprContext);

	build_aggregate_transfn_expr(arg_types, nargs, 0, aggref->aggvariadic, *transtype,
								 call->collation, form->aggtransfn, InvalidOid, &expr, NULL);
	init_function(&call->transition, form->aggtransfn, expr, context);
	call->transition_call = make_call(&call->transition, call->nargs + 1, call->collation,
									  call->agg_state);

	if (aggref->aggdistinct == NIL)
		compile_combine(call, form, *transtype, context);

	if (OidIsValid(form->aggfinalfn))
	{
		call->final_nargs = form->aggfinalextra ? nargs + 1 : 1;
		build_aggregate_finalfn_expr(arg_types, call->final_nargs, *transtype, aggref->aggtype,
									 call->collation, form->aggfinalfn, &expr);
		init_function(&call->final, form->aggfinalfn, expr, context);
		call->final_call = make_call(&call->final, call->final_nargs, call->collation,
									 call->agg_state);
		for (i = 1; i < call->final_nargs; i++)
			call->final_call->args[i].isnull = true;
	}

	init_text = SysCacheGetAttr(AGGFNOID, tuple, Anum_pg_aggregate_agginitval, &init_isnull);
	call->init_isnull = init_isnull;
	if (!init_isnull)
	{
		Oid			input;
		Oid			ioparam;

		getTypeInputInfo(*transtype, &input, &ioparam);
		call->init_value = OidInputFunctionCall(input, TextDatumGetCString(init_text), ioparam,
												-1);
	}
	ReleaseSysCache(tuple);
	MemoryContextSwitchTo(old);
	return call;
}

/* Point the calls at the table's memory. */
static void
bind_table(SeMemtable *table, SeCombineCall *call)
{
	call->agg_context->ecxt_per_tuple_memory = table->state_context;
	call->agg_state->tmpcontext->ecxt_per_tuple_memory = table->call_context;
}

/* Where states are: the memory that the calls point at. */
static MemoryContext
state_memory(const SeCombineCall *call)
{
	return call->agg_context->ecxt_per_tuple_memory;
}

static Datum
copy_into_state(const SeCombineCall *call, Datum value)
{
	MemoryContext old = MemoryContextSwitchTo(state_memory(call));

	if (call->typlen == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	else
		value = datumCopy(value, call->typbyval, call->typlen);
	MemoryContextSwitchTo(old);
	return value;
}

static void
init_state(const SeCombineCall *call, SeCombineState *target)
{
	target->isnull = call->init_isnull;
	target->no_value = call->init_isnull;
	target->value = call->init_isnull ? (Datum) 0 : copy_into_state(call, call->init_value);
}

/* The state of a group that has seen nothing. */
void
se_combine_init(SeMemtable *table, const SeStateDef *state, SeGroup *group)
{
	SeCombineState *target = state_of(state, group);

	if (state->distinct != NULL)
	{
		target->isnull = true;
		target->no_value = true;
		return;
	}
	bind_table(table, state->combine);
	init_state(state->combine, target);
}

static void
free_state_value(Datum value)
{
	if (VARATT_IS_EXTERNAL_EXPANDED(DatumGetPointer(value)))
		DeleteExpandedObject(value);
	else
		pfree(DatumGetPointer(value));
}

/*
 * Make the result of a transition or combine function the state.
 */
static void
store_result(const SeCombineCall *call, SeCombineState *target, Datum result, bool isnull)
{
	if (!call->typbyval && (target->isnull || isnull ||
							DatumGetPointer(result) != DatumGetPointer(target->value)))
	{
		Datum		previous = target->value;
		bool		had = !target->isnull;

		if (!isnull)
		{
			if (call->typlen == -1 &&
				VARATT_IS_EXTERNAL_EXPANDED_RW(DatumGetPointer(result)) &&
				MemoryContextGetParent(DatumGetEOHP(result)->eoh_context) == state_memory(call))
				 /* it lives where it should */ ;
			else
				result = copy_into_state(call, result);
		}
		if (had)
		{
			if (call->typlen == -1)
				free_state_value(previous);
			else
				pfree(DatumGetPointer(previous));
		}
	}
	target->value = isnull ? (Datum) 0 : result;
	target->isnull = isnull;
}

/* Run the transition function for the arguments in call->transition_call. */
static void
advance(SeCombineCall *call, SeCombineState *target)
{
	FunctionCallInfo fcinfo = call->transition_call;
	Datum		result;

	if (call->transition.fn_strict)
	{
		for (int i = 1; i <= call->nargs; i++)
		{
			if (fcinfo->args[i].isnull)
				return;
		}
		if (target->no_value)
		{
			target->value = copy_into_state(call, fcinfo->args[1].value);
			target->isnull = false;
			target->no_value = false;
			return;
		}
		if (target->isnull)
			return;
	}

	fcinfo->args[0].value = target->value;
	fcinfo->args[0].isnull = target->isnull;
	fcinfo->isnull = false;
	result = FunctionCallInvoke(fcinfo);
	store_result(call, target, result, fcinfo->isnull);
	target->no_value = false;
}

void
se_combine_update(SeMemtable *table, const SeStateDef *state, const SeVector *args,
				  const int *rows, int nrows, SeGroup **groups)
{
	SeCombineCall *call = state->combine;
	FunctionCallInfo fcinfo = call->transition_call;
	MemoryContext old;

	if (state->distinct != NULL)
	{
		se_distinct_update(table, state, args, rows, nrows, groups);
		return;
	}
	old = MemoryContextSwitchTo(table->call_context);
	bind_table(table, call);
	for (int i = 0; i < nrows; i++)
	{
		int			row = rows[i];

		se_state_error_row = row;
		for (int a = 0; a < call->nargs; a++)
		{
			NullableDatum *arg = &fcinfo->args[a + 1];

			arg->isnull = args[a].null[row] != 0;
			arg->value = arg->isnull ? (Datum) 0 :
				se_vector_datum(&args[a], row, call->arg_types[a]);
		}
		advance(call, state_of(state, groups[i]));
		MemoryContextReset(table->call_context);
	}
	MemoryContextSwitchTo(old);
}

bool
se_combine_is_byval(const SeStateDef *state)
{
	return state->distinct == NULL && state->combine->typbyval && !state->combine->internal;
}

/*
 * The bytes that stand for a non-null by-reference or internal state: without
 * a length word, valid until call_context is reset.
 */
void
se_combine_bytes(SeMemtable *table, const SeStateDef *state, const SeGroup *group,
				 const char **bytes, uint32 *len)
{
	SeCombineCall *call = state->combine;
	const SeCombineState *source = state_of(state, group);
	Datum		value = source->value;
	MemoryContext old = MemoryContextSwitchTo(table->call_context);

	if (state->distinct != NULL)
	{
		se_distinct_bytes(state, group, bytes, len);
		MemoryContextSwitchTo(old);
		return;
	}
	if (call->internal)
	{
		LOCAL_FCINFO(fcinfo, 1);

		bind_table(table, call);
		InitFunctionCallInfoData(*fcinfo, &call->serial, 1, InvalidOid,
								 (Node *) call->agg_state, NULL);
		fcinfo->args[0].value = value;
		fcinfo->args[0].isnull = false;
		value = FunctionCallInvoke(fcinfo);
		if (fcinfo->isnull)
			elog(ERROR, "serialization function %u returned NULL", call->serial.fn_oid);
	}

	if (call->internal || call->typlen == -1)
	{
		struct varlena *flat = PG_DETOAST_DATUM_PACKED(value);

		*bytes = VARDATA_ANY(flat);
		*len = VARSIZE_ANY_EXHDR(flat);
	}
	else
	{
		*bytes = DatumGetPointer(value);
		*len = call->typlen == -2 ? strlen(*bytes) + 1 : call->typlen;
	}
	MemoryContextSwitchTo(old);
}

/* Can "len" bytes be a state?  For the decoder. */
bool
se_combine_check(const SeStateDef *state, uint32 len)
{
	const SeCombineCall *call = state->combine;

	if (state->distinct != NULL)
		return se_distinct_check(len);
	if (call->internal || call->typlen == -1)
		return len < MaxAllocSize - VARHDRSZ;
	if (call->typlen == -2)
		return len > 0;
	return len == (uint32) call->typlen;
}

/* An aligned Datum of a decoded state's bytes, in CurrentMemoryContext. */
static Datum
datum_of_bytes(SeMemtable *table, SeCombineCall *call, const SeCombineState *source)
{
	const char *bytes = DatumGetPointer(source->value);
	Datum		value;

	if (call->internal || call->typlen == -1)
	{
		struct varlena *flat = palloc(source->len + VARHDRSZ);

		SET_VARSIZE(flat, source->len + VARHDRSZ);
		memcpy(VARDATA(flat), bytes, source->len);
		value = PointerGetDatum(flat);
	}
	else
	{
		char	   *copy = palloc(source->len + 1);

		memcpy(copy, bytes, source->len);
		copy[source->len] = '\0';
		value = PointerGetDatum(copy);
	}

	if (call->internal)
	{
		LOCAL_FCINFO(fcinfo, 2);

		InitFunctionCallInfoData(*fcinfo, &call->deserial, 2, InvalidOid,
								 (Node *) call->agg_state, NULL);
		fcinfo->args[0].value = value;
		fcinfo->args[0].isnull = false;
		fcinfo->args[1].value = (Datum) 0;
		fcinfo->args[1].isnull = false;
		value = FunctionCallInvoke(fcinfo);
		if (fcinfo->isnull)
			elog(ERROR, "deserialization function %u returned NULL", call->deserial.fn_oid);
	}
	return value;
}

/*
 * Combine the state of "from", a decoded entry, into that of "to".
 */
void
se_combine_merge(SeMemtable *table, const SeStateDef *state, SeGroup *to, const SeGroup *from)
{
	SeCombineCall *call = state->combine;
	SeCombineState *target = state_of(state, to);
	const SeCombineState *source = state_of(state, from);
	FunctionCallInfo fcinfo = call->combine_call;
	MemoryContext old;
	Datum		value = (Datum) 0;
	Datum		result;

	if (state->distinct != NULL)
	{
		se_distinct_merge(table, state, to, from);
		return;
	}
	old = MemoryContextSwitchTo(table->call_context);
	bind_table(table, call);
	if (!source->isnull)
		value = se_combine_is_byval(state) ? source->value : datum_of_bytes(table, call, source);

	if (call->combine.fn_strict)
	{
		if (source->isnull)
			goto done;
		if (target->isnull)
		{
			target->value = copy_into_state(call, value);
			target->isnull = false;
			target->no_value = false;
			goto done;
		}
	}

	fcinfo->args[0].value = target->value;
	fcinfo->args[0].isnull = target->isnull;
	fcinfo->args[1].value = value;
	fcinfo->args[1].isnull = source->isnull;
	fcinfo->isnull = false;
	result = FunctionCallInvoke(fcinfo);
	store_result(call, target, result, fcinfo->isnull);
	if (!target->isnull)
		target->no_value = false;

done:
	MemoryContextSwitchTo(old);
}

/* The final value of a state. */
static Datum
finish(SeCombineCall *call, const SeCombineState *source, bool *isnull)
{
	Datum		value = source->value;
	FunctionCallInfo fcinfo = call->final_call;

	if (!source->isnull && call->typlen == -1)
		value = MakeExpandedObjectReadOnly(value, false, call->typlen);
	if (fcinfo == NULL)
	{
		*isnull = source->isnull;
		return value;
	}
	if (call->final.fn_strict && (source->isnull || call->final_nargs > 1))
	{
		*isnull = true;
		return (Datum) 0;
	}

	fcinfo->args[0].value = value;
	fcinfo->args[0].isnull = source->isnull;
	fcinfo->isnull = false;
	value = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;
	return value;
}

Datum
se_combine_result(SeMemtable *table, const SeStateDef *state, SeGroup *group, bool *isnull)
{
	if (state->distinct != NULL)
		return se_distinct_result(state, group, isnull);
	bind_table(table, state->combine);
	return finish(state->combine, state_of(state, group), isnull);
}

/*
 * Run the aggregate over values of its first argument, in their order, with
 * "extra" as the others.  All that it makes, the result too, is in CurrentMemoryContext.
 */
Datum
se_combine_run(SeCombineCall *call, const NullableDatum *values, uint32 nvalues, int nextra,
			   const NullableDatum *extra, bool *isnull)
{
	FunctionCallInfo fcinfo = call->transition_call;
	MemoryContext old = CurrentMemoryContext;
	MemoryContext temporary = AllocSetContextCreate(old, "aggregate transition",
													ALLOCSET_SMALL_SIZES);
	SeCombineState state;

	call->agg_context->ecxt_per_tuple_memory = old;
	call->agg_state->tmpcontext->ecxt_per_tuple_memory = temporary;
	init_state(call, &state);
	MemoryContextSwitchTo(temporary);
	for (uint32 i = 0; i < nvalues; i++)
	{
		fcinfo->args[1] = values[i];
		for (int a = 0; a < nextra; a++)
			fcinfo->args[a + 2] = extra[a];
		advance(call, &state);
		MemoryContextReset(temporary);
	}
	MemoryContextSwitchTo(old);
	return finish(call, &state, isnull);
}

/* Whether the transition function is skipped for nulls. */
bool
se_combine_skips_nulls(const SeCombineCall *call)
{
	return call->transition.fn_strict;
}
