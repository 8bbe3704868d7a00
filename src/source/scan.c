/*
 * scan.c
 *	  SELECT on a stream: a bounded read of its topic.
 *
 * NOTES
 *	  When the first row is wanted, the source is asked for the first and the end
 *	  offset of each partition; what lies between, narrowed by the conditions of
 *	  the plan, is read once, and records that arrive later are not.  A rescan
 *	  reads the same offsets again.
 *
 *	  Each record is decoded and judged as the engine does it; bad ones are
 *	  skipped, and counted in one WARNING at the end.  DEFAULT and CHECK are code
 *	  of the foreign table's owner: it runs as that user, security-restricted,
 *	  with the settings on which expressions depend pinned.
 *
 *	  Everything lives in one context below the query's.  The source closes
 *	  itself when that goes away, so an error at any place, even a cancel in the
 *	  middle of a wait, leaves nothing behind.
 *
 *	  An override (verify) replaces the offsets to read and names records to leave
 *	  out.
 */
#include "postgres.h"

#include "commands/defrem.h"
#include "executor/executor.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat/compat.h"
#include "scan.h"
#include "source.h"
#include "vector.h"

/* How long a question to the broker may take. */
#define ASK_TIMEOUT_MS 5000

/* How long the scan waits for the next record before it gives up. */
#define STALL_TIMEOUT_MS 30000

/* Longest sleep; the source wakes us when there is something. */
#define WAIT_MS 1000

typedef struct ScanPartition
{
	int32		partition;
	int64		next;			/* one past the last record seen */
	int			range;			/* the current one in scan->ranges */
	int			last_range;
	bool		done;
} ScanPartition;

typedef struct StreamScan
{
	MemoryContext context;
	Oid			relid;
	Oid			owner;
	SeStreamOptions options;
	const SeSourceRoutine *routine;
	SeSource   *source;
	SeDecoder  *decoder;
	SeScanOverride *override;	/* NULL if none */
	bool		quiet;			/* its wish */

	int			nneeded;
	AttrNumber *needed;
	int			nconditions;
	ScanCondition *conditions;
	List	   *exprs;			/* ExprStates of the conditions' values */

	/* what the source answered, for rescans to read the same; -1: not asked */
	int			nbounds;
	int64	   *low;
	int64	   *high;

	/* the pass under way */
	bool		started;
	int			nranges;
	SeScanRange *ranges;		/* sorted by partition and start */
	int			npartitions;
	ScanPartition *partitions;
	int			nactive;
	SeSourceBatch *batch;
	bool		held;			/* the batch must be released */
	SeBatch    *decoded;
	int			row;
	TimestampTz progress;		/* when the last record came */
	char		trouble[320];

	int64		nread;			/* of all passes */
	int64		nbad;			/* of this pass */
	int64		max_bad;
} StreamScan;

/* ---- running the owner's code ---- */

typedef struct OwnerFrame
{
	Oid			userid;
	int			security;
	int			gucs;
} OwnerFrame;

static void
pin_setting(const char *name, const char *value)
{
	const char *current = GetConfigOption(name, true, false);

	if (current == NULL || strcmp(current, value) != 0)
		(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true,
								 0, false);
}

/* An error needs no counterpart: the end of the (sub)transaction restores all. */
static void
become_owner(const StreamScan *scan, OwnerFrame *frame)
{
	GetUserIdAndSecContext(&frame->userid, &frame->security);
	SetUserIdAndSecContext(scan->owner, frame->security | SECURITY_RESTRICTED_OPERATION);
	frame->gucs = NewGUCNestLevel();
	pin_setting("search_path", "pg_catalog, pg_temp");
	pin_setting("TimeZone", "UTC");
	pin_setting("DateStyle", "ISO, MDY");
	pin_setting("IntervalStyle", "postgres");
}

static void
leave_owner(const OwnerFrame *frame)
{
	AtEOXact_GUC(false, frame->gucs);
	SetUserIdAndSecContext(frame->userid, frame->security);
}

/* ---- what to read ---- */

/* Ask the source for a partition's bounds, once in a scan's life. */
static void
ask_bounds(StreamScan *scan, int32 partition)
{
	if (scan->low[partition] >= 0)
		return;
	scan->routine->offsets(scan->source, partition, ASK_TIMEOUT_MS, &scan->low[partition],
						   &scan->high[partition]);
}

