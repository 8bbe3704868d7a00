/*
 * load.c
 *	  Read all that a reader works with: stream, queries, positions, state.
 *
 * NOTES
 *	  A definition lives until a session raises the reader's generation, one of
 *	  its relations is invalidated, or one of the functions and types that its expressions
 *	  were planned with is; then all of it is read again, in a new
 *	  context, and nothing of the old one survives.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat/compat.h"
#include "engine/engine.h"
#include "key_size.h"
#include "reader.h"
#include "session.h"

Reader	   *se_current_reader;
ReaderQuery *se_loading_query;
bool		se_relations_changed;
bool		se_stream_changed;

void
se_relation_invalidated(Datum arg, Oid relid)
{
	if (se_current_reader == NULL || se_current_reader->stream == NULL)
		return;
	if (relid == InvalidOid || relid == se_current_reader->stream->relid)
		se_relations_changed = se_stream_changed = true;
	for (int i = 0; i < se_current_reader->nqueries; i++)
	{
		const SeQueryDef *def = se_current_reader->queries[i].def;

		/* the result table is looked at anew by each commit */
		if (def != NULL && relid == def->batch_view)
			se_relations_changed = true;
	}
}

void
se_object_invalidated(Datum arg, int cacheid, uint32 hash)
{
	ListCell   *cell;

	if (se_current_reader == NULL)
		return;
	foreach(cell, se_current_reader->objects)
	{
		const PlanInvalItem *item = lfirst(cell);

		if (item->cacheId == cacheid && (hash == 0 || item->hashValue == hash))
			se_relations_changed = se_stream_changed = true;
	}
}

/*
 * Have the definition read again when a function or a type changes with which these expressions
 * are planned: what is inlined or folded does not ask again.  To be called before they are.
 */
static void
note_objects(Reader *reader, List *exprs)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	List	   *relations = NIL;
	List	   *items = NIL;

	(void) expression_planner_with_deps((Expr *) exprs, &relations, &items);
	reader->objects = list_concat(reader->objects, items);
	MemoryContextSwitchTo(old);
}

static void
note_query(Reader *reader, const SeQueryDef *def)
{
	Relation	view = table_open(def->batch_view, AccessShareLock);
	Query	   *query = copyObject(get_view_query(view));

	note_objects(reader, list_make3(se_flatten_group_exprs(query, (Node *) query->targetList),
									query->jointree->quals,
									se_flatten_group_exprs(query, query->havingQual)));
	table_close(view, NoLock);
}

/* DEFAULT and CHECK; whether a domain has constraints at all is asked once. */
static void
note_stream(Reader *reader)
{
	TupleConstr *constr = reader->desc->constr;
	List	   *exprs = NIL;
	MemoryContext old;

	for (int i = 0; constr != NULL && i < constr->num_defval; i++)
		exprs = lappend(exprs, stringToNode(constr->defval[i].adbin));
	for (int i = 0; constr != NULL && i < constr->num_check; i++)
		exprs = lappend(exprs, stringToNode(constr->check[i].ccbin));
	note_objects(reader, exprs);

	old = MemoryContextSwitchTo(reader->context);
	for (int i = 0; i < reader->desc->natts; i++)
	{
		Oid			type = TupleDescAttr(reader->desc, i)->atttypid;
		HeapTuple	tuple;

		/* the types that domains are made of */
		while (OidIsValid(type) &&
			   HeapTupleIsValid(tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type))))
		{
			PlanInvalItem *item = makeNode(PlanInvalItem);

			item->cacheId = TYPEOID;
			item->hashValue = GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(type));
			type = ((Form_pg_type) GETSTRUCT(tuple))->typbasetype;
			ReleaseSysCache(tuple);
			if (OidIsValid(type))
				reader->objects = lappend(reader->objects, item);
		}
	}
	MemoryContextSwitchTo(old);
}

