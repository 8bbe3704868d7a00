/*
 * state.h
 *	  Window state: aggregate kernels, memtables and their byte format.
 *
 * NOTES
 *	  The state of a (query, slice) is a set of groups; a group is its key and
 *	  one state for each aggregate.  A memtable holds the groups touched since
 *	  the last commit; flushed, it becomes a run: chunks of bytes with the groups
 *	  in the order of their hashes.  Runs are commutative: merging all runs of a
 *	  slice, in any order, gives the slice's state.  The same structure serves
 *	  for merging (decode chunks into a memtable, read the groups).
 *
 *	  Everything here is private to a process.  Nothing here reads or writes a
 *	  table.
 */
#ifndef SE_STATE_H
#define SE_STATE_H

#include "postgres.h"

#include "nodes/primnodes.h"

#include "source/columns.h"

typedef struct SeGroupLayout SeGroupLayout;
typedef struct SeMemtable SeMemtable;
typedef struct SeGroup SeGroup; /* opaque: a slot of a memtable */

typedef struct SeKeySpec
{
	Oid			type;
	int32		typmod;
	Oid			collation;
	Oid			eq_opr;			/* equality of GROUP BY, hashable */
	Oid			sort_opr;		/* btree "<" */
} SeKeySpec;

/* How an aggregate is executed; shown by validate_query. */
typedef enum SeAggregateMethod
{
	SE_AGG_KERNEL,				/* flat state, vector loop */
	SE_AGG_COMBINE,				/* the aggregate's own transition, combine and
								 * serialize functions */
	SE_AGG_DISTINCT,			/* a set of values, over which the aggregate runs
								 * when the window closes */
	SE_AGG_UNSUPPORTED
} SeAggregateMethod;

/*
 * How "aggref" would be executed; on SE_AGG_UNSUPPORTED *reason is a message
 * for errdetail ("The aggregate has no combine function.").
 */
extern SeAggregateMethod se_aggregate_method(const Aggref *aggref, const char **reason);

/*
 * Compile the layout of groups: keys and aggregates (argument types, inputcollid,
 * aggtype are taken from the Aggrefs; their args and filter are not evaluated
 * here).  Lives in "context".  Must be called inside a transaction.
 */
extern SeGroupLayout *se_layout_create(int nkeys, const SeKeySpec *keys, int naggs,
									   Aggref *const *aggrefs, MemoryContext context);

/*
 * A hash of everything the byte format depends on: format version, server
 * major version, key types and collations, aggregates and transition types.
 */
extern uint32 se_layout_stamp(const SeGroupLayout *layout);

/* Whether some aggregate is no SE_AGG_KERNEL: merging may take long, and heed the order. */
extern bool se_layout_has_combine(const SeGroupLayout *layout);

/*
 * A memtable in its own child of "parent".  "expected_groups" sizes it.
 */
extern SeMemtable *se_memtable_create(const SeGroupLayout *layout, MemoryContext parent,
									  int64 expected_groups);
extern void se_memtable_free(SeMemtable *table);

/* All groups that an empty table will be given have hashes (upper 32 bits) within the range. */
extern void se_memtable_limit(SeMemtable *table, uint32 hash_low, uint32 hash_high);
extern const SeGroupLayout *se_memtable_layout(const SeMemtable *table);

/* Forget all groups, keep the memory (shrinks when far too large). */
extern void se_memtable_reset(SeMemtable *table);

extern int64 se_memtable_ngroups(const SeMemtable *table);
extern Size se_memtable_memory(const SeMemtable *table);	/* bytes */
extern Size se_memtable_group_memory(const SeMemtable *table);	/* the same a group, about */

/*
 * Find or create the groups of rows[0..nrows-1] of the key vectors
 * (keys[nkeys]).  groups[i] receives the group of rows[i]; the pointers are
 * valid until the next lookup, flush, merge, sort, scan or reset.  Keys are
 * copied only when a group is born.  nkeys = 0: the one group.
 */
extern void se_memtable_lookup(SeMemtable *table, const SeVector *keys, const int *rows,
							   int nrows, SeGroup **groups);

/*
 * Advance aggregate "agg" of groups[i] with row rows[i] of args (one vector an
 * argument; NULL for count(*)).  Rows that the aggregate's FILTER refuses are
 * left out by the caller.  May raise errors of the aggregate's functions; then
 * se_state_error_row tells the row that was being processed (-1 unknown).
 */