/* Fill scan->ranges from the source's bounds and the conditions. */
static void
ranges_of_limits(StreamScan *scan, const ScanLimits *limits)
{
	if (limits->nothing)
		return;
	if (scan->nbounds < 0)
	{
		scan->nbounds = scan->routine->partitions(scan->source, ASK_TIMEOUT_MS);
		scan->low = palloc(scan->nbounds * sizeof(int64));
		scan->high = palloc(scan->nbounds * sizeof(int64));
		for (int p = 0; p < scan->nbounds; p++)
			scan->low[p] = scan->high[p] = -1;
	}
	scan->ranges = palloc(Max(scan->nbounds, 1) * sizeof(SeScanRange));
	for (int32 p = 0; p < scan->nbounds; p++)
	{
		int64		start;
		int64		end;

		if (!se_scan_partition_wanted(limits, p))
			continue;
		ask_bounds(scan, p);
		start = Max(scan->low[p], limits->offset.first);
		end = scan->high[p];
		if (limits->offset.last < end)
			end = Max(limits->offset.last, -1) + 1;
		if (start < end && !TIMESTAMP_IS_NOBEGIN(limits->since))
			start = Max(start, scan->routine->offset_for_time(scan->source, p, limits->since,
															  ASK_TIMEOUT_MS));
		if (start >= end)
			continue;
		scan->ranges[scan->nranges].partition = p;
		scan->ranges[scan->nranges].start = start;
		scan->ranges[scan->nranges].end = end;
		scan->nranges++;
	}
}

static int
compare_range(const void *a, const void *b)
{
	const SeScanRange *x = a;
	const SeScanRange *y = b;

	if (x->partition != y->partition)
		return x->partition < y->partition ? -1 : 1;
	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return 0;
}

/* Fill scan->ranges from the override and the conditions. */
static void
ranges_of_override(StreamScan *scan, const ScanLimits *limits)
{
	const SeScanOverride *override = scan->override;

	if (limits->nothing)
		return;
	scan->ranges = palloc(Max(override->nranges, 1) * sizeof(SeScanRange));
	for (int i = 0; i < override->nranges; i++)
	{
		SeScanRange range = override->ranges[i];

		if (!se_scan_partition_wanted(limits, range.partition))
			continue;
		range.start = Max(range.start, limits->offset.first);
		if (limits->offset.last < range.end)
			range.end = Max(limits->offset.last, -1) + 1;
		if (range.start < range.end)
			scan->ranges[scan->nranges++] = range;
	}
	qsort(scan->ranges, scan->nranges, sizeof(SeScanRange), compare_range);
}

/* Tell the source to fetch the partitions that are not done. */
static void
assign_active(StreamScan *scan)
{
	SePosition *positions = palloc(Max(scan->npartitions, 1) * sizeof(SePosition));
	int			n = 0;

	for (int i = 0; i < scan->npartitions; i++)
	{
		if (scan->partitions[i].done)
			continue;
		positions[n].partition = scan->partitions[i].partition;
		positions[n].offset = scan->partitions[i].next;
		n++;
	}
	scan->routine->assign(scan->source, positions, n);
	pfree(positions);
}

/* ---- a pass ---- */

static void
open_source(StreamScan *scan, ForeignScanState *node)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	Relation	relation = node->ss.ss_currentRelation;
	Oid			userid = se_foreign_scan_user(plan, node->ss.ps.state);
	AttrNumber	event_time = InvalidAttrNumber;
	Bitmapset  *needed = NULL;
	OwnerFrame	frame;

	if (!OidIsValid(userid))
		userid = GetUserId();

	if (scan->options.event_time != NULL &&
		strcmp(scan->options.event_time, "processing_time") != 0)
	{
		event_time = get_attnum(scan->relid, scan->options.event_time);
		if (event_time <= 0 && strcmp(scan->options.event_time, "_timestamp") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("event time column \"%s\" of stream \"%s\" does not exist",
							scan->options.event_time, RelationGetRelationName(relation)),
					 errhint("Use ALTER FOREIGN TABLE ... OPTIONS (SET event_time ...).")));
		event_time = Max(event_time, 0);
	}
	for (int i = 0; i < scan->nneeded; i++)
		needed = bms_add_member(needed, scan->needed[i]);

	become_owner(scan, &frame);
	scan->decoder = se_decoder_create(relation, event_time, needed, scan->context);
	leave_owner(&frame);

	scan->batch = palloc(sizeof(SeSourceBatch));
	scan->source = scan->routine->open(scan->relid, userid);
}

