/*
 * ddl.h
 *	  Between the files that create, alter and drop streams and queries.
 */
#ifndef SE_DDL_H
#define SE_DDL_H

#include "postgres.h"

#include "fmgr.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"

#include "definitions.h"

/*
 * create_stream's column list as the inside of CREATE FOREIGN TABLE (...):
 * PATH '...' and EPOCH '...' become column options.  "include" has names of
 * metadata columns without their underscore, added in front when the list does
 * not declare them.  Raises syntax errors with a position in "columns".
 */
extern char *se_translate_columns(const char *columns, List *include);

/* Raises an error if an argument of a SQL function is NULL. */
extern void se_require_argument(FunctionCallInfo fcinfo, int arg, const char *name);

/* A name as the user wrote it ("sales", "shop.sales") as a RangeVar. */
extern RangeVar *se_parse_name(const char *name);

/* The same name with a suffix ("sales_live"), truncated as Postgres does. */
extern RangeVar *se_name_with_suffix(const RangeVar *name, const char *suffix);

extern char *se_quote_name(const RangeVar *name);

/* Run one utility statement as the caller. */
extern void se_run_utility(const char *sql);

/* Whether the current user may act as the owner of a relation. */
extern void se_check_owner(Oid relid);

/*
 * Check a start position ('earliest', 'latest', a timestamp, or a JSON object of
 * offsets by partition) and return it in canonical form, palloc'd.
 */
extern char *se_check_start(const char *start);

/*
 * Where a reader of "stream" begins when it starts at "start": positions by
 * partition, asked of the broker; *complete[i] tells that nothing lies before
 * position i.  Returns the number of partitions.
 */
extern int	se_resolve_start(const SeStream *stream, const char *start, int timeout_ms,
							 SePosition **positions, bool **complete, int64 *nrecords);

/*
 * From when on the windows of a query that starts now are complete, as far as
 * that is known before a record has been read: with processing time from now on.
 */
extern TimestampTz se_stream_complete_from(const SeStream *stream);

/* Insert a reader of a stream; positions may be NULL (resolved by its worker). */
extern int32 se_reader_create(int32 stream, bool head, const char *start,
							  const SePosition *positions, const bool *complete, int npositions);

/* ---- settings of queries (query_ddl.c) ---- */

/* Raises unless an argument is an interval of a fixed length, and not negative; or NULL. */
extern void se_check_interval(FunctionCallInfo fcinfo, int arg, const char *name);

/* Raises unless it is what argument "late" may be. */
extern void se_check_late(const char *value);

/* ---- streams and queries by their relations (life.c) ---- */

/*
 * The stream, or the query by its result table or batch view; raises errors
 * unless there is one, and the current user may act as its owner.
 */
extern SeStream *se_find_stream(Oid relid);
extern SeQueryDef *se_find_query(Oid relid);

/*
 * Whatever the reader of a query, or those of a stream, are doing gets no commit, and
 * they read their definitions again when this transaction has committed.
 */
extern void se_fence_query(int32 query);
extern void se_fence_stream(int32 stream);

/* Stop a query, or have it go on without its error.  It has been fenced. */
extern void se_query_set_paused(int32 query, bool paused);

/* ---- which query is fed by which reader (readers.c) ---- */

/*
 * A reader of the stream that stands at these positions and has committed nothing
 * yet, so that a query can join it and has missed nothing; else 0.  Its row is
 * locked, and its worker will read its definition again.
 */
extern int32 se_reader_to_join(int32 stream, bool session, const char *start,
							   const SePosition *positions, int npositions);

/*
 * Lock the row of the reader that feeds a query, which the reader may not have
 * any more when the lock is granted; returns the reader, 0 if there is none.
 */
extern int32 se_query_lock_reader(int32 query);

/*
 * Give a query a reader of its own at the position where it stands, unless it has
 * one; the others go on.  For what does not run any more.  Raises the generation
 * of the reader that it leaves.
 */
extern void se_query_split(int32 query);

/* The running transaction is the commit of a reader, which has its row locked. */
extern void se_reader_commits(int32 reader);

#endif							/* SE_DDL_H */
