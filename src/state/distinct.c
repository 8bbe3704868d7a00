/*
 * distinct.c
 *	  Aggregates over distinct values: count(DISTINCT x), sum(DISTINCT x), ...
 *
 * NOTES
 *	  Partial results of such an aggregate cannot be combined, the sets of
 *	  values that they have seen can.  So the state is a set: a hash table of
 *	  values, equal as the type's own operator has it, in the memtable's
 *	  state_context.  The aggregate itself runs when its result is asked for,
 *	  over the sorted values, as the server's does; only count needs no run.
 *	  Of values that are equal but not the same (1.0 and 1.00) the set keeps the
 *	  first that it was given, and which one that is the server does not say either.
 *
 *	  As aggregates that run through their own functions, it is of
 *	  STATE_COMBINE: combine.c hands over what it is asked for.  A set without
 *	  values is the null state.  The bytes of a set: one that says whether NULL
 *	  is in it, then the values one behind the other, those of variable length
 *	  behind their lengths.
 *
 *	  An anonymous row, as in count(DISTINCT (a, b)), says what its columns are by a number
 *	  that each process gives itself.  It is given the number anew when it is read.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_clause.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/sortsupport.h"
#include "utils/typcache.h"

#include "source/vector.h"
#include "state/state_internal.h"

#define FIRST_SLOTS 4
#define MAX_VALUES (UINT32_C(1) << 30)

struct SeDistinctDef
{
	Oid			type;			/* of the values */
	int16		typlen;
	bool		typbyval;
	TupleDesc	row;			/* of anonymous rows; else NULL */
	Oid			collation;
	FmgrInfo	hash;
	FmgrInfo	equal;
	SortSupportData sort;
	bool		keeps_null;		/* the transition function is called for NULL */
	bool		counts;			/* the result is the number of values */
	int			nextra;			/* further arguments, all constant */
	NullableDatum *extra;
	int16		result_typlen;
	bool		result_typbyval;
	SeCombineCall *call;		/* the aggregate's own functions */
};

typedef struct DistinctSet
{
	uint32		nvalues;
	uint32		nslots;			/* a power of two */
	bool		has_null;
	uint32	   *hashes;			/* 0: free */
	Datum	   *values;
} DistinctSet;

/* The DISTINCT clause of the aggregate's first argument. */
static const SortGroupClause *
first_clause(const Aggref *aggref)
{
	Index		ref = linitial_node(TargetEntry, aggref->args)->ressortgroupref;
	ListCell   *cell;

	foreach(cell, aggref->aggdistinct)
	{
		const SortGroupClause *clause = lfirst_node(SortGroupClause, cell);

		if (ref != 0 && clause->tleSortGroupRef == ref)
			return clause;
	}
	return NULL;
}

static Node *
first_argument(const Aggref *aggref)
{
	return (Node *) linitial_node(TargetEntry, aggref->args)->expr;
}

/* The columns of an anonymous row that can be hashed and sorted, else NIL. */
static List *
row_columns(Node *argument)
{
	List	   *columns = IsA(argument, RowExpr) ? ((RowExpr *) argument)->args : NIL;
	ListCell   *cell;

	foreach(cell, columns)
	{
		TypeCacheEntry *type = lookup_type_cache(exprType(lfirst(cell)),
												 TYPECACHE_CMP_PROC | TYPECACHE_HASH_PROC);

		if (se_type_is_anonymous(type->type_id) ||
			!OidIsValid(type->cmp_proc) || !OidIsValid(type->hash_proc))
			return NIL;
	}
	return columns;
}

/*
 * Why the aggregate, which has DISTINCT, cannot be run over a set, or NULL.
 */
const char *
se_distinct_refusal(const Aggref *aggref)
{
	const SortGroupClause *clause;
	Node	   *argument = first_argument(aggref);

	for (int i = 1; i < list_length(aggref->args); i++)
	{
		if (!IsA(list_nth_node(TargetEntry, aggref->args, i)->expr, Const))
			return "It has DISTINCT over several arguments.";
	}
	clause = first_clause(aggref);
	if (clause == NULL || !OidIsValid(clause->sortop) || get_typlen(exprType(argument)) == -2 ||
		!(se_type_is_anonymous(exprType(argument)) ? row_columns(argument) != NIL :
		  clause->hashable))
		return "Its argument is of a type that cannot be hashed and sorted.";
	return NULL;
}