static void
load_slice(void *arg, TimestampTz start, TimestampTz end, int nruns, int64 entries, int64 largest)
{
	ReaderQuery *query = arg;
	OpenSlice  *slice;

	if (se_session_is_archive(query->plan, start, end))
	{
		se_session_note_archive(query, start);
		return;
	}
	slice = se_slice_get(query, start, end);
	slice->nruns = nruns;
	slice->entries = entries;
	slice->largest = largest;
	slice->most_groups = entries;
	slice->changed = true;
}

/* Where a query began that has joined this reader since. */
static void
load_origin(ReaderQuery *query)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		key = Int32GetDatum(query->def->id);

	se_catalog_begin(&scope);
	if (se_spi("SELECT partition, start_offset FROM stream_engine.query_origin WHERE query = $1"
			   " ORDER BY partition DESC", 1, &type, &key, NULL, SPI_OK_SELECT) > 0)
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			bool		isnull;
			int32		partition = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));

			if (i == 0)
			{
				query->nbegins = partition + 1;
				query->begins = MemoryContextAllocZero(query->context,
													   sizeof(int64) * query->nbegins);
			}
			query->begins[partition] = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
		}
	se_catalog_end(&scope);
}

/* The owner may have lost the right to read the stream since the query was made. */
static void
check_stream_rights(const SeQueryDef *def)
{
	Relation	view = try_relation_open(def->batch_view, AccessShareLock);

	/* by one for whom we have waited: the fence will tell, and this is no failure */
	if (view == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the query has been dropped")));
	se_query_check_permissions(get_view_query(view));
	table_close(view, NoLock);
}

static void
load_query(Reader *reader, ReaderQuery *query, SeQueryDef *def)
{
	HASHCTL		ctl = {0};
	SeStateLog *log;
	MemoryContext old;
	SeUserScope scope;

	query->def = def;
	se_loading_query = query;
	query->context = AllocSetContextCreate(reader->context, "stream_engine query",
										   ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(query->context);
	/* the rights are the owner's: to execute functions, and to read where a view asks for it */
	se_user_begin(&scope, def->owner, def->settings);
	check_stream_rights(def);
	note_query(reader, def);
	query->plan = se_query_plan_of_view(def->batch_view);
	if (query->plan->stream != reader->stream->relid)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("view \"%s\" does not read stream %s any more", get_rel_name(def->batch_view),
						reader->stream->name),
				 errhint("Give the view its former definition, or drop the query and create it again.")));
	query->eval = se_eval_create(query->plan, reader->desc, query->context);
	query->finish = se_finish_create(query->plan, query->context);
	se_user_end(&scope);
	query->layout = se_query_layout(query->plan, def, query->context);
	query->long_keys = se_has_long_keys(query->plan);
	query->session_next_close = query->session_next_expiry = DT_NOBEGIN;
	query->last_fired = query->last_expired = DT_NOBEGIN;
	query->has_changed = query->plan->window.kind == SE_WINDOW_GLOBAL;
	query->closed_through = reader->def->watermark > def->closed_through ?
		def->closed_through : reader->def->watermark;
	query->nemitted_stored = def->nemitted;
	load_origin(query);
	se_closing_load(query);
	query->lateness = def->allowed_lateness;
	query->changes_seq = def->changes_seq;
	query->changes_at = def->changes_at;
	query->expected_groups = 64;

	ctl.keysize = 2 * sizeof(TimestampTz);
	ctl.entrysize = sizeof(OpenSlice);
	ctl.hcxt = query->context;
	query->slices = hash_create("stream_engine slices", 64, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	log = se_state_log_open(false);
	se_state_log_attach(log, def->id, reader->def->id, reader->def->generation, reader->def->seq,
						load_slice, query);
	se_state_log_close(log);
	if ((hash_get_num_entries(query->slices) > 0 || query->archive != NULL) && def->has_stamp &&
		(uint32) def->state_stamp != se_query_stamp(query->plan, query->layout))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the state of query %s was written in another format", def->name),
				 errdetail("A type, a collation, an aggregate or the window of the query, or the server's major version, has changed."),
				 errhint("Drop the query and create it again.")));
	se_query_next_close(query);
	MemoryContextSwitchTo(old);
	se_loading_query = NULL;
}

