/*
 * state_test.c
 *	  SQL functions that run src/state as a reader would; see state.sh.
 *
 * NOTES
 *	  A query here is a SELECT over one table whose output columns are group keys
 *	  and bare aggregates.  Its rows are evaluated by the server's expression
 *	  machinery into column vectors, dealt out to several memtables at random,
 *	  flushed at random moments, and merged again.
 */
#include "postgres.h"

#include <math.h>
#include <time.h>

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "port/pg_crc32c.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "compat/compat.h"
#include "source/vector.h"
#include "state/state.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(state_groupby);
PG_FUNCTION_INFO_V1(state_fuzz);
PG_FUNCTION_INFO_V1(state_methods);
PG_FUNCTION_INFO_V1(state_bench);

typedef struct Column
{
	Oid			type;
	ExprState  *expr;
	SeVector	vector;
} Column;

typedef struct TestAgg
{
	Aggref	   *aggref;
	ExprState  *filter;
	int			nargs;
	Column	   *args;
	SeVector   *vectors;
	bool		passes[SE_BATCH_MAX];
} TestAgg;

typedef struct TestQuery
{
	Oid			relation;
	int			nkeys;
	Column	   *keys;
	SeVector   *key_vectors;
	SeKeySpec  *specs;
	int			naggs;
	TestAgg    *aggs;
	Aggref	  **aggrefs;
	int			noutputs;
	int		   *outputs;		/* key index, or -1 - aggregate index */
	TupleDesc	desc;
	ExprContext *econtext;
	SeGroupLayout *layout;
} TestQuery;

typedef struct Chunk
{
	char	   *bytes;
	Size		size;
	uint32		hash_low;
	uint32		hash_high;
	int			ngroups;
} Chunk;

typedef struct ChunkList
{
	List	   *chunks;
	Size		max_chunk;
	uint32		previous_high;
	int64		ngroups;
	MemoryContext context;
} ChunkList;

static pg_prng_state prng;

static int
random_below(int n)
{
	return (int) pg_prng_uint64_range(&prng, 0, n - 1);
}

static void
prepare_column(Column *column, Expr *expr)
{
	column->type = exprType((Node *) expr);
	column->expr = ExecPrepareExpr(expr, CreateExecutorState());
	se_vector_init(&column->vector, se_rep_of_type(column->type), SE_BATCH_MAX,
				   CurrentMemoryContext);
}

static Query *
analyze(const char *text)
{
	List	   *trees = pg_parse_query(text);
	Query	   *query = parse_analyze_fixedparams(linitial_node(RawStmt, trees), text, NULL, 0,
												  NULL);

	query->targetList = (List *) se_flatten_group_exprs(query, (Node *) query->targetList);
	return query;
}

