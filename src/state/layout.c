/*
 * layout.c
 *	  From group keys and aggregates to the shape of a slot.
 *
 * NOTES
 *	  An aggregate is executed by a kernel when its state can be flat and its
 *	  result is bound to be what the server's own aggregate gives; otherwise
 *	  through its own functions, provided that partial states can be combined,
 *	  or over a set of values if it is an aggregate of DISTINCT ones.
 *	  Only aggregates of pg_catalog are taken: others may keep things in their
 *	  state that do not survive being written out.
 *
 *	  States are shared where aggregates read the same input: one sum serves
 *	  sum(x) and avg(x).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/pg_locale.h"
#include "utils/syscache.h"

#include "compat/compat.h"
#include "source/vector.h"
#include "state/state_internal.h"

/* Raise it whenever the bytes of codec.c or the hashes of keys.c change. */
#define FORMAT_VERSION 1

typedef struct KernelEntry
{
	Oid			function;
	SeStateKind kind;
	SeRep		rep;
	SeResultKind result;
} KernelEntry;

static const KernelEntry kernel_table[] = {
	{F_COUNT_, STATE_COUNT, SE_REP_INT64, RESULT_COUNT},
	{F_COUNT_ANY, STATE_COUNT, SE_REP_INT64, RESULT_COUNT},

	{F_SUM_INT2, STATE_SUM_INT64, SE_REP_INT64, RESULT_VALUE},
	{F_SUM_INT4, STATE_SUM_INT64, SE_REP_INT64, RESULT_VALUE},
	{F_SUM_INT8, STATE_SUM_INT128, SE_REP_INT64, RESULT_VALUE},
	{F_SUM_FLOAT4, STATE_SUM_FLOAT4, SE_REP_FLOAT64, RESULT_VALUE},
	{F_SUM_FLOAT8, STATE_SUM_FLOAT8, SE_REP_FLOAT64, RESULT_VALUE},
	{F_SUM_NUMERIC, STATE_SUM_DECIMAL, SE_REP_DECIMAL, RESULT_VALUE},

	{F_AVG_INT2, STATE_SUM_INT64, SE_REP_INT64, RESULT_AVERAGE},
	{F_AVG_INT4, STATE_SUM_INT64, SE_REP_INT64, RESULT_AVERAGE},
	{F_AVG_INT8, STATE_SUM_INT128, SE_REP_INT64, RESULT_AVERAGE},
	{F_AVG_FLOAT4, STATE_SUM_FLOAT8, SE_REP_FLOAT64, RESULT_AVERAGE},
	{F_AVG_FLOAT8, STATE_SUM_FLOAT8, SE_REP_FLOAT64, RESULT_AVERAGE},
	{F_AVG_NUMERIC, STATE_SUM_DECIMAL, SE_REP_DECIMAL, RESULT_AVERAGE},

	{F_MIN_INT2, STATE_MIN_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MIN_INT4, STATE_MIN_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MIN_INT8, STATE_MIN_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MIN_DATE, STATE_MIN_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MIN_TIMESTAMP, STATE_MIN_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MIN_TIMESTAMPTZ, STATE_MIN_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MIN_FLOAT4, STATE_MIN_FLOAT, SE_REP_FLOAT64, RESULT_VALUE},
	{F_MIN_FLOAT8, STATE_MIN_FLOAT, SE_REP_FLOAT64, RESULT_VALUE},
	{F_MIN_NUMERIC, STATE_MIN_DECIMAL, SE_REP_DECIMAL, RESULT_VALUE},

	{F_MAX_INT2, STATE_MAX_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MAX_INT4, STATE_MAX_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MAX_INT8, STATE_MAX_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MAX_DATE, STATE_MAX_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MAX_TIMESTAMP, STATE_MAX_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MAX_TIMESTAMPTZ, STATE_MAX_INT, SE_REP_INT64, RESULT_VALUE},
	{F_MAX_FLOAT4, STATE_MAX_FLOAT, SE_REP_FLOAT64, RESULT_VALUE},
	{F_MAX_FLOAT8, STATE_MAX_FLOAT, SE_REP_FLOAT64, RESULT_VALUE},
	{F_MAX_NUMERIC, STATE_MAX_DECIMAL, SE_REP_DECIMAL, RESULT_VALUE},

	{F_BOOL_AND, STATE_MIN_INT, SE_REP_INT64, RESULT_VALUE},
	{F_EVERY, STATE_MIN_INT, SE_REP_INT64, RESULT_VALUE},
	{F_BOOL_OR, STATE_MAX_INT, SE_REP_INT64, RESULT_VALUE}
};