/* Longer than a verdict takes from being given to being committed. */
#define VERDICT_SLACK (60 * USECS_PER_SEC)

/*
 * What other readers, or skip(), have decided about records that lie before us; inside a
 * transaction with a snapshot.
 *
 * A record is in the future by the clock of the reader that meets it first, and later
 * ones must not think otherwise.  Those judged after this look have an event time
 * behind verdicts_until: se_process_batch looks again when it meets such a one.
 */
void
se_load_verdicts(Reader *reader)
{
	SeCatalogScope scope;
	Oid			types[2] = {INT4OID, INT4OID};
	Datum		values[2];

	values[0] = Int32GetDatum(reader->stream->id);
	values[1] = Int32GetDatum(reader->def->id);
	reader->verdicts_until = GetCurrentTimestamp() - VERDICT_SLACK +
		reader->stream->options.max_future;
	se_catalog_begin(&scope);
	se_spi("SELECT d.partition, d.\"offset\", d.reason FROM stream_engine.dead_letter d"
		   " LEFT JOIN stream_engine.reader_partition p"
		   " ON p.reader = $2 AND p.partition = d.partition"
		   " WHERE d.stream = $1 AND d.reason <> 'bad'"
		   " AND d.\"offset\" >= COALESCE(p.next_offset, 0)", 2, types, values, NULL, SPI_OK_SELECT);
	if (SPI_processed > 0)
	{
		struct
		{
			int32		partition;
			int32		padding;
			int64		offset;
		}			key = {0};
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(key);
		ctl.entrysize = sizeof(key) + 8;
		ctl.hcxt = reader->context;
		if (reader->verdicts == NULL)
			reader->verdicts = hash_create("stream_engine verdicts", 64, &ctl,
										   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			bool		isnull;
			char	   *entry;

			key.partition = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
			key.offset = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
			entry = hash_search(reader->verdicts, &key, HASH_ENTER, NULL);
			entry[sizeof(key)] = SPI_getvalue(tuple, desc, 3)[0];
		}
	}
	se_catalog_end(&scope);
}

/* False when this reader is not wanted. */
static bool
is_wanted(const SeReaderDef *def, const SeStream *stream, const List *queries)
{
	return strcmp(stream->state, "running") == 0 && stream->at_home &&
		(def->head || queries != NIL);
}

/*
 * The query, of those of the reader, whose result table somebody has for himself; 0 if there is
 * none.  In a catalog scope.
 */
static int32
query_kept_out(Oid type, Datum key)
{
	se_spi("SELECT q.id, q.result::oid FROM stream_engine.query_progress p"
		   " JOIN stream_engine.query q ON q.id = p.query"
		   " WHERE p.reader = $1 AND q.state = 'running'", 1, &type, &key, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		isnull;
		Datum		query = SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull);
		Datum		relid = SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull);

		if (!ConditionalLockRelationOid(DatumGetObjectId(relid), RowExclusiveLock))
			return DatumGetInt32(query);
	}
	return 0;
}

/*
 * Whether no transaction is about to change the reader's row or a result table, and then of
 * which query, else 0.  While one is, the reader holds no lock that it could want.
 */
bool
se_definition_is_settled(int32 reader_id, int32 *kept_out)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		key = Int32GetDatum(reader_id);
	bool		result = true;

	*kept_out = 0;
	if (!se_worker_begin())
		return true;
	PushActiveSnapshot(GetTransactionSnapshot());
	se_catalog_begin(&scope);
	if (se_spi("SELECT FROM stream_engine.reader WHERE id = $1 FOR SHARE SKIP LOCKED", 1, &type,
			   &key, NULL, SPI_OK_SELECT) == 0)
		result = se_spi("SELECT FROM stream_engine.reader WHERE id = $1", 1, &type, &key, NULL,
						SPI_OK_SELECT) == 0;
	else
	{
		*kept_out = query_kept_out(type, key);
		result = *kept_out == 0;
	}
	se_catalog_end(&scope);
	PopActiveSnapshot();
	se_worker_commit();
	return result;
}