static TestQuery *
compile(const char *text)
{
	Query	   *query = analyze(text);
	TestQuery  *test = palloc0(sizeof(TestQuery));
	int			ntargets = list_length(query->targetList);
	ListCell   *lc;

	test->relation = linitial_node(RangeTblEntry, query->rtable)->relid;
	test->keys = palloc0(sizeof(Column) * ntargets);
	test->key_vectors = palloc0(sizeof(SeVector) * ntargets);
	test->specs = palloc0(sizeof(SeKeySpec) * ntargets);
	test->aggs = palloc0(sizeof(TestAgg) * ntargets);
	test->aggrefs = palloc0(sizeof(Aggref *) * ntargets);
	test->outputs = palloc0(sizeof(int) * ntargets);
	test->desc = BlessTupleDesc(ExecCleanTypeFromTL(query->targetList));
	test->econtext = CreateStandaloneExprContext();

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (IsA(target->expr, Aggref))
		{
			TestAgg    *agg = &test->aggs[test->naggs];
			ListCell   *arg;
			int			i = 0;

			agg->aggref = (Aggref *) target->expr;
			agg->filter = ExecPrepareExpr(agg->aggref->aggfilter, CreateExecutorState());
			agg->nargs = list_length(agg->aggref->args);
			agg->args = palloc0(sizeof(Column) * Max(agg->nargs, 1));
			agg->vectors = palloc0(sizeof(SeVector) * Max(agg->nargs, 1));
			foreach(arg, agg->aggref->args)
			{
				prepare_column(&agg->args[i], lfirst_node(TargetEntry, arg)->expr);
				agg->vectors[i] = agg->args[i].vector;
				i++;
			}
			test->aggrefs[test->naggs] = agg->aggref;
			test->outputs[test->noutputs++] = -1 - test->naggs++;
		}
		else
		{
			SeKeySpec  *spec = &test->specs[test->nkeys];
			ListCell   *group;

			prepare_column(&test->keys[test->nkeys], target->expr);
			test->key_vectors[test->nkeys] = test->keys[test->nkeys].vector;
			spec->type = exprType((Node *) target->expr);
			spec->typmod = exprTypmod((Node *) target->expr);
			spec->collation = exprCollation((Node *) target->expr);
			foreach(group, query->groupClause)
			{
				SortGroupClause *clause = lfirst_node(SortGroupClause, group);

				if (clause->tleSortGroupRef == target->ressortgroupref)
				{
					spec->eq_opr = clause->eqop;
					spec->sort_opr = clause->sortop;
				}
			}
			test->outputs[test->noutputs++] = test->nkeys++;
		}
	}
	test->layout = se_layout_create(test->nkeys, test->specs, test->naggs, test->aggrefs,
									CurrentMemoryContext);
	return test;
}

static void
evaluate(Column *column, ExprContext *econtext, int row)
{
	bool		isnull;
	Datum		value = ExecEvalExpr(column->expr, econtext, &isnull);
	int16		typlen;
	bool		typbyval;

	get_typlenbyval(column->type, &typlen, &typbyval);
	if (!isnull)
		value = datumCopy(value, typbyval, typlen);
	se_vector_set(&column->vector, row, column->type, value, isnull);
}

static void
collect(void *arg, const char *bytes, Size size, uint32 hash_low, uint32 hash_high, int ngroups)
{
	ChunkList  *list = arg;
	MemoryContext old = MemoryContextSwitchTo(list->context);
	Chunk	   *chunk = palloc(sizeof(Chunk));

	if (size > list->max_chunk && ngroups > 1)
		elog(ERROR, "a chunk of %d groups has %zu bytes", ngroups, size);
	if (hash_low > hash_high || hash_low < list->previous_high)
		elog(ERROR, "chunks are not in hash order");
	list->previous_high = hash_high;
	list->ngroups += ngroups;
	chunk->bytes = palloc(size);
	memcpy(chunk->bytes, bytes, size);
	chunk->size = size;
	chunk->hash_low = hash_low;
	chunk->hash_high = hash_high;
	chunk->ngroups = ngroups;
	list->chunks = lappend(list->chunks, chunk);
	MemoryContextSwitchTo(old);
}

/* Flush and forget. */
static void
flush_run(SeMemtable *table, ChunkList *list)
{
	int64		before = list->ngroups;

	list->previous_high = 0;
	se_memtable_flush(table, list->max_chunk, collect, list);
	if (list->ngroups - before != se_memtable_ngroups(table))
		elog(ERROR, "flushed groups do not add up");
	se_memtable_reset(table);
	if (se_memtable_ngroups(table) != 0)
		elog(ERROR, "reset left groups behind");
}

