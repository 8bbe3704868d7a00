/*
 * results.c
 *	  Insert the rows of closed windows as their owner would.
 *
 * NOTES
 *	  The usual result table has constraints and indexes but no triggers: its rows
 *	  go in by table_multi_insert and the executor's index insertion, as COPY does
 *	  it.  A table with triggers, generated columns, row security or partitions,
 *	  with columns of the user's own or with a length or precision that the query's are
 *	  not known to have, is written by prepared INSERTs, which do all that an INSERT does.
 *
 *	  Corrections, and rows of windows that are still open, are upserts by a prepared
 *	  statement in any table.  Such statements take their rows from a tuplestore that
 *	  they know by name, many rows at a time.  No row is written twice within a commit, so
 *	  that an upsert never meets its own.
 *
 *	  A row is found by the unique index over window and keys; for a deletion there is one
 *	  statement for each pattern of NULLs in the keys, as "=" and IS NULL use the index and
 *	  IS NOT DISTINCT FROM does not.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat/compat.h"
#include "results.h"

#define BUFFERED_ROWS 1000
#define ROWS_NAME "stream_engine_rows"	/* of what statements take their rows from */
#define FIXED_COLUMNS 5			/* window_start, window_end; is_final, revision,
								 * emitted_at */

struct SeResultSink
{
	Relation	relation;
	int			ncolumns;
	AttrNumber *attnums;		/* of our columns in the table */
	bool		coerces;		/* values may not fit the type modifiers of the table's */
	int64		inserted;

	/* fast path */
	EState	   *estate;
	ResultRelInfo *target;
	BulkInsertState bulk;
	TupleTableSlot **slots;
	int			nslots;
	int			nbuffered;

	/* by statement */
	bool		connected;		/* to SPI */
	SPIPlanPtr	plan;
	char	   *nulls;
	TupleDesc	row_desc;		/* our columns */
	EphemeralNamedRelation rows;	/* tuplestore, to be written by the next statement, */
	int			nrows;
	SPIPlanPtr	rows_plan;		/* which is this */

	/* rows that may exist */
	const SeQueryPlan *query;
	SPIPlanPtr	upsert;
	SPIPlanPtr	upsert_changed;
	SPIPlanPtr	exist;
	SPIPlanPtr	finalize;
	SPIPlanPtr	withdraw;
	List	   *deletes;		/* of DeleteStatement */
};

/* Deletes a row with these keys NULL. */
typedef struct DeleteStatement
{
	Bitmapset  *null_keys;
	SPIPlanPtr	plan;
} DeleteStatement;

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
	Oid			found;

	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of result table \"%s\" does not exist", name,
						RelationGetRelationName(relation)),
				 errhint("Rename it back or add it again, then call stream_engine.resume().")));
	found = TupleDescAttr(RelationGetDescr(relation), attnum - 1)->atttypid;
	if (found != type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of result table \"%s\" has type %s, but the query gives %s",
						name, RelationGetRelationName(relation), format_type_be(found),
						format_type_be(type))));
	return attnum;
}

static bool
is_plain(const SeResultSink *sink)
{
	Relation	relation = sink->relation;
	TupleDesc	desc = RelationGetDescr(relation);

	if (relation->rd_rel->relkind != RELKIND_RELATION || relation->trigdesc != NULL ||
		relation->rd_rel->relhasrules || relation->rd_rel->relispartition ||
		(desc->constr && desc->constr->has_generated_stored))
		return false;
	if (sink->coerces ||
		check_enable_rls(RelationGetRelid(relation), InvalidOid, true) == RLS_ENABLED)
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
	sink->estate = CreateExecutorState();
	sink->target = makeNode(ResultRelInfo);
	InitResultRelInfo(sink->target, sink->relation, 0, NULL, 0);
	se_check_valid_result_rel(sink->target, CMD_INSERT);
	ExecOpenIndices(sink->target, false);
	sink->estate->es_output_cid = GetCurrentCommandId(true);
	sink->bulk = GetBulkInsertState();
	sink->slots = palloc0(sizeof(TupleTableSlot *) * BUFFERED_ROWS);
}

