/*
 * definitions.h
 *	  Streams, queries and readers as rows.
 *
 * NOTES
 *	  What a stream is stands in its foreign table's options; what the engine adds
 *	  (state, errors, positions) stands in the tables of schema stream_engine.
 *	  All functions here run inside a transaction with an active snapshot, and
 *	  read and write the engine's tables as the bootstrap superuser whoever
 *	  calls: each caller checks privileges first.
 */
#ifndef SE_DEFINITIONS_H
#define SE_DEFINITIONS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "nodes/pg_list.h"

#include "source/source.h"

#define SE_SCHEMA "stream_engine"

typedef struct SeStream
{
	int32		id;
	Oid			relid;
	char	   *name;			/* qualified and quoted */
	Oid			owner;
	Oid			serverid;
	char	   *state;
	bool		at_home;		/* false in a restored or copied database */
	AttrNumber	event_time;		/* 0: there is none, see se_stream_check_event_time */
	SeStreamOptions options;
} SeStream;

/*
 * Windows that were emitted before the query's first complete window became a later one: those
 * that start at "from" or after it, and end at "through" or before it.
 */
typedef struct SeEmittedSpan
{
	TimestampTz from;
	TimestampTz through;
} SeEmittedSpan;

typedef struct SeQueryDef
{
	int32		id;
	int32		stream;
	char	   *name;			/* of the result table, qualified and quoted */
	Oid			owner;			/* of the batch view */
	Oid			batch_view;
	Oid			result;
	Oid			open_table;
	char	   *state;
	char	   *emit;
	int64		emit_interval;	/* microseconds */
	char	   *late;
	int64		allowed_lateness;	/* microseconds */
	int64		correction_horizon; /* microseconds, 0: none */
	bool		late_purged;	/* not all late records are stored */
	TimestampTz kept_from;		/* of windows that end until then there is no state */
	bool		emit_partial;
	int64		trigger_count;	/* 0: none */
	int64		trigger_interval;	/* microseconds, 0: none */
	int64		state_ttl;		/* microseconds, 0: none */
	char	   *start;
	List	   *settings;		/* of char *: name=value */
	/* progress */
	int32		reader;
	TimestampTz closed_through;
	TimestampTz complete_from;
	bool		has_emitted;	/* a window, at some time */
	int			nemitted;
	SeEmittedSpan *emitted;		/* [nemitted], ascending */
	bool		closing;		/* closed windows are still to be emitted, from here on: */
	TimestampTz closing_start;
	TimestampTz closing_end;
	int64		closing_hash;
	int64		changes_seq;	/* seq of the commit that emitted changes last */
	TimestampTz changes_at;		/* DT_NOBEGIN: never */
	bool		has_stamp;
	int64		state_stamp;
} SeQueryDef;

typedef struct SeReaderDef
{
	int32		id;
	int32		stream;
	bool		head;
	char	   *start;
	int64		generation;
	int64		seq;
	TimestampTz watermark;
} SeReaderDef;

/*
 * Whether a window is complete: it is emitted when it closes, and corrected.  One that has
 * been emitted stays so, though the first complete window is a later one by now.
 */
static inline bool
se_query_completes(const SeQueryDef *query, TimestampTz start, TimestampTz end)
{
	if (start >= query->complete_from || query->emit_partial)
		return true;
	for (int i = 0; i < query->nemitted; i++)
		if (start >= query->emitted[i].from && end <= query->emitted[i].through)
			return true;
	return false;
}

/* The second library; loaded at the first call. */
extern const SeSourceLibrary *se_source(void);

/* NULL (or false) when there is no such row. */
extern SeStream *se_stream_load(int32 id);
extern SeStream *se_stream_by_relation(Oid relid);
extern SeQueryDef *se_query_load(int32 id);
extern SeQueryDef *se_query_by_open_table(Oid relid);
extern SeReaderDef *se_reader_load(int32 id);
extern List *se_reader_queries(int32 reader);	/* of SeQueryDef, running ones */

/* Raises an error if the stream's event time is a column that it does not have. */
extern void se_stream_check_event_time(const SeStream *stream);

/*
 * Event time column of a stream's relation, for se_query_compile; false when
 * relid is not a stream.
 */
extern bool se_stream_lookup(Oid relid, AttrNumber *event_time);

/* Identity of this database in this cluster: a copy made by restore or TEMPLATE differs. */
extern char *se_home(void);

/* Whether the current user sees statistics of what belongs to "owner": stream_engine.may_see(). */
extern bool se_may_see(Oid owner);

/* Compile a stored query (its batch view) again. */
struct SeQueryPlan;
extern struct SeQueryPlan *se_query_plan_of_view(Oid view);

/*
 * Bracket for reading and writing the engine's tables: connects to SPI, switches
 * to the bootstrap superuser, and hides whatever operators and functions the
 * caller's search_path would put before the server's.  An ERROR restores all by
 * itself.
 */
typedef struct SeCatalogScope
{
	Oid			user;
	int			security_context;
	int			guc_level;		/* 0: the search_path was right already */
} SeCatalogScope;

extern void se_catalog_begin(SeCatalogScope *scope);
extern void se_catalog_end(SeCatalogScope *scope);

/* SPI_execute_with_args that raises unless the result is "expected". */
extern uint64 se_spi(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls,
					 int expected);

/*
 * Run user code of "owner": security-restricted, with the settings pinned (a
 * list of name=value).  Not to be used around transaction boundaries.
 */
typedef struct SeUserScope
{
	Oid			user;
	int			security_context;
	int			guc_level;
} SeUserScope;

/* InvalidOid if it does not exist any more. */
extern Oid	se_relation_owner(Oid relid);

extern void se_user_begin(SeUserScope *scope, Oid owner, List *settings);
extern void se_user_end(SeUserScope *scope);

#endif							/* SE_DEFINITIONS_H */