static void
apply_rows(TestQuery *test, SeMemtable *table, const int *rows, int nrows)
{
	static SeGroup *groups[SE_BATCH_MAX];
	static SeGroup *agg_groups[SE_BATCH_MAX];
	static int	agg_rows[SE_BATCH_MAX];

	se_memtable_lookup(table, test->key_vectors, rows, nrows, groups);
	for (int a = 0; a < test->naggs; a++)
	{
		TestAgg    *agg = &test->aggs[a];
		int			n = 0;

		for (int i = 0; i < nrows; i++)
		{
			if (!agg->passes[rows[i]])
				continue;
			agg_rows[n] = rows[i];
			agg_groups[n++] = groups[i];
		}
		se_memtable_update(table, a, agg->vectors, agg_rows, n, agg_groups);
	}
}

/* Deal the table's rows out to "nruns" memtables, flushed now and then. */
static void
build_runs(TestQuery *test, int nruns, ChunkList *list)
{
	Relation	relation = table_open(test->relation, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TableScanDesc scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);
	SeMemtable **runs = palloc(sizeof(SeMemtable *) * nruns);
	MemoryContext batch = AllocSetContextCreate(CurrentMemoryContext, "batch",
												ALLOCSET_DEFAULT_SIZES);
	bool		more = true;

	for (int r = 0; r < nruns; r++)
		runs[r] = se_memtable_create(test->layout, CurrentMemoryContext, random_below(100));
	while (more)
	{
		int			wanted = 1 + random_below(SE_BATCH_MAX);
		int			n = 0;
		MemoryContext old = MemoryContextSwitchTo(batch);
		int			rows[SE_BATCH_MAX];
		int			owner[SE_BATCH_MAX];

		while (n < wanted && (more = table_scan_getnextslot(scan, ForwardScanDirection, slot)))
		{
			test->econtext->ecxt_scantuple = slot;
			for (int k = 0; k < test->nkeys; k++)
				evaluate(&test->keys[k], test->econtext, n);
			for (int a = 0; a < test->naggs; a++)
			{
				TestAgg    *agg = &test->aggs[a];
				bool		isnull = false;

				agg->passes[n] = agg->filter == NULL ||
					(DatumGetBool(ExecEvalExpr(agg->filter, test->econtext, &isnull)) && !isnull);
				for (int i = 0; i < agg->nargs; i++)
					evaluate(&agg->args[i], test->econtext, n);
			}
			owner[n++] = random_below(nruns);
		}
		MemoryContextSwitchTo(old);

		for (int r = 0; r < nruns; r++)
		{
			int			nrows = 0;

			for (int i = 0; i < n; i++)
			{
				if (owner[i] == r)
					rows[nrows++] = i;
			}
			apply_rows(test, runs[r], rows, nrows);
			if (random_below(8) == 0)
				flush_run(runs[r], list);
		}
		MemoryContextReset(batch);
	}
	for (int r = 0; r < nruns; r++)
	{
		flush_run(runs[r], list);
		se_memtable_free(runs[r]);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, AccessShareLock);
}

static void
output_group(TestQuery *test, SeMemtable *table, SeGroup *group, Tuplestorestate *store,
			 TupleDesc desc, int64 number)
{
	Datum	   *values = palloc(sizeof(Datum) * test->noutputs);
	bool	   *nulls = palloc(sizeof(bool) * test->noutputs);
	Datum		out[2];
	bool		out_nulls[2] = {false, false};
	HeapTuple	tuple;
	Oid			output;
	bool		varlena;

	for (int i = 0; i < test->noutputs; i++)
	{
		int			source = test->outputs[i];

		if (source >= 0)
			values[i] = se_group_key(table, group, source, &nulls[i]);
		else
		{
			/* twice: finalising must leave the state alone */
			values[i] = se_group_result(table, group, -1 - source, &nulls[i]);
			values[i] = se_group_result(table, group, -1 - source, &nulls[i]);
		}
	}
	tuple = heap_form_tuple(test->desc, values, nulls);
	getTypeOutputInfo(RECORDOID, &output, &varlena);
	out[0] = Int64GetDatum(number);
	out[1] = CStringGetTextDatum(OidOutputFunctionCall(output, HeapTupleGetDatum(tuple)));
	tuplestore_putvalues(store, desc, out, out_nulls);
}

