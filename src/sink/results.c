/*
 * results.c
 *	  Insert the rows of closed windows as their owner would.
 *
 * NOTES
 *	  The usual result table has constraints and indexes but no triggers: its rows
 *	  go in by table_multi_insert and the executor's index insertion, as COPY does
 *	  it.  A table with triggers, generated columns, row security or partitions,
 *	  or with columns of the user's own, is written by a prepared INSERT, which
 *	  costs ten times as much and does all that an INSERT does.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "compat/compat.h"
#include "results.h"

#define BUFFERED_ROWS 1000
#define FIXED_COLUMNS 5			/* window_start, window_end; is_final, revision,
								 * emitted_at */

struct SeResultSink
{
	Relation	relation;
	int			ncolumns;
	AttrNumber *attnums;		/* of our columns in the table */
	int64		inserted;

	/* fast path */
	EState	   *estate;
	ResultRelInfo *target;
	BulkInsertState bulk;
	MemoryContext row_context;
	TupleTableSlot **slots;
	int			nslots;
	int			nbuffered;

	/* by statement */
	SPIPlanPtr	plan;
	char	   *nulls;
};

static void
check_rights(Relation relation)
{
	AclResult	result = pg_class_aclcheck(RelationGetRelid(relation), GetUserId(), ACL_INSERT);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, get_relkind_objtype(relation->rd_rel->relkind),
					   RelationGetRelationName(relation));
}

static AttrNumber
find_column(Relation relation, const char *name, Oid type)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(relation), name);

	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of result table \"%s\" does not exist", name,
						RelationGetRelationName(relation)),
				 errhint("Add it again, then call stream_engine.resume().")));
	if (TupleDescAttr(RelationGetDescr(relation), attnum - 1)->atttypid != type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of result table \"%s\" has type %s, but the query gives %s",
						name, RelationGetRelationName(relation),
						format_type_be(TupleDescAttr(RelationGetDescr(relation), attnum - 1)->atttypid),
						format_type_be(type))));
	return attnum;
}

static bool
is_plain(const SeResultSink *sink)
{
	Relation	relation = sink->relation;
	TupleDesc	desc = RelationGetDescr(relation);

	if (relation->rd_rel->relkind != RELKIND_RELATION || relation->trigdesc != NULL ||
		relation->rd_rel->relhasrules ||
		(desc->constr && desc->constr->has_generated_stored))
		return false;
	if (check_enable_rls(RelationGetRelid(relation), InvalidOid, true) == RLS_ENABLED)
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		bool		ours = TupleDescAttr(desc, i)->attisdropped;

		for (int j = 0; j < sink->ncolumns && !ours; j++)
			ours = sink->attnums[j] == i + 1;
		if (!ours)
			return false;
	}
	return true;
}

static void
open_fast(SeResultSink *sink)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	sink->estate = CreateExecutorState();
	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(sink->relation);
	rte->relkind = sink->relation->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
	sink->target = makeNode(ResultRelInfo);
	InitResultRelInfo(sink->target, sink->relation, 0, NULL, 0);
	CheckValidResultRel(sink->target, CMD_INSERT);
	ExecOpenIndices(sink->target, false);
	sink->estate->es_output_cid = GetCurrentCommandId(true);
	sink->bulk = GetBulkInsertState();
	sink->row_context = AllocSetContextCreate(CurrentMemoryContext, "stream_engine result rows",
											  ALLOCSET_DEFAULT_SIZES);
	sink->slots = palloc0(sizeof(TupleTableSlot *) * BUFFERED_ROWS);
}

static void
open_statement(SeResultSink *sink)
{
	StringInfoData sql;
	Oid		   *types = palloc(sizeof(Oid) * sink->ncolumns);

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s (",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(sink->relation)),
												RelationGetRelationName(sink->relation)));
	for (int i = 0; i < sink->ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(sink->relation),
											  sink->attnums[i] - 1);

		types[i] = att->atttypid;
		appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "", quote_identifier(NameStr(att->attname)));
	}
	appendStringInfoString(&sql, ") VALUES (");
	for (int i = 0; i < sink->ncolumns; i++)
		appendStringInfo(&sql, "%s$%d", i > 0 ? ", " : "", i + 1);
	appendStringInfoChar(&sql, ')');
	SPI_connect();
	sink->plan = SPI_prepare(sql.data, sink->ncolumns, types);
	if (sink->plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql.data, SPI_result_code_string(SPI_result));
	sink->nulls = palloc(sink->ncolumns + 1);
}