static const KernelEntry *
kernel_of(const Aggref *aggref)
{
	for (int i = 0; i < lengthof(kernel_table) && aggref->aggdistinct == NIL; i++)
	{
		if (kernel_table[i].function == aggref->aggfnoid)
			return &kernel_table[i];
	}
	return NULL;
}

/*
 * Records of several partitions have no order, and from version 16 on the server can
 * combine the states of these.
 */
static bool
depends_on_order(Oid function)
{
	switch (function)
	{
		case F_ARRAY_AGG_ANYARRAY:
		case F_ARRAY_AGG_ANYNONARRAY:
		case F_STRING_AGG_TEXT_TEXT:
		case F_STRING_AGG_BYTEA_BYTEA:
#ifdef F_ANY_VALUE
		case F_ANY_VALUE:
#endif
			return true;
		default:
			return false;
	}
}

SeAggregateMethod
se_aggregate_method(const Aggref *aggref, const char **reason)
{
	*reason = NULL;
	if (AGGKIND_IS_ORDERED_SET(aggref->aggkind))
		*reason = "It is an ordered-set aggregate.";
	else if (aggref->aggdistinct == NIL && aggref->aggorder != NIL)
		*reason = "It has an ORDER BY clause.";
	else if (get_func_namespace(aggref->aggfnoid) != PG_CATALOG_NAMESPACE)
		*reason = "It is not one of the server's own aggregates.";
	else if (aggref->aggdistinct == NIL && depends_on_order(aggref->aggfnoid))
		*reason = "Its result depends on the order of the records.";
	if (*reason != NULL)
		return SE_AGG_UNSUPPORTED;

	if (kernel_of(aggref) != NULL)
		return SE_AGG_KERNEL;
	*reason = se_combine_refusal(aggref);
	if (*reason != NULL)
		return SE_AGG_UNSUPPORTED;
	return aggref->aggdistinct != NIL ? SE_AGG_DISTINCT : SE_AGG_COMBINE;
}

static bool
same_input(const Aggref *a, const Aggref *b)
{
	return a->inputcollid == b->inputcollid && equal(a->args, b->args) &&
		equal(a->aggfilter, b->aggfilter);
}

static bool
same_aggregate(const Aggref *a, const Aggref *b)
{
	return a->aggfnoid == b->aggfnoid && a->aggtype == b->aggtype &&
		equal(a->aggdistinct, b->aggdistinct) && same_input(a, b);
}

static uint32
size_of_state(SeStateKind kind)
{
	switch (kind)
	{
		case STATE_SUM_INT128:
			return sizeof(int128_unaligned);
		case STATE_SUM_DECIMAL:
			return sizeof(SeDecimalSum);
		case STATE_MIN_DECIMAL:
		case STATE_MAX_DECIMAL:
			return sizeof(SeDecimal);
		case STATE_COMBINE:
			return sizeof(SeCombineState);
		default:
			return sizeof(int64);
	}
}

/* Lanes of an entry of the byte format; see codec.c. */
static int
lanes_of_state(const SeStateDef *state)
{
	int			lanes = state->with_count ? 1 : 0;

	switch (state->kind)
	{
		case STATE_SUM_DECIMAL:
			return lanes + 3;
		case STATE_MIN_DECIMAL:
		case STATE_MAX_DECIMAL:
			return lanes + 2;
		default:
			return lanes + 1;
	}
}

/* May the values of the two states be compared bit by bit? */
static bool
comparable(const SeStateDef *a, const SeStateDef *b)
{
	return a->kind != STATE_COUNT && b->kind != STATE_COUNT &&
		a->kind != STATE_COMBINE && b->kind != STATE_COMBINE && a->rep == b->rep;
}