/*
 * state_groupby(query text, runs int, ranges int, max_chunk int, fold bool,
 *				 seed bigint) returns setof (n bigint, line text)
 */
Datum
state_groupby(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TestQuery  *test;
	ChunkList	list = {0};
	int			nranges = PG_GETARG_INT32(2);
	bool		fold = PG_GETARG_BOOL(4);
	int64		number = 0;
	SeMemtable *table;
	MemoryContext output = AllocSetContextCreate(CurrentMemoryContext, "output",
												 ALLOCSET_DEFAULT_SIZES);

	InitMaterializedSRF(fcinfo, 0);
	pg_prng_seed(&prng, PG_GETARG_INT64(5));
	test = compile(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	list.max_chunk = PG_GETARG_INT32(3);
	list.context = CurrentMemoryContext;
	build_runs(test, PG_GETARG_INT32(1), &list);

	table = se_memtable_create(test->layout, CurrentMemoryContext, 0);
	for (int r = 0; r < nranges; r++)
	{
		uint32		low = (uint32) (((uint64) r << 32) / nranges);
		uint32		high = (uint32) ((((uint64) (r + 1) << 32) / nranges) - 1);
		ListCell   *lc;
		SeGroup   **groups;
		int64		ngroups;

		foreach(lc, list.chunks)
		{
			Chunk	   *chunk = lfirst(lc);

			if (chunk->hash_high >= low && chunk->hash_low <= high)
				se_memtable_merge(table, chunk->bytes, chunk->size, low, high);
		}
		if (fold)
		{
			ChunkList	folded = {0};

			folded.max_chunk = list.max_chunk;
			folded.context = CurrentMemoryContext;
			flush_run(table, &folded);
			foreach(lc, folded.chunks)
			{
				Chunk	   *chunk = lfirst(lc);

				se_memtable_merge(table, chunk->bytes, chunk->size, 0, PG_UINT32_MAX);
			}
		}

		groups = se_memtable_sorted(table, &ngroups);
		if (ngroups != se_memtable_ngroups(table))
			elog(ERROR, "sorted groups do not add up");
		for (int64 i = 0; i < ngroups; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(output);

			output_group(test, table, groups[i], rsinfo->setResult, rsinfo->setDesc, ++number);
			MemoryContextSwitchTo(old);
			MemoryContextReset(output);
		}
		pfree(groups);
		se_memtable_reset(table);
	}
	se_memtable_free(table);
	return (Datum) 0;
}

/* Merge bytes in a subtransaction; returns the SQLSTATE, 0 if it went well. */
static int
try_merge(TestQuery *test, const char *bytes, Size size)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile int sqlstate = 0;
	SeMemtable *table;

	BeginInternalSubTransaction(NULL);
	table = se_memtable_create(test->layout, CurrentMemoryContext, 10);
	PG_TRY();
	{
		int64		ngroups;

		/* the second merge meets the first one's groups */
		se_memtable_merge(table, bytes, size, 0, PG_UINT32_MAX);
		se_memtable_merge(table, bytes, size, 0, PG_UINT32_MAX);
		(void) se_memtable_sorted(table, &ngroups);
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		sqlstate = error->sqlerrcode;
		FreeErrorData(error);
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
	return sqlstate;
}

/*
 * state_fuzz(query text, iterations int, seed bigint, mode text) returns text:
 * mutates chunks.  With their CRC as it was, every mutation must be refused;
 * with a new CRC, anything but a crash is well, but where all states are "flat" no
 * function is there to raise an error of its own.  Mode "crc" makes no new CRCs:
 * for types whose functions trust their Datums' insides.
 */
Datum
state_fuzz(PG_FUNCTION_ARGS)
{
	TestQuery  *test;
	ChunkList	list = {0};
	int			accepted = 0;
	int			corrupted = 0;
	char	   *mode = text_to_cstring(PG_GETARG_TEXT_PP(3));
	bool		flat = strcmp(mode, "flat") == 0;

	pg_prng_seed(&prng, PG_GETARG_INT64(2));
	test = compile(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	list.max_chunk = 2000;
	list.context = CurrentMemoryContext;
	build_runs(test, 3, &list);

	for (int i = 0; i < PG_GETARG_INT32(1); i++)
	{
		Chunk	   *chunk = list_nth(list.chunks, random_below(list_length(list.chunks)));
		Size		size = chunk->size;
		char	   *bytes = palloc(size + 16);
		char	   *exact;
		bool		resign = random_below(4) != 0 && strcmp(mode, "crc") != 0;
		int			sqlstate;

		CHECK_FOR_INTERRUPTS();
		memset(bytes, 0, size + 16);
		memcpy(bytes, chunk->bytes, size);
		switch (random_below(4))
		{
			case 0:
				size = random_below(size);
				break;
			case 1:
				size += 1 + random_below(16);
				break;
			default:
				for (int n = 1 + random_below(6); n > 0; n--)
					bytes[random_below(size)] ^= 1 + random_below(255);
				break;
		}
		if (resign && size >= 9)
		{
			pg_crc32c	crc;

			bytes[0] = chunk->bytes[0];
			INIT_CRC32C(crc);
			COMP_CRC32C(crc, bytes + 5, size - 5);
			FIN_CRC32C(crc);
			memcpy(bytes + 1, &crc, sizeof(crc));
		}
		/* of exactly that size, for tools that watch malloc */
		exact = malloc(Max(size, 1));
		memcpy(exact, bytes, size);
		sqlstate = try_merge(test, exact, size);
		free(exact);
		if (sqlstate == ERRCODE_DATA_CORRUPTED)
			corrupted++;
		else if (sqlstate != 0)
		{
			/* two extreme values may add up to an overflow */
			if (!resign || (flat && sqlstate != ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE))
				elog(ERROR, "unexpected SQLSTATE %s", unpack_sql_state(sqlstate));
		}
		else if (!resign && (size != chunk->size || memcmp(bytes, chunk->bytes, size) != 0))
			elog(ERROR, "a chunk with a wrong CRC was accepted");
		else
			accepted++;
		pfree(bytes);
	}
	if ((accepted == 0 && strcmp(mode, "crc") != 0) || corrupted == 0)
		elog(ERROR, "fuzzing was one-sided: %d accepted, %d corrupted", accepted, corrupted);
	PG_RETURN_TEXT_P(cstring_to_text("ok"));
}

/*
 * state_methods(query text) returns setof (n bigint, line text): how each
 * aggregate of the query is executed.
 */
Datum
state_methods(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"kernel", "combine", "distinct", "unsupported"};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Query	   *query = analyze(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		const char *reason;
		Datum		out[2];
		bool		nulls[2] = {false, false};

		if (!IsA(target->expr, Aggref))
			continue;
		out[0] = Int64GetDatum(target->resno);
		out[1] = CStringGetTextDatum(names[se_aggregate_method((Aggref *) target->expr, &reason)]);
		if (reason != NULL)
			out[1] = CStringGetTextDatum(psprintf("unsupported: %s", reason));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, out, nulls);
	}
	return (Datum) 0;
}