static void
start_pass(StreamScan *scan, ForeignScanState *node)
{
	MemoryContext caller = MemoryContextSwitchTo(scan->context);
	ScanLimits	limits;

	if (scan->source == NULL)
		open_source(scan, node);

	scan->override = se_scan_override_find(scan->relid);
	scan->quiet = scan->override != NULL && scan->override->quiet;
	se_scan_limits(node, scan->conditions, scan->exprs, &limits);
	if (scan->ranges != NULL)
		pfree(scan->ranges);
	scan->ranges = NULL;
	scan->nranges = 0;
	if (scan->override != NULL)
		ranges_of_override(scan, &limits);
	else
		ranges_of_limits(scan, &limits);

	if (scan->partitions != NULL)
		pfree(scan->partitions);
	scan->partitions = palloc0(Max(scan->nranges, 1) * sizeof(ScanPartition));
	scan->npartitions = 0;
	for (int i = 0; i < scan->nranges; i++)
	{
		ScanPartition *partition = &scan->partitions[scan->npartitions];

		if (i > 0 && scan->ranges[i].partition == scan->ranges[i - 1].partition)
		{
			partition[-1].last_range = i;
			continue;
		}
		partition->partition = scan->ranges[i].partition;
		partition->next = scan->ranges[i].start;
		partition->range = partition->last_range = i;
		scan->npartitions++;
	}
	scan->nactive = scan->npartitions;
	scan->row = 0;
	scan->decoded = NULL;
	scan->nbad = 0;
	scan->trouble[0] = '\0';
	scan->progress = GetCurrentTimestamp();
	if (scan->nactive > 0)
		assign_active(scan);
	scan->started = true;
	MemoryContextSwitchTo(caller);
}

static ScanPartition *
find_partition(StreamScan *scan, int32 number)
{
	int			low = 0;
	int			high = scan->npartitions - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;

		if (scan->partitions[middle].partition == number)
			return &scan->partitions[middle];
		if (scan->partitions[middle].partition < number)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return NULL;
}

static void
partition_done(StreamScan *scan, ScanPartition *partition)
{
	partition->done = true;
	scan->nactive--;
}

/*
 * Keep of the batch the records that are to be read.  Returns true if records
 * came of a partition that is done: it should not be fetched any more.
 */
static bool
filter_records(StreamScan *scan)
{
	SeSourceBatch *batch = scan->batch;
	ScanPartition *partition = NULL;
	bool		beyond = false;
	int			kept = 0;

	for (int i = 0; i < batch->nrecords; i++)
	{
		const SeRecord *record = &batch->records[i];

		if (partition == NULL || partition->partition != record->partition)
			partition = find_partition(scan, record->partition);
		if (partition == NULL || partition->done)
		{
			beyond = true;
			continue;
		}
		partition->next = record->offset + 1;
		while (record->offset >= scan->ranges[partition->range].end &&
			   partition->range < partition->last_range)
			partition->range++;
		if (record->offset >= scan->ranges[partition->range].end)
		{
			partition_done(scan, partition);
			beyond = true;
			continue;
		}
		if (record->offset < scan->ranges[partition->range].start)
			continue;

		scan->nread++;
		if (partition->next >= scan->ranges[partition->last_range].end)
			partition_done(scan, partition);
		if (se_scan_override_excludes(scan->override, record))
			continue;
		if (kept != i)
			batch->records[kept] = *record;
		kept++;
	}
	batch->nrecords = kept;
	return beyond;
}

static void
take_events(StreamScan *scan)
{
	for (int i = 0; i < scan->batch->nevents; i++)
	{
		const SeSourceEvent *event = &scan->batch->events[i];
		ScanPartition *partition;

		switch (event->kind)
		{
			case SE_EVENT_EOF:
				partition = find_partition(scan, event->partition);
				if (partition != NULL && !partition->done)
				{
					partition->next = Max(partition->next, event->offset);
					partition_done(scan, partition);
				}
				break;
			case SE_EVENT_TRANSIENT:
				if (event->message[0] != '\0')
					strlcpy(scan->trouble, event->message, sizeof(scan->trouble));
				break;
			default:
				ereport(ERROR,
						(errcode(event->sqlstate),
						 errmsg("could not read topic \"%s\": %s", scan->options.topic,
								event->message),
						 event->hint[0] != '\0' ? errhint("%s", event->hint) : 0));
		}
	}
}

static void
wait_for_records(StreamScan *scan)
{
	int			poll_ms;
	int			fd = scan->routine->wait_fd(scan->source, &poll_ms);

	if (TimestampDifferenceExceeds(scan->progress, GetCurrentTimestamp(), STALL_TIMEOUT_MS))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("no records of topic \"%s\" came for %d seconds", scan->options.topic,
						STALL_TIMEOUT_MS / 1000),
				 scan->trouble[0] != '\0' ? errdetail("%s.", scan->trouble) : 0));

	if (fd >= 0)
		(void) WaitLatchOrSocket(MyLatch,
								 WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT |
								 WL_EXIT_ON_PM_DEATH, fd, WAIT_MS, PG_WAIT_EXTENSION);
	else
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, poll_ms,
						 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	scan->routine->drain_fd(scan->source);
}