static Form_pg_attribute
column(const SeResultSink *sink, int i)
{
	return TupleDescAttr(RelationGetDescr(sink->relation), sink->attnums[i] - 1);
}

static const char *
column_name(const SeResultSink *sink, int i)
{
	return quote_identifier(NameStr(column(sink, i)->attname));
}

static char *
table_name(const SeResultSink *sink)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(sink->relation)),
									  RelationGetRelationName(sink->relation));
}

/* SPI stays connected until the sink is closed; the memory context stays the caller's. */
static void
connect_spi(SeResultSink *sink)
{
	MemoryContext old = CurrentMemoryContext;

	if (sink->connected)
		return;
	SPI_connect();
	sink->connected = true;
	MemoryContextSwitchTo(old);
	sink->nulls = MemoryContextAlloc(GetMemoryChunkContext(sink), sink->ncolumns + 1);
}

static SPIPlanPtr
prepare(SeResultSink *sink, const char *sql, int nargs, Oid *types)
{
	MemoryContext old = CurrentMemoryContext;
	SPIPlanPtr	plan;

	connect_spi(sink);
	plan = SPI_prepare(sql, nargs, types);
	MemoryContextSwitchTo(old);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return plan;
}

/* Returns the rows that the statement changed. */
static int64
execute(SPIPlanPtr plan, const Datum *values, const char *nulls, int expected)
{
	MemoryContext old = CurrentMemoryContext;
	int			result = SPI_execute_plan(plan, unconstify(Datum *, values), nulls, false, 0);

	MemoryContextSwitchTo(old);
	if (result != expected)
		elog(ERROR, "a statement on a result table returned %s", SPI_result_code_string(result));
	return SPI_processed;
}

static const char *
null_flags(SeResultSink *sink, const bool *nulls)
{
	for (int i = 0; i < sink->ncolumns; i++)
		sink->nulls[i] = nulls[i] ? 'n' : ' ';
	sink->nulls[sink->ncolumns] = '\0';
	return sink->nulls;
}

/* Make our columns known to statements, as a relation. */
static void
name_rows(SeResultSink *sink)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(sink));
	EphemeralNamedRelation rows = palloc0(sizeof(EphemeralNamedRelationData));

	sink->row_desc = CreateTemplateTupleDesc(sink->ncolumns);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		TupleDescInitEntry(sink->row_desc, i + 1, NameStr(column(sink, i)->attname),
						   column(sink, i)->atttypid, -1, column(sink, i)->attndims);
		TupleDescInitEntryCollation(sink->row_desc, i + 1, column(sink, i)->attcollation);
	}
	rows->md.name = pstrdup(ROWS_NAME);
	rows->md.reliddesc = InvalidOid;
	rows->md.tupdesc = sink->row_desc;
	rows->md.enrtype = ENR_NAMED_TUPLESTORE;
	rows->md.enrtuples = BUFFERED_ROWS;
	connect_spi(sink);
	if (SPI_register_relation(rows) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the rows of a result table");
	sink->rows = rows;
	MemoryContextSwitchTo(old);
}

/* INSERT of the rows. */
static void
append_insert(StringInfo sql, SeResultSink *sink)
{
	StringInfoData columns;

	if (sink->rows == NULL)
		name_rows(sink);
	initStringInfo(&columns);
	for (int i = 0; i < sink->ncolumns; i++)
		appendStringInfo(&columns, "%s%s", i > 0 ? ", " : "", column_name(sink, i));
	appendStringInfo(sql, "INSERT INTO %s AS r (%s) SELECT %s FROM " ROWS_NAME, table_name(sink),
					 columns.data, columns.data);
	pfree(columns.data);
}

static void
flush_rows(SeResultSink *sink)
{
	if (sink->nrows == 0)
		return;
	sink->inserted += execute(sink->rows_plan, NULL, NULL, SPI_OK_INSERT);
	/* each scan has left a read pointer in it */
	tuplestore_end(sink->rows->reldata);
	sink->rows->reldata = NULL;
	sink->nrows = 0;
}