SeResultSink *
se_results_open(Oid relid, TupleDesc output)
{
	SeResultSink *sink = palloc0(sizeof(SeResultSink));
	int			n = 0;

	sink->relation = table_open(relid, RowExclusiveLock);
	check_rights(sink->relation);
	sink->ncolumns = output->natts + FIXED_COLUMNS;
	sink->attnums = palloc(sizeof(AttrNumber) * sink->ncolumns);
	sink->attnums[n++] = find_column(sink->relation, "window_start", TIMESTAMPTZOID);
	sink->attnums[n++] = find_column(sink->relation, "window_end", TIMESTAMPTZOID);
	for (int i = 0; i < output->natts; i++)
		sink->attnums[n++] = find_column(sink->relation,
										 NameStr(TupleDescAttr(output, i)->attname),
										 TupleDescAttr(output, i)->atttypid);
	sink->attnums[n++] = find_column(sink->relation, "is_final", BOOLOID);
	sink->attnums[n++] = find_column(sink->relation, "revision", INT4OID);
	sink->attnums[n++] = find_column(sink->relation, "emitted_at", TIMESTAMPTZOID);

	if (is_plain(sink))
		open_fast(sink);
	else
		open_statement(sink);
	return sink;
}

static void
flush_fast(SeResultSink *sink)
{
	MemoryContext old;

	if (sink->nbuffered == 0)
		return;
	old = MemoryContextSwitchTo(GetPerTupleMemoryContext(sink->estate));
	table_multi_insert(sink->relation, sink->slots, sink->nbuffered,
					   sink->estate->es_output_cid, 0, sink->bulk);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < sink->nbuffered; i++)
	{
		if (sink->target->ri_NumIndices > 0)
			list_free(se_exec_insert_index_tuples(sink->target, sink->slots[i], sink->estate));
		ExecClearTuple(sink->slots[i]);
	}
	ResetPerTupleExprContext(sink->estate);
	MemoryContextReset(sink->row_context);
	sink->inserted += sink->nbuffered;
	sink->nbuffered = 0;
}

void
se_results_insert(SeResultSink *sink, const Datum *values, const bool *nulls)
{
	if (sink->plan)
	{
		int			result;

		for (int i = 0; i < sink->ncolumns; i++)
			sink->nulls[i] = nulls[i] ? 'n' : ' ';
		sink->nulls[sink->ncolumns] = '\0';
		result = SPI_execute_plan(sink->plan, unconstify(Datum *, values), sink->nulls, false, 0);
		if (result != SPI_OK_INSERT)
			elog(ERROR, "insert into a result table returned %s", SPI_result_code_string(result));
		sink->inserted++;
	}
	else
	{
		TupleTableSlot *slot;
		TupleDesc	desc = RelationGetDescr(sink->relation);
		MemoryContext old;

		if (sink->nslots <= sink->nbuffered)
			sink->slots[sink->nslots++] = table_slot_create(sink->relation, NULL);
		slot = sink->slots[sink->nbuffered];
		ExecClearTuple(slot);
		memset(slot->tts_isnull, true, sizeof(bool) * desc->natts);
		old = MemoryContextSwitchTo(sink->row_context);
		for (int i = 0; i < sink->ncolumns; i++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, sink->attnums[i] - 1);

			slot->tts_isnull[sink->attnums[i] - 1] = nulls[i];
			slot->tts_values[sink->attnums[i] - 1] = nulls[i] ? (Datum) 0 :
				datumCopy(values[i], att->attbyval, att->attlen);
		}
		MemoryContextSwitchTo(old);
		ExecStoreVirtualTuple(slot);
		if (desc->constr)
			ExecConstraints(sink->target, slot, sink->estate);
		slot->tts_tableOid = RelationGetRelid(sink->relation);
		if (++sink->nbuffered == BUFFERED_ROWS)
			flush_fast(sink);
	}
}

int64
se_results_close(SeResultSink *sink)
{
	int64		inserted;

	if (sink->plan)
		SPI_finish();
	else
	{
		flush_fast(sink);
		FreeBulkInsertState(sink->bulk);
		table_finish_bulk_insert(sink->relation, 0);
		for (int i = 0; i < sink->nslots; i++)
			ExecDropSingleTupleTableSlot(sink->slots[i]);
		ExecCloseIndices(sink->target);
		FreeExecutorState(sink->estate);
		MemoryContextDelete(sink->row_context);
	}
	inserted = sink->inserted;
	table_close(sink->relation, NoLock);
	pfree(sink->attnums);
	pfree(sink);
	return inserted;
}