static void
release_batch(StreamScan *scan)
{
	if (scan->held)
		scan->routine->release(scan->source, scan->batch);
	scan->held = false;
	scan->decoded = NULL;
}

/*
 * The next batch of decoded records, false at the end.
 */
static bool
next_batch(StreamScan *scan)
{
	release_batch(scan);
	while (scan->nactive > 0)
	{
		OwnerFrame	frame;
		bool		arrived;
		bool		beyond;

		CHECK_FOR_INTERRUPTS();
		scan->held = true;
		scan->routine->fetch(scan->source, scan->batch, SE_BATCH_MAX);
		arrived = scan->batch->nrecords > 0;

		/* an end of partition speaks of the records before it */
		beyond = filter_records(scan);
		take_events(scan);
		if (beyond && scan->nactive > 0)
			assign_active(scan);
		if (arrived)
			scan->progress = GetCurrentTimestamp();

		if (scan->batch->nrecords > 0)
		{
			become_owner(scan, &frame);
			se_decoder_run(scan->decoder, scan->batch->records, scan->batch->nrecords);
			leave_owner(&frame);
			scan->decoded = se_decoder_batch(scan->decoder);
			scan->row = 0;
			return true;
		}
		release_batch(scan);
		if (!arrived && scan->batch->nevents == 0)
			wait_for_records(scan);
	}
	return false;
}

/* ---- the executor's calls ---- */

/*
 * se_scan_begin
 */
void
se_scan_begin(ForeignScanState *node, int eflags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	Relation	relation = node->ss.ss_currentRelation;
	List	   *needed = list_nth(plan->fdw_private, SCAN_PRIVATE_NEEDED);
	List	   *conditions = list_nth(plan->fdw_private, SCAN_PRIVATE_CONDITIONS);
	TupleDesc	desc = RelationGetDescr(relation);
	ForeignTable *table = GetForeignTable(RelationGetRelid(relation));
	MemoryContext context;
	MemoryContext caller;
	StreamScan *scan;
	ListCell   *cell;

	context = AllocSetContextCreate(node->ss.ps.state->es_query_cxt, "stream scan",
									ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	scan = palloc0(sizeof(StreamScan));
	scan->context = context;
	scan->relid = RelationGetRelid(relation);
	scan->owner = relation->rd_rel->relowner;
	scan->nbounds = -1;
	scan->routine = se_source_routine_of_server(table->serverid);
	se_stream_options(scan->relid, &scan->options);

	scan->needed = palloc(Max(list_length(needed), 1) * sizeof(AttrNumber));
	foreach(cell, needed)
	{
		AttrNumber	attnum = lfirst_int(cell);

		if (!TupleDescAttr(desc, attnum - 1)->attisdropped)
			scan->needed[scan->nneeded++] = attnum;
	}
	scan->conditions = palloc(Max(list_length(conditions), 1) * sizeof(ScanCondition));
	foreach(cell, conditions)
	{
		List	   *parts = (List *) lfirst(cell);
		ScanCondition *condition = &scan->conditions[scan->nconditions++];

		condition->column = linitial_int(parts);
		condition->strategy = lsecond_int(parts);
		condition->any = lthird_int(parts) != 0;
	}
	node->fdw_state = scan;
	MemoryContextSwitchTo(caller);

	if (!(eflags & EXEC_FLAG_EXPLAIN_ONLY))
		scan->exprs = ExecInitExprList(plan->fdw_exprs, &node->ss.ps);
}

/*
 * se_scan_iterate
 */
TupleTableSlot *
se_scan_iterate(ForeignScanState *node)
{
	StreamScan *scan = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	TupleDesc	desc = slot->tts_tupleDescriptor;

	ExecClearTuple(slot);
	if (!scan->started)
		start_pass(scan, node);

	for (;;)
	{
		int			row;

		if (scan->decoded == NULL || scan->row >= scan->decoded->nrecords)
		{
			MemoryContext caller = MemoryContextSwitchTo(scan->context);
			bool		more = next_batch(scan);

			MemoryContextSwitchTo(caller);
			if (!more)
				return slot;
		}

		row = scan->row++;
		if (scan->decoded->verdict[row] == SE_RECORD_BAD)
			scan->nbad++;
		if (scan->decoded->verdict[row] != SE_RECORD_OK)
			continue;

		memset(slot->tts_isnull, true, desc->natts * sizeof(bool));
		for (int i = 0; i < scan->nneeded; i++)
		{
			int			column = scan->needed[i] - 1;
			const SeVector *vector = &scan->decoded->columns[column];

			if (vector->null[row])
				continue;
			slot->tts_values[column] = se_vector_datum(vector, row,
													   TupleDescAttr(desc, column)->atttypid);
			slot->tts_isnull[column] = false;
		}
		return ExecStoreVirtualTuple(slot);
	}
}

/*
 * se_scan_rescan
 */
void
se_scan_rescan(ForeignScanState *node)
{
	StreamScan *scan = node->fdw_state;

	release_batch(scan);
	scan->max_bad = Max(scan->max_bad, scan->nbad);
	scan->nbad = 0;
	scan->started = false;
}

/*
 * se_scan_end
 */
void
se_scan_end(ForeignScanState *node)
{
	StreamScan *scan = node->fdw_state;
	Relation	relation = node->ss.ss_currentRelation;

	if (scan == NULL)
		return;
	node->fdw_state = NULL;
	release_batch(scan);
	if (scan->source != NULL)
		scan->routine->close(scan->source);
	scan->source = NULL;

	scan->max_bad = Max(scan->max_bad, scan->nbad);
	if (scan->override != NULL)
		se_scan_override_count(scan->override, scan->nread, scan->max_bad);
	if (scan->max_bad > 0 && !scan->quiet)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg_plural("skipped %lld bad record of stream \"%s\"",
							   "skipped %lld bad records of stream \"%s\"",
							   (unsigned long) scan->max_bad, (long long) scan->max_bad,
							   RelationGetRelationName(relation))));
	MemoryContextDelete(scan->context);
}