/* Let "plan", which inserts the rows, write one more. */
static void
put_row(SeResultSink *sink, SPIPlanPtr plan, const Datum *values, const bool *nulls)
{
	if (plan != sink->rows_plan)
		flush_rows(sink);
	sink->rows_plan = plan;
	if (sink->rows->reldata == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(sink));

		sink->rows->reldata = tuplestore_begin_heap(false, false, work_mem);
		MemoryContextSwitchTo(old);
	}
	tuplestore_putvalues(sink->rows->reldata, sink->row_desc, unconstify(Datum *, values),
						 unconstify(bool *, nulls));
	if (++sink->nrows == BUFFERED_ROWS)
		flush_rows(sink);
}

static void
open_statement(SeResultSink *sink)
{
	StringInfoData sql;

	initStringInfo(&sql);
	append_insert(&sql, sink);
	sink->plan = prepare(sink, sql.data, 0, NULL);
}

SeResultSink *
se_results_open(Oid relid, TupleDesc output)
{
	SeResultSink *sink = palloc0(sizeof(SeResultSink));
	int			n = 0;

	sink->relation = table_open(relid, RowExclusiveLock);
	check_rights(sink->relation);
	/* our offsets would vouch for rows that a crash takes away */
	if (!RelationIsPermanent(sink->relation))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("result table \"%s\" is not logged", RelationGetRelationName(sink->relation)),
				 errhint("ALTER TABLE ... SET LOGGED, then call stream_engine.resume().")));
	sink->ncolumns = output->natts + FIXED_COLUMNS;
	sink->attnums = palloc(sizeof(AttrNumber) * sink->ncolumns);
	sink->attnums[n++] = find_column(sink->relation, "window_start", TIMESTAMPTZOID);
	sink->attnums[n++] = find_column(sink->relation, "window_end", TIMESTAMPTZOID);
	for (int i = 0; i < output->natts; i++)
	{
		Form_pg_attribute ours = TupleDescAttr(output, i);
		int32		typmod;

		sink->attnums[n] = find_column(sink->relation, NameStr(ours->attname), ours->atttypid);
		typmod = TupleDescAttr(RelationGetDescr(sink->relation), sink->attnums[n] - 1)->atttypmod;
		/* the column may have been altered */
		sink->coerces |= typmod >= 0 && typmod != ours->atttypmod;
		n++;
	}
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
	sink->inserted += sink->nbuffered;
	sink->nbuffered = 0;
}

static void
flush_all(SeResultSink *sink)
{
	flush_fast(sink);
	flush_rows(sink);
}

void
se_results_insert(SeResultSink *sink, const Datum *values, const bool *nulls)
{
	if (sink->plan)
		put_row(sink, sink->plan, values, nulls);
	else
	{
		TupleTableSlot *slot;
		TupleDesc	desc = RelationGetDescr(sink->relation);

		if (sink->nslots <= sink->nbuffered)
			sink->slots[sink->nslots++] = table_slot_create(sink->relation, NULL);
		slot = sink->slots[sink->nbuffered];
		ExecClearTuple(slot);
		memset(slot->tts_isnull, true, sizeof(bool) * desc->natts);
		for (int i = 0; i < sink->ncolumns; i++)
		{
			slot->tts_isnull[sink->attnums[i] - 1] = nulls[i];
			slot->tts_values[sink->attnums[i] - 1] = nulls[i] ? (Datum) 0 : values[i];
		}
		ExecStoreVirtualTuple(slot);
		if (desc->constr)
			ExecConstraints(sink->target, slot, sink->estate);
		slot->tts_tableOid = RelationGetRelid(sink->relation);
		/* the values are the caller's until it returns */
		ExecMaterializeSlot(slot);
		if (++sink->nbuffered == BUFFERED_ROWS)
			flush_fast(sink);
	}
}

/* ---- rows that may exist ---- */

void
se_results_set_keys(SeResultSink *sink, const SeQueryPlan *plan)
{
	sink->query = plan;
}

/* Our number of key "key": the window's bounds come first. */
static int
key_column(const SeResultSink *sink, int key)
{
	return 2 + sink->query->keys[key].output - 1;
}