SeDistinctDef *
se_distinct_compile(const Aggref *aggref, SeCombineCall *call, bool strict, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	SeDistinctDef *def = palloc0(sizeof(SeDistinctDef));
	const SortGroupClause *clause = first_clause(aggref);
	Oid			hash;
	Oid			hash_right;

	def->type = exprType(first_argument(aggref));
	get_typlenbyval(def->type, &def->typlen, &def->typbyval);
	if (se_type_is_anonymous(def->type))
		def->row = BlessTupleDesc(ExecTypeFromExprList(row_columns(first_argument(aggref))));
	def->collation = aggref->inputcollid;
	if (!get_op_hash_functions(clause->eqop, &hash, &hash_right))
		elog(ERROR, "could not find hash function for operator %u", clause->eqop);
	fmgr_info_cxt(hash, &def->hash, context);
	fmgr_info_cxt(get_opcode(clause->eqop), &def->equal, context);
	def->sort.ssup_cxt = context;
	def->sort.ssup_collation = def->collation;
	def->sort.ssup_nulls_first = clause->nulls_first;
	PrepareSortSupportFromOrderingOp(clause->sortop, &def->sort);
	def->keeps_null = !strict;
	def->counts = aggref->aggfnoid == F_COUNT_ANY;
	def->nextra = list_length(aggref->args) - 1;
	def->extra = palloc0(sizeof(NullableDatum) * Max(def->nextra, 1));
	for (int i = 0; i < def->nextra; i++)
	{
		const Const *argument =
			(const Const *) list_nth_node(TargetEntry, aggref->args, i + 1)->expr;

		def->extra[i].isnull = argument->constisnull;
		if (!argument->constisnull)
			def->extra[i].value = datumCopy(argument->constvalue, argument->constbyval,
											argument->constlen);
	}
	get_typlenbyval(aggref->aggtype, &def->result_typlen, &def->result_typbyval);
	def->call = call;
	MemoryContextSwitchTo(old);
	return def;
}

/* What the byte format depends on. */
uint32
se_distinct_stamp(const SeDistinctDef *def)
{
	uint32		stamp = hash_combine(hash_combine(def->type, def->equal.fn_oid),
									 def->keeps_null);

	for (int i = 0; def->row != NULL && i < def->row->natts; i++)
		stamp = hash_combine(stamp, TupleDescAttr(def->row, i)->atttypid);
	return stamp;
}