/*
 * Read everything; NULL when there is nothing to do.  The transaction is over
 * when it returns.
 */
Reader *
se_reader_prepare(int32 reader_id, MemoryContext context)
{
	Reader	   *reader;
	SeReaderDef *def;
	SeStream   *stream;
	Relation	relation;
	List	   *queries;
	ListCell   *cell;
	Bitmapset  *needed = NULL;
	int			n = 0;
	MemoryContext old;
	SeUserScope scope;

	if (!se_worker_begin())
		return NULL;
	old = MemoryContextSwitchTo(context);
	PushActiveSnapshot(GetTransactionSnapshot());
	se_worker_phase(SE_PHASE_RECOVERING);
	pg_atomic_write_u64(&se_my_slot->definition, 0);
	SE_FAILPOINT("load.before_definition");
	def = se_reader_load(reader_id);
	if (def != NULL)
		pg_atomic_write_u64(&se_my_slot->definition, (uint64) def->generation);

	/*
	 * What is read from here on is not older than (generation, seq), and if it is
	 * newer the fence will tell.  So the state log must be read by a later snapshot
	 * as well: one that is older may not see what a reader has handed over to us.
	 */
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());
	stream = def ? se_stream_load(def->stream) : NULL;
	queries = stream ? se_reader_queries(reader_id) : NIL;
	if (stream == NULL || !is_wanted(def, stream, queries))
	{
		PopActiveSnapshot();
		MemoryContextSwitchTo(old);
		se_worker_commit();
		return NULL;
	}

	reader = palloc0(sizeof(Reader));
	se_current_reader = reader;
	se_relations_changed = se_stream_changed = false;
	reader->context = context;
	reader->cycle = AllocSetContextCreate(context, "stream_engine cycle", ALLOCSET_DEFAULT_SIZES);
	reader->batch = AllocSetContextCreate(context, "stream_engine batch", ALLOCSET_DEFAULT_SIZES);
	reader->pending = se_pending_create(reader->cycle);
	reader->def = def;
	reader->stream = stream;
	reader->fetched = palloc(sizeof(SeSourceBatch));

	/* nobody alters its options from here on, and we are told of it again */
	relation = table_open(stream->relid, AccessShareLock);
	reader->stream = stream = se_stream_load(def->stream);
	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the stream has been dropped")));
	se_stream_check_event_time(stream);
	reader->desc = CreateTupleDescCopyConstr(RelationGetDescr(relation));
	reader->queries = palloc0(sizeof(ReaderQuery) * Max(list_length(queries), 1));
	foreach(cell, queries)
	{
		ReaderQuery *query = &reader->queries[n++];

		reader->nqueries = n;
		load_query(reader, query, lfirst(cell));
		needed = bms_add_members(needed, query->plan->needed);
	}
	se_session_share_memory(reader);
	if (def->head && stream->options.staging_retention > 0)
	{
		reader->staging = se_staging_open(stream->id, reader->desc,
										  stream->options.staging_retention,
										  stream->options.staging_max_size, context);
		for (int i = 0; i < reader->desc->natts; i++)
			if (!TupleDescAttr(reader->desc, i)->attisdropped)
				needed = bms_add_member(needed, i + 1);
	}
	/* constant parts of DEFAULT and CHECK are evaluated here */
	se_user_begin(&scope, stream->owner, NIL);
	note_stream(reader);
	reader->decoder = se_source()->decoder_create(relation, stream->event_time, needed, context);
	se_user_end(&scope);
	table_close(relation, NoLock);

	se_partitions_load(reader);
	se_load_verdicts(reader);
	reader->routine = se_source()->routine_of_server(stream->serverid);
	reader->source = reader->routine->open(stream->relid, stream->owner);
	{
		int			poll_ms;

		reader->source_in_transaction = reader->routine->wait_fd(reader->source, &poll_ms) < 0;
	}
	PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	se_worker_commit();
	return reader;
}