static SPIPlanPtr
prepare_upsert(SeResultSink *sink, bool always)
{
	StringInfoData sql;
	int			is_final = sink->ncolumns - 3;
	int			revision = sink->ncolumns - 2;

	initStringInfo(&sql);
	append_insert(&sql, sink);
	appendStringInfo(&sql, " ON CONFLICT (%s, %s", column_name(sink, 0), column_name(sink, 1));
	for (int key = 0; key < sink->query->nkeys; key++)
		appendStringInfo(&sql, ", %s", column_name(sink, key_column(sink, key)));
	appendStringInfoString(&sql, ") DO UPDATE SET ");
	for (int i = 2; i < sink->ncolumns; i++)
	{
		if (i == revision)
			appendStringInfo(&sql, ", %s = GREATEST(r.%s OPERATOR(pg_catalog.+) 1, excluded.%s)",
							 column_name(sink, i), column_name(sink, i), column_name(sink, i));
		else
			appendStringInfo(&sql, "%s%s = excluded.%s", i > 2 ? ", " : "", column_name(sink, i),
							 column_name(sink, i));
	}
	if (!always)
	{
		/* images are compared: not every type has an equality */
		appendStringInfoString(&sql, " WHERE ROW(");
		for (int i = 2; i <= is_final; i++)
			appendStringInfo(&sql, "%sr.%s", i > 2 ? ", " : "", column_name(sink, i));
		/* without the casts the rows would be compared column by column */
		appendStringInfoString(&sql, ")::record OPERATOR(pg_catalog.*<>) ROW(");
		for (int i = 2; i <= is_final; i++)
			appendStringInfo(&sql, "%sexcluded.%s", i > 2 ? ", " : "", column_name(sink, i));
		appendStringInfoString(&sql, ")::record");
	}
	return prepare(sink, sql.data, 0, NULL);
}

void
se_results_upsert(SeResultSink *sink, const Datum *values, const bool *nulls, bool always)
{
	SPIPlanPtr *plan = always ? &sink->upsert : &sink->upsert_changed;

	flush_fast(sink);
	if (*plan == NULL)
		*plan = prepare_upsert(sink, always);
	put_row(sink, *plan, values, nulls);
}

/* OPERATOR(schema.name) */
static char *
operator_clause(Oid operator)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *clause;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	clause = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
					  NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return clause;
}

static SPIPlanPtr
prepare_delete(SeResultSink *sink, const Bitmapset *null_keys)
{
	StringInfoData sql;
	Oid		   *types = palloc(sizeof(Oid) * sink->ncolumns);

	for (int i = 0; i < sink->ncolumns; i++)
		types[i] = column(sink, i)->atttypid;
	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM %s WHERE %s OPERATOR(pg_catalog.=) $1 AND %s OPERATOR(pg_catalog.=) $2",
					 table_name(sink), column_name(sink, 0), column_name(sink, 1));
	for (int key = 0; key < sink->query->nkeys; key++)
	{
		int			i = key_column(sink, key);

		if (bms_is_member(key, null_keys))
			appendStringInfo(&sql, " AND %s IS NULL", column_name(sink, i));
		else
			appendStringInfo(&sql, " AND %s %s $%d", column_name(sink, i),
							 operator_clause(sink->query->keys[key].spec.eq_opr), i + 1);
	}
	appendStringInfo(&sql, " RETURNING %s", column_name(sink, sink->ncolumns - 2));
	return prepare(sink, sql.data, sink->ncolumns, types);
}

int64
se_results_delete(SeResultSink *sink, const Datum *values, const bool *nulls)
{
	Bitmapset  *null_keys = NULL;
	DeleteStatement *statement = NULL;
	ListCell   *cell;
	int64		revision = -1;

	flush_all(sink);
	for (int key = 0; key < sink->query->nkeys; key++)
		if (nulls[key_column(sink, key)])
			null_keys = bms_add_member(null_keys, key);
	foreach(cell, sink->deletes)
	{
		statement = lfirst(cell);
		if (bms_equal(statement->null_keys, null_keys))
			break;
		statement = NULL;
	}
	if (statement == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(sink));

		statement = palloc(sizeof(DeleteStatement));
		statement->null_keys = bms_copy(null_keys);
		statement->plan = prepare_delete(sink, null_keys);
		sink->deletes = lappend(sink->deletes, statement);
		MemoryContextSwitchTo(old);
	}
	bms_free(null_keys);
	if (execute(statement->plan, values, null_flags(sink, nulls), SPI_OK_DELETE_RETURNING) > 0)
	{
		bool		isnull;

		revision = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
											   &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	return revision;
}