extern void se_memtable_update(SeMemtable *table, int agg, const SeVector *args,
							   const int *rows, int nrows, SeGroup **groups);
extern int	se_state_error_row;

/* The same with one value, of an aggregate whose state is one integer. */
extern void se_group_advance(SeMemtable *table, SeGroup *group, int agg, int64 value);

/*
 * Encode all groups in hash order as chunks of at most "max_chunk" bytes (a
 * group larger than that gets a chunk of its own) and hand them to "emit" with
 * the smallest and largest hash (upper 32 bits) and the number of groups in it.
 * The bytes are valid during the call.  The table's groups are unchanged, but
 * may be moved.
 */
typedef void (*SeChunkSink) (void *arg, const char *bytes, Size size, uint32 hash_low,
							 uint32 hash_high, int ngroups);
extern void se_memtable_flush(SeMemtable *table, Size max_chunk, SeChunkSink emit, void *arg);

/*
 * Merge the groups of a chunk whose hash (upper 32 bits) lies within
 * [hash_low, hash_high].  Raises ERRCODE_DATA_CORRUPTED on malformed bytes.
 * Merges into an empty table fit it to their range: when a slice is merged
 * range by range, reset the table in between and pass the same range for all
 * chunks.
 */
extern void se_memtable_merge(SeMemtable *table, const char *bytes, Size size,
							  uint32 hash_low, uint32 hash_high);

/* The same of the groups for whose hashes, cut to "bits" bits, "wanted" is set. */
extern void se_memtable_merge_some(SeMemtable *table, const char *bytes, Size size,
								   const bool *wanted, int bits);

/*
 * Groups in hash order: *position starts at 0; NULL at the end.  Groups are not
 * moved while a scan goes on.
 */
extern SeGroup *se_memtable_next(SeMemtable *table, int64 *position);

/* The same with hashes up to "hash_high" only; NULL leaves *position for the one behind. */
extern SeGroup *se_memtable_next_upto(SeMemtable *table, int64 *position, uint32 hash_high);

/*
 * Single groups (groups.c).  "group" belongs to "from", a table of the same layout.
 *
 * se_memtable_get finds the group with the same key in "table", or NULL;
 * se_memtable_get_row the group of a row of key vectors.  se_memtable_add merges the
 * group into "table" and returns its group there; se_memtable_add_key makes a
 * group with empty states.  se_group_hash is what ranges are of, se_memtable_hash_row
 * that of a row's group.
 * se_memtable_remove forgets a group of the table.
 * Pointers die as by se_memtable_lookup, but not by get and remove.
 */
extern SeGroup *se_memtable_get(SeMemtable *table, const SeGroup *group);
extern SeGroup *se_memtable_get_row(SeMemtable *table, const SeVector *keys, int row);
extern SeGroup *se_memtable_add(SeMemtable *table, SeMemtable *from, const SeGroup *group);
extern SeGroup *se_memtable_add_key(SeMemtable *table, const SeGroup *group);
extern uint32 se_group_hash(const SeGroup *group);
extern uint32 se_memtable_hash_row(SeMemtable *table, const SeVector *keys, int row);

/* Soon the group will be read. */
extern void se_group_prefetch(const SeMemtable *table, const SeGroup *group);

/* Merge all groups of "from", whose groups may be moved, into "table". */
extern void se_memtable_merge_table(SeMemtable *table, SeMemtable *from);
extern void se_memtable_remove(SeMemtable *table, SeGroup *group);

/*
 * All groups sorted by key (btree order of the keys, NULLs last), palloc'd array; or those
 * whose hash lies within [hash_low, hash_high].
 */
extern SeGroup **se_memtable_sorted(SeMemtable *table, int64 *ngroups);
extern SeGroup **se_memtable_sorted_range(SeMemtable *table, uint32 hash_low, uint32 hash_high,
										  int64 *ngroups);

/*
 * Key "key" of a group, and the final value of aggregate "agg": by-reference
 * results are palloc'd in CurrentMemoryContext or belong to the table; they are
 * valid until the table is reset.  Finalising leaves the state as it was.
 */
extern Datum se_group_key(const SeMemtable *table, const SeGroup *group, int key, bool *isnull);
extern Datum se_group_result(SeMemtable *table, SeGroup *group, int agg, bool *isnull);

/* The value of an aggregate whose state is one integer and that has seen a value. */
extern int64 se_group_integer(const SeMemtable *table, const SeGroup *group, int agg);

#endif							/* SE_STATE_H */