/* ---- EXPLAIN ---- */

static const char *
strategy_name(const ScanCondition *condition)
{
	static const char *const names[] = {"?", "<", "<=", "=", ">=", ">"};

	return condition->any ? "= ANY" : names[condition->strategy];
}

static const char *
column_name(SeMetadata column)
{
	switch (column)
	{
		case SE_META_PARTITION:
			return "_partition";
		case SE_META_OFFSET:
			return "_offset";
		default:
			return "_timestamp";
	}
}

/*
 * se_scan_explain
 *		Without ANALYZE no broker is asked: the offsets are those that the plan
 *		speaks of.
 */
void
se_scan_explain(ForeignScanState *node, ExplainState *es)
{
	StreamScan *scan = node->fdw_state;
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	StringInfoData text;

	if (scan->routine == &se_kafka_routine)
		ExplainPropertyText("Kafka Topic", scan->options.topic, es);
	else
	{
		ForeignServer *server = GetForeignServer(GetForeignTable(scan->relid)->serverid);
		ListCell   *cell;

		foreach(cell, server->options)
		{
			DefElem    *def = lfirst_node(DefElem, cell);

			if (strcmp(def->defname, "table") == 0)
				ExplainPropertyText("Source Table", defGetString(def), es);
		}
		if (scan->options.topic[0] != '\0')
			ExplainPropertyText("Topic", scan->options.topic, es);
	}

	initStringInfo(&text);
	if (scan->nconditions == 0)
		appendStringInfoString(&text, "earliest to latest");
	for (int i = 0; i < scan->nconditions; i++)
		appendStringInfo(&text, scan->conditions[i].any ? "%s%s %s (%s)" : "%s%s %s %s",
						 i == 0 ? "" : " AND ",
						 column_name(scan->conditions[i].column),
						 strategy_name(&scan->conditions[i]),
						 deparse_expression(list_nth(plan->fdw_exprs, i), es->deparse_cxt, false,
											false));
	ExplainPropertyText("Offsets", text.data, es);

	if (!es->analyze)
		return;
	if (scan->started)
	{
		resetStringInfo(&text);
		for (int i = 0; i < scan->nranges; i++)
			appendStringInfo(&text, "%s%d: " INT64_FORMAT "..." INT64_FORMAT, i == 0 ? "" : ", ",
							 scan->ranges[i].partition, scan->ranges[i].start,
							 scan->ranges[i].end - 1);
		ExplainPropertyText("Partitions", scan->nranges > 0 ? text.data : "none", es);
	}
	ExplainPropertyInteger("Records Read", NULL, scan->nread, es);
	ExplainPropertyInteger("Bad Records Skipped", NULL, Max(scan->max_bad, scan->nbad), es);
}