static void
make_slots(DistinctSet *set, uint32 nslots, MemoryContext context)
{
	set->nslots = nslots;
	set->hashes = MemoryContextAllocExtended(context, sizeof(uint32) * (Size) nslots,
											 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	set->values = MemoryContextAllocExtended(context, sizeof(Datum) * (Size) nslots,
											 MCXT_ALLOC_HUGE);
}

static DistinctSet *
set_of(SeMemtable *table, SeCombineState *state)
{
	DistinctSet *set;

	if (!state->isnull)
		return (DistinctSet *) DatumGetPointer(state->value);
	set = MemoryContextAllocZero(table->state_context, sizeof(DistinctSet));
	make_slots(set, FIRST_SLOTS, table->state_context);
	state->value = PointerGetDatum(set);
	state->isnull = false;
	state->no_value = false;
	return set;
}

static void
grow(DistinctSet *set, MemoryContext context)
{
	DistinctSet smaller = *set;

	if (set->nvalues >= MAX_VALUES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a group has more than %u distinct values", MAX_VALUES)));
	make_slots(set, smaller.nslots * 2, context);
	for (uint32 i = 0; i < smaller.nslots; i++)
	{
		uint32		slot = smaller.hashes[i] & (set->nslots - 1);

		if (smaller.hashes[i] == 0)
			continue;
		while (set->hashes[slot] != 0)
			slot = (slot + 1) & (set->nslots - 1);
		set->hashes[slot] = smaller.hashes[i];
		set->values[slot] = smaller.values[i];
	}
	pfree(smaller.hashes);
	pfree(smaller.values);
}

/* Put a value, which is copied, into the set if it is not there. */
static void
add_value(SeMemtable *table, SeDistinctDef *def, DistinctSet *set, Datum value)
{
	uint32		hash = DatumGetUInt32(FunctionCall1Coll(&def->hash, def->collation, value));
	uint32		slot;
	MemoryContext old;

	if (hash == 0)
		hash = 1;
	for (slot = hash & (set->nslots - 1); set->hashes[slot] != 0;
		 slot = (slot + 1) & (set->nslots - 1))
	{
		if (set->hashes[slot] == hash &&
			DatumGetBool(FunctionCall2Coll(&def->equal, def->collation, set->values[slot],
										   value)))
			return;
	}

	old = MemoryContextSwitchTo(table->state_context);
	if (def->typlen == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	else
		value = datumCopy(value, def->typbyval, def->typlen);
	MemoryContextSwitchTo(old);
	set->hashes[slot] = hash;
	set->values[slot] = value;
	if (++set->nvalues > set->nslots / 4 * 3)
		grow(set, table->state_context);
}

void
se_distinct_update(SeMemtable *table, const SeStateDef *state, const SeVector *args,
				   const int *rows, int nrows, SeGroup **groups)
{
	SeDistinctDef *def = state->distinct;
	MemoryContext old = MemoryContextSwitchTo(table->call_context);

	for (int i = 0; i < nrows; i++)
	{
		int			row = rows[i];

		se_state_error_row = row;
		if (args[0].null[row] != 0)
		{
			if (def->keeps_null)
				set_of(table, state_of(state, groups[i]))->has_null = true;
			continue;
		}
		add_value(table, def, set_of(table, state_of(state, groups[i])),
				  se_vector_datum(&args[0], row, def->type));
		MemoryContextReset(table->call_context);
	}
	MemoryContextSwitchTo(old);
}

/* The bytes of a value, without a length. */
static const char *
value_bytes(const SeDistinctDef *def, const Datum *value, Size *len)
{
	if (def->typlen == -1)
	{
		*len = VARSIZE_ANY_EXHDR(DatumGetPointer(*value));
		return VARDATA_ANY(DatumGetPointer(*value));
	}
	*len = def->typlen;
	return DatumGetPointer(*value);
}

/* The set as bytes, in CurrentMemoryContext. */
void
se_distinct_bytes(const SeStateDef *state, const SeGroup *group, const char **bytes, uint32 *len)
{
	const SeDistinctDef *def = state->distinct;
	const SeCombineState *source = state_of(state, group);
	const DistinctSet *set = (const DistinctSet *) DatumGetPointer(source->value);
	Size		size = 1;
	Size		value_len;
	char	   *to;

	if (def->typlen != -1)
		size += (Size) set->nvalues * def->typlen;
	else
	{
		for (uint32 i = 0; i < set->nslots; i++)
		{
			if (set->hashes[i] == 0)
				continue;
			(void) value_bytes(def, &set->values[i], &value_len);
			size += sizeof(uint32) + value_len;
		}
	}
	if (!se_distinct_check(size))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the distinct values of a group take more than 1 GB")));

	*bytes = to = palloc(size);
	*len = size;
	*to++ = set->has_null;
	for (uint32 i = 0; i < set->nslots; i++)
	{
		const char *from;

		if (set->hashes[i] == 0)
			continue;
		if (def->typbyval)
		{
			Datum		aligned = (Datum) 0;

			store_att_byval(&aligned, set->values[i], def->typlen);
			memcpy(to, &aligned, def->typlen);
			to += def->typlen;
			continue;
		}
		from = value_bytes(def, &set->values[i], &value_len);
		if (def->typlen == -1)
		{
			uint32		stored = value_len;

			memcpy(to, &stored, sizeof(stored));
			to += sizeof(stored);
		}
		memcpy(to, from, value_len);
		to += value_len;
	}
}

/* Can "len" bytes be a set? */
bool
se_distinct_check(Size len)
{
	return len > 0 && len < MaxAllocSize - VARHDRSZ;
}

static void
corrupted(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("window state is corrupted")));
}

/* The value at *at, aligned in CurrentMemoryContext; *at becomes the place behind it. */
static Datum
next_value(const SeDistinctDef *def, const char **at, const char *end)
{
	uint32		len = def->typlen;
	char	   *copy;

	if (def->typlen == -1)
	{
		if (end - *at < sizeof(len))
			corrupted();
		memcpy(&len, *at, sizeof(len));
		*at += sizeof(len);
	}
	if (end - *at < len ||
		(def->row != NULL && (Size) len + VARHDRSZ < SizeofHeapTupleHeader))
		corrupted();

	copy = palloc(Max((Size) len + VARHDRSZ, sizeof(Datum)));
	if (def->typlen == -1)
	{
		SET_VARSIZE(copy, len + VARHDRSZ);
		memcpy(VARDATA(copy), *at, len);
	}
	else
		memcpy(copy, *at, len);
	if (def->row != NULL)
		HeapTupleHeaderSetTypMod((HeapTupleHeader) copy, def->row->tdtypmod);
	*at += len;
	return fetch_att(copy, def->typbyval, def->typlen);
}

/*
 * Add the values of "from", a decoded entry, to those of "to".
 */
void
se_distinct_merge(SeMemtable *table, const SeStateDef *state, SeGroup *to, const SeGroup *from)
{
	SeDistinctDef *def = state->distinct;
	const SeCombineState *source = state_of(state, from);
	const char *at = DatumGetPointer(source->value);
	const char *end = at + source->len;
	DistinctSet *set;
	MemoryContext old;
	MemoryContext values;

	if (source->isnull)
		return;
	set = set_of(table, state_of(state, to));
	set->has_null |= *at++ != 0;
	/* the entry's bytes may lie in call_context */
	values = AllocSetContextCreate(table->call_context, "distinct values",
								   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(values);
	while (at < end)
	{
		add_value(table, def, set, next_value(def, &at, end));
		MemoryContextReset(values);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(values);
}

static int
compare_values(const void *a, const void *b, void *arg)
{
	return ApplySortComparator(*(const Datum *) a, false, *(const Datum *) b, false, arg);
}

/* What the aggregate gives for the values; by-reference results are in CurrentMemoryContext. */
Datum
se_distinct_result(const SeStateDef *state, const SeGroup *group, bool *isnull)
{
	SeDistinctDef *def = state->distinct;
	const SeCombineState *source = state_of(state, group);
	const DistinctSet *set = (const DistinctSet *) DatumGetPointer(source->value);
	uint32		nvalues = source->isnull ? 0 : set->nvalues;
	bool		has_null = !source->isnull && set->has_null;
	uint32		n = 0;
	NullableDatum *values;
	Datum	   *sorted;
	Datum		result;
	MemoryContext old;
	MemoryContext run;

	if (def->counts)
	{
		*isnull = false;
		return Int64GetDatum(nvalues);
	}

	run = AllocSetContextCreate(CurrentMemoryContext, "aggregate over distinct values",
								ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(run);
	sorted = MemoryContextAllocHuge(run, sizeof(Datum) * Max((Size) nvalues, 1));
	for (uint32 i = 0; n < nvalues; i++)
	{
		if (set->hashes[i] != 0)
			sorted[n++] = set->values[i];
	}
	qsort_arg(sorted, n, sizeof(Datum), compare_values, &def->sort);

	values = MemoryContextAllocHuge(run, sizeof(NullableDatum) * ((Size) nvalues + 1));
	n = 0;
	if (has_null && def->sort.ssup_nulls_first)
		values[n++] = (NullableDatum) {(Datum) 0, true};
	for (uint32 i = 0; i < nvalues; i++)
		values[n++] = (NullableDatum) {sorted[i], false};
	if (has_null && !def->sort.ssup_nulls_first)
		values[n++] = (NullableDatum) {(Datum) 0, true};

	result = se_combine_run(def->call, values, n, def->nextra, def->extra, isnull);
	MemoryContextSwitchTo(old);
	if (!*isnull)
		result = datumCopy(result, def->result_typbyval, def->result_typlen);
	MemoryContextDelete(run);
	return result;
}
