/*
 * scan.h
 *	  What the planner's and the executor's half of a stream's scan share.
 */
#ifndef SE_SCAN_H
#define SE_SCAN_H

#include "postgres.h"

#include "commands/explain.h"
#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"

#include "compat/compat.h"
#include "decoder.h"
#include "source.h"

/*
 * A condition that narrows what is read: metadata column, comparison (a btree
 * strategy), and an expression without columns of the stream, which stands at
 * the same place in fdw_exprs.  In fdw_private as a list of three integers;
 * "any" says that the expression is an array of which one element must match.
 */
typedef struct ScanCondition
{
	SeMetadata	column;
	int			strategy;
	bool		any;
} ScanCondition;

/* Elements of ForeignScan.fdw_private. */
#define SCAN_PRIVATE_NEEDED		0	/* attribute numbers whose values are read */
#define SCAN_PRIVATE_CONDITIONS 1

/* The values that conditions allow a column; first > last: none. */
typedef struct OffsetInterval
{
	int64		first;
	int64		last;			/* inclusive */
} OffsetInterval;

/* What the conditions of a scan say, once their values are known. */
typedef struct ScanLimits
{
	OffsetInterval partition;
	OffsetInterval offset;
	TimestampTz since;			/* lower bound of _timestamp; DT_NOBEGIN: none */
	int			nlists;			/* sets of partitions, of all of which a wanted
								 * one is a member */
	Bitmapset **lists;
	bool		nothing;		/* some value is NULL: no row can match */
} ScanLimits;

/* ---- scan_limits.c ---- */

/*
 * Evaluate the values of the conditions (exprs: ExprStates, one for each) and put
 * them together; allocates in CurrentMemoryContext.
 */
extern void se_scan_limits(ForeignScanState *node, const ScanCondition *conditions, List *exprs,
						   ScanLimits *limits);
extern bool se_scan_partition_wanted(const ScanLimits *limits, int32 partition);

/* ---- scan_override.c ---- */

extern bool se_scan_override_excludes(const SeScanOverride *override, const SeRecord *record);

/* Add to an override's counters, unless it is not in force any more. */
extern void se_scan_override_count(SeScanOverride *override, int64 nread, int64 nbad);

/* ---- scan.c ---- */

extern void se_scan_begin(ForeignScanState *node, int eflags);
extern TupleTableSlot *se_scan_iterate(ForeignScanState *node);
extern void se_scan_rescan(ForeignScanState *node);
extern void se_scan_end(ForeignScanState *node);
extern void se_scan_explain(ForeignScanState *node, ExplainState *es);

#endif							/* SE_SCAN_H */