bool
se_results_exist(SeResultSink *sink, TimestampTz window_start, TimestampTz window_end)
{
	Datum		values[2] = {TimestampTzGetDatum(window_start), TimestampTzGetDatum(window_end)};
	bool		found;

	flush_all(sink);
	if (sink->exist == NULL)
	{
		Oid			types[2] = {TIMESTAMPTZOID, TIMESTAMPTZOID};

		sink->exist = prepare(sink, psprintf("SELECT FROM %s WHERE window_start OPERATOR(pg_catalog.=) $1"
											 " AND window_end OPERATOR(pg_catalog.=) $2 LIMIT 1",
											 table_name(sink)), 2, types);
	}
	found = execute(sink->exist, values, NULL, SPI_OK_SELECT) > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

void
se_results_finalize(SeResultSink *sink, TimestampTz window_start, TimestampTz window_end,
					TimestampTz emitted_at)
{
	Datum		values[3] = {TimestampTzGetDatum(window_start), TimestampTzGetDatum(window_end),
	TimestampTzGetDatum(emitted_at)};

	flush_all(sink);
	if (sink->finalize == NULL)
	{
		Oid			types[3] = {TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID};

		sink->finalize = prepare(sink, psprintf("UPDATE %s SET is_final = true, revision = revision OPERATOR(pg_catalog.+) 1,"
												" emitted_at = $3 WHERE window_start OPERATOR(pg_catalog.=) $1"
												" AND window_end OPERATOR(pg_catalog.=) $2 AND NOT is_final",
												table_name(sink)), 3, types);
	}
	sink->inserted += execute(sink->finalize, values, NULL, SPI_OK_UPDATE);
}

void
se_results_withdraw(SeResultSink *sink, TimestampTz window_start, TimestampTz window_end)
{
	Datum		values[2] = {TimestampTzGetDatum(window_start), TimestampTzGetDatum(window_end)};

	flush_all(sink);
	if (sink->withdraw == NULL)
	{
		Oid			types[2] = {TIMESTAMPTZOID, TIMESTAMPTZOID};

		sink->withdraw = prepare(sink, psprintf("DELETE FROM %s WHERE window_start OPERATOR(pg_catalog.=) $1"
												" AND window_end OPERATOR(pg_catalog.=) $2 AND NOT is_final",
												table_name(sink)), 2, types);
	}
	(void) execute(sink->withdraw, values, NULL, SPI_OK_DELETE);
}

void
se_results_hide(SeResultSink *sink, TimestampTz before, TimestampTz behind)
{
	Oid			types[2] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[2] = {TimestampTzGetDatum(before), TimestampTzGetDatum(behind)};

	flush_all(sink);
	(void) execute(prepare(sink, psprintf("DELETE FROM %s WHERE window_start OPERATOR(pg_catalog.<) $1"
										  " AND window_end OPERATOR(pg_catalog.>) $2 AND NOT is_final",
										  table_name(sink)), 2, types),
				   values, NULL, SPI_OK_DELETE);
}

/* ---- closing ---- */

int64
se_results_close(SeResultSink *sink)
{
	int64		inserted;

	flush_all(sink);
	if (sink->connected)
	{
		MemoryContext old = CurrentMemoryContext;

		SPI_finish();
		MemoryContextSwitchTo(old);
	}
	if (sink->plan == NULL)
	{
		FreeBulkInsertState(sink->bulk);
		table_finish_bulk_insert(sink->relation, 0);
		for (int i = 0; i < sink->nslots; i++)
			ExecDropSingleTupleTableSlot(sink->slots[i]);
		ExecCloseIndices(sink->target);
		FreeExecutorState(sink->estate);
	}
	inserted = sink->inserted;
	table_close(sink->relation, NoLock);
	pfree(sink->attnums);
	pfree(sink);
	return inserted;
}