/* CPU time of this process: others may compete for the processor. */
static double
cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

/*
 * state_bench(query text, groups int, events int) returns text: nanoseconds of CPU for
 * random keys (bigint, or text of 6 to 13 bytes) and small arguments.  The query's
 * table is not read.
 */
Datum
state_bench(PG_FUNCTION_ARGS)
{
	TestQuery  *test = compile(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	int			ngroups = PG_GETARG_INT32(1);
	int			nevents = PG_GETARG_INT32(2);
	SeMemtable *table = se_memtable_create(test->layout, CurrentMemoryContext, ngroups);
	SeMemtable *target = se_memtable_create(test->layout, CurrentMemoryContext, ngroups);
	ChunkList	list = {0};
	char	   *texts = palloc((Size) SE_BATCH_MAX * 16);
	int			rows[SE_BATCH_MAX];
	double		best[5] = {INFINITY, INFINITY, INFINITY, INFINITY, INFINITY};
	int64		groups = 0;
	Size		bytes = 0;
	Size		memory = 0;

	pg_prng_seed(&prng, 1);
	list.max_chunk = 8000;
	list.context = CurrentMemoryContext;
	for (int i = 0; i < SE_BATCH_MAX; i++)
		rows[i] = i;
	for (int a = 0; a < test->naggs; a++)
		memset(test->aggs[a].passes, true, SE_BATCH_MAX);

	for (int round = 0; round < 4; round++)
	{
		double		start;
		double		update = 0;
		SeGroup   **sorted;
		ListCell   *lc;

		for (int done = 0; done < nevents; done += SE_BATCH_MAX)
		{
			for (int k = 0; k < test->nkeys; k++)
			{
				SeVector   *vector = &test->key_vectors[k];

				for (int i = 0; i < SE_BATCH_MAX; i++)
				{
					int			key = random_below(ngroups);

					if (vector->rep == SE_REP_TEXT)
					{
						char	   *text = texts + i * 16;

						vector->v.text[i].data = text;
						vector->v.text[i].len = sprintf(text, "key-%0*d", 2 + key % 8, key);
					}
					else
						vector->v.i64[i] = key;
				}
			}
			for (int a = 0; a < test->naggs; a++)
			{
				for (int j = 0; j < test->aggs[a].nargs; j++)
				{
					SeVector   *vector = &test->aggs[a].vectors[j];

					for (int i = 0; i < SE_BATCH_MAX; i++)
					{
						int			value = (rows[i] * 7 + done) % 10000;

						if (vector->rep == SE_REP_DECIMAL)
							vector->v.dec[i] = (SeDecimal) {value, 2};
						else if (vector->rep == SE_REP_FLOAT64)
							vector->v.f64[i] = value;
						else
							vector->v.i64[i] = value;
					}
				}
			}
			start = cpu_ns();
			apply_rows(test, table, rows, SE_BATCH_MAX);
			update += (cpu_ns() - start);
		}
		groups = se_memtable_ngroups(table);
		memory = se_memtable_memory(table);
		best[0] = Min(best[0], update / nevents);

		list.chunks = NIL;
		list.previous_high = 0;
		start = cpu_ns();
		se_memtable_flush(table, list.max_chunk, collect, &list);
		best[1] = Min(best[1], (cpu_ns() - start) / groups);

		start = cpu_ns();
		sorted = se_memtable_sorted(table, &groups);
		best[2] = Min(best[2], (cpu_ns() - start) / groups);
		pfree(sorted);

		start = cpu_ns();
		se_memtable_reset(table);
		best[3] = Min(best[3], (cpu_ns() - start) / groups);

		bytes = 0;
		start = cpu_ns();
		foreach(lc, list.chunks)
		{
			Chunk	   *chunk = lfirst(lc);

			se_memtable_merge(target, chunk->bytes, chunk->size, 0, PG_UINT32_MAX);
			bytes += chunk->size;
		}
		best[4] = Min(best[4], (cpu_ns() - start) / groups);
		se_memtable_reset(target);
	}
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%9lld groups: update %5.1f ns/event, per group: "
											  "flush %5.1f ns, sort %5.1f, reset %4.1f, "
											  "merge %5.1f, %4.1f bytes in a chunk, "
											  "%5.1f in memory",
											  (long long) groups, best[0], best[1], best[2],
											  best[3], best[4], (double) bytes / groups,
											  (double) memory / groups)));
}