/*
 * Assign a state to each aggregate.  state_refs[i] becomes the Aggref that
 * owns state i.
 */
static void
assign_states(SeGroupLayout *layout, Aggref *const *aggrefs, const Aggref **state_refs,
			  Oid *transtypes, MemoryContext context)
{
	for (int i = 0; i < layout->naggs; i++)
	{
		const Aggref *aggref = aggrefs[i];
		SeAggDef   *agg = &layout->aggs[i];
		const KernelEntry *kernel = kernel_of(aggref);
		const char *reason;
		SeStateDef *state = NULL;
		int			s;

		if (se_aggregate_method(aggref, &reason) == SE_AGG_UNSUPPORTED)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("aggregate function %s cannot be computed incrementally",
							get_func_name(aggref->aggfnoid)),
					 errdetail_internal("%s", reason)));

		agg->function = aggref->aggfnoid;
		agg->result_type = aggref->aggtype;
		agg->result_typlen = get_typlen(aggref->aggtype);
		agg->result = kernel ? kernel->result : RESULT_COMBINE;

		for (s = 0; s < layout->nstates; s++)
		{
			SeStateDef *other = &layout->states[s];

			if (kernel != NULL && other->kind == kernel->kind &&
				same_input(aggref, state_refs[s]))
				break;
			if (kernel == NULL && other->kind == STATE_COMBINE &&
				same_aggregate(aggref, state_refs[s]))
				break;
		}
		agg->state = s;
		state = &layout->states[s];
		if (s == layout->nstates)
		{
			layout->nstates++;
			state_refs[s] = aggref;
			state->owner = i;
			state->any_input = aggref->aggstar;
			if (kernel != NULL)
			{
				state->kind = kernel->kind;
				state->rep = kernel->rep;
			}
			else
			{
				state->kind = STATE_COMBINE;
				state->combine = se_combine_compile(aggref, context, &transtypes[s]);
				if (aggref->aggdistinct != NIL)
					state->distinct = se_distinct_compile(aggref, state->combine,
														  se_combine_skips_nulls(state->combine),
														  context);
				layout->has_combine = true;
			}
		}
		if (agg->result == RESULT_AVERAGE)
			state->with_count = true;
	}
}

/* Offsets of has bits, keys and states; the bases of the byte format. */
static void
assign_offsets(SeGroupLayout *layout, const Aggref **state_refs)
{
	uint32		offset;
	int			count_base = -1;

	layout->has_words = (layout->nstates + 63) / 64;
	layout->key_offset = offsetof(SeGroup, has) + sizeof(uint64) * layout->has_words;
	offset = layout->key_offset + layout->key_size;
	layout->nlanes = 1;			/* the kind of the entry */
	for (int i = 0; i < layout->nkeys; i++)
		layout->nlanes += layout->keys[i].kind == KEY_DECIMAL ? 2 : 1;

	for (int i = 0; i < layout->nstates; i++)
	{
		SeStateDef *state = &layout->states[i];

		state->has_word = i / 64;
		state->has_bit = UINT64CONST(1) << (i % 64);
		state->offset = offset;
		offset += size_of_state(state->kind);
		state->count_offset = state->offset;
		if (state->with_count)
		{
			state->count_offset = offset;
			offset += sizeof(int64);
		}
		state->base = -1;
		for (int b = i - 1; b >= 0 && state->base < 0; b--)
		{
			if (comparable(&layout->states[b], state) && same_input(state_refs[b], state_refs[i]))
				state->base = b;
		}
		state->count_base = -1;
		if (state->kind == STATE_COUNT || state->with_count)
		{
			state->count_base = count_base;
			count_base = i;
		}
		layout->nlanes += lanes_of_state(state);
	}

	/* A slot that nearly fills a cache line had better own it. */
	if (offset > 40 && offset < 64)
		offset = 64;
	layout->slot_size = offset;
}

static uint32
stamp_text(uint32 stamp, const char *text)
{
	return hash_combine(stamp, hash_bytes((const unsigned char *) text, strlen(text)));
}

/*
 * A nondeterministic collation counts with the version that its library has
 * (not the one that the catalog remembers): its sort keys decide hashes.
 */
static uint32
stamp_collation(uint32 stamp, Oid collation)
{
	HeapTuple	tuple;
	Datum		locale;
	bool		isnull;

	stamp = hash_combine(stamp, collation);
	if (!OidIsValid(collation) || get_collation_isdeterministic(collation))
		return stamp;

	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", collation);
	locale = SysCacheGetAttr(COLLOID, tuple, SE_ANUM_COLLATION_ICU_LOCALE, &isnull);
	if (!isnull)
	{
		Form_pg_collation form = (Form_pg_collation) GETSTRUCT(tuple);
		char	   *version = get_collation_actual_version(form->collprovider,
														  TextDatumGetCString(locale));

		if (version != NULL)
			stamp = stamp_text(stamp, version);
	}
	ReleaseSysCache(tuple);
	return stamp;
}

static uint32
compute_stamp(const SeGroupLayout *layout, const Aggref **state_refs, const Oid *transtypes)
{
	uint32		stamp = hash_combine(FORMAT_VERSION, SE_STATE_GENERATION);

	stamp = hash_combine(stamp, layout->nkeys);
	for (int i = 0; i < layout->nkeys; i++)
	{
		stamp = hash_combine(stamp, layout->keys[i].type);
		stamp = hash_combine(stamp, layout->keys[i].kind);
		stamp = stamp_collation(stamp, layout->keys[i].collation);
	}
	stamp = hash_combine(stamp, layout->nstates);
	for (int i = 0; i < layout->nstates; i++)
	{
		const SeStateDef *state = &layout->states[i];
		const Aggref *aggref = state_refs[i];
		ListCell   *lc;

		stamp = hash_combine(stamp, state->kind);
		stamp = hash_combine(stamp, state->with_count);
		stamp = hash_combine(stamp, (uint32) state->base);
		stamp = hash_combine(stamp, (uint32) state->count_base);
		if (state->kind == STATE_COMBINE)
		{
			stamp = hash_combine(stamp, aggref->aggfnoid);
			stamp = hash_combine(stamp, transtypes[i]);
			stamp = hash_combine(stamp, aggref->inputcollid);
			if (state->distinct != NULL)
				stamp = hash_combine(stamp, se_distinct_stamp(state->distinct));
		}
		foreach(lc, aggref->args)
			stamp = hash_combine(stamp, exprType((Node *) lfirst_node(TargetEntry, lc)->expr));
	}
	for (int i = 0; i < layout->naggs; i++)
	{
		stamp = hash_combine(stamp, layout->aggs[i].function);
		stamp = hash_combine(stamp, layout->aggs[i].state);
	}
	return stamp;
}

SeGroupLayout *
se_layout_create(int nkeys, const SeKeySpec *keys, int naggs, Aggref *const *aggrefs,
				 MemoryContext context)
{
	SeGroupLayout *layout = MemoryContextAllocZero(context, sizeof(SeGroupLayout));
	const Aggref **state_refs = palloc0(sizeof(Aggref *) * Max(naggs, 1));
	Oid		   *transtypes = palloc0(sizeof(Oid) * Max(naggs, 1));

	layout->nkeys = nkeys;
	layout->naggs = naggs;
	layout->aggs = MemoryContextAllocZero(context, sizeof(SeAggDef) * Max(naggs, 1));
	layout->states = MemoryContextAllocZero(context, sizeof(SeStateDef) * Max(naggs, 1));
	se_keys_compile(layout, keys, context);
	assign_states(layout, aggrefs, state_refs, transtypes, context);
	assign_offsets(layout, state_refs);
	layout->plain = true;
	for (int i = 0; i < layout->nstates; i++)
	{
		SeStateKind kind = layout->states[i].kind;

		if (kind == STATE_COMBINE || layout->states[i].rep == SE_REP_DECIMAL)
			layout->plain = false;
	}
	layout->stamp = compute_stamp(layout, state_refs, transtypes);
	pfree(state_refs);
	pfree(transtypes);
	return layout;
}

uint32
se_layout_stamp(const SeGroupLayout *layout)
{
	return layout->stamp;
}
