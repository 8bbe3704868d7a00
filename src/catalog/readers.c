/*
 * readers.c
 *	  Which query is fed by which reader: joining one, and being split off.
 *
 * NOTES
 *	  Queries at the same position share a reader, which consumes and decodes for
 *	  all of them at once.  A query comes to share one in two ways: it begins where
 *	  a reader stands that has committed nothing yet (se_reader_to_join), or its own
 *	  reader has caught up and is merged into another one (reader/merge.c).
 *
 *	  A reader that has several queries, or that is the stream's own (head), feeds
 *	  running queries only: what stops running is given a reader of its own in the
 *	  same transaction (se_query_split), which is a copy of the one that it leaves,
 *	  and so stands where the query's state stands.
 *
 *	  At most one query of a reader has session windows.  The end of a session can
 *	  ask for a commit in the middle of a batch, and two such queries could not
 *	  agree on where.
 *
 *	  A query's history is the commits that it had a part in, whichever reader made
 *	  them: reader_history names the former readers, whose rows stay for the sake of
 *	  the ledger until that is pruned.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "ddl.h"
#include "engine/engine.h"

/* The transaction in which a reader of this process commits. */
static TransactionId commit_xid = InvalidTransactionId;
static int32 commit_reader;

static int32
int_column(int column)
{
	bool		isnull;

	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column,
									   &isnull));
}

/* Whether a reader's positions are these; in a catalog scope. */
static bool
stands_at(int32 reader, const SePosition *positions, int npositions)
{
	Oid			types[3] = {INT4OID, INT4OID, INT8OID};
	Datum		values[3];

	values[0] = Int32GetDatum(reader);
	if (se_spi("SELECT FROM stream_engine.reader_partition WHERE reader = $1", 1, types, values,
			   NULL, SPI_OK_SELECT) != (uint64) npositions)
		return false;
	for (int i = 0; i < npositions; i++)
	{
		values[1] = Int32GetDatum(positions[i].partition);
		values[2] = Int64GetDatum(positions[i].offset);
		if (se_spi("SELECT FROM stream_engine.reader_partition"
				   " WHERE reader = $1 AND partition = $2 AND next_offset = $3",
				   3, types, values, NULL, SPI_OK_SELECT) != 1)
			return false;
	}
	return true;
}

int32
se_reader_to_join(int32 stream, bool session, const char *start, const SePosition *positions,
				  int npositions)
{
	SeCatalogScope scope;
	Oid			types[3] = {INT4OID, TEXTOID, BOOLOID};
	Datum		values[3];
	int32		reader = 0;

	se_catalog_begin(&scope);
	values[0] = Int32GetDatum(stream);
	values[1] = CStringGetTextDatum(start);
	values[2] = BoolGetDatum(session);
	if (se_spi("SELECT r.id FROM stream_engine.reader r"
			   " WHERE r.stream = $1 AND r.start = $2 AND r.seq = 0 AND r.absorbed_by IS NULL"
			   " AND (r.head OR EXISTS (SELECT FROM stream_engine.query_progress p WHERE p.reader = r.id))"
			   " AND NOT EXISTS (SELECT FROM stream_engine.query_progress p"
			   "  JOIN stream_engine.query q ON q.id = p.query"
			   "  WHERE p.reader = r.id AND (q.state <> 'running' OR ($3 AND q.session)))"
			   " ORDER BY r.head DESC, r.id LIMIT 1 FOR UPDATE OF r",
			   3, types, values, NULL, SPI_OK_SELECT) == 1)
		reader = int_column(1);
	/* before we had the lock one of its queries may have stopped, or another have joined */
	if (reader != 0)
	{
		values[0] = Int32GetDatum(reader);
		if (se_spi("SELECT FROM stream_engine.query_progress p"
				   " JOIN stream_engine.query q ON q.id = p.query"
				   " WHERE p.reader = $1 AND (q.state <> 'running' OR ($3 AND q.session)) LIMIT 1",
				   3, types, values, NULL, SPI_OK_SELECT) != 0 ||
			!stands_at(reader, positions, npositions))
			reader = 0;
	}
	if (reader != 0)
	{
		values[0] = Int32GetDatum(reader);
		se_spi("UPDATE stream_engine.reader SET generation = generation + 1 WHERE id = $1",
			   1, types, values, NULL, SPI_OK_UPDATE);
	}
	se_catalog_end(&scope);
	return reader;
}

int32
se_query_lock_reader(int32 query)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	int32		reader = 0;

	se_catalog_begin(&scope);
	for (;;)
	{
		Datum		value = Int32GetDatum(query);

		if (se_spi("SELECT reader FROM stream_engine.query_progress WHERE query = $1", 1, &type,
				   &value, NULL, SPI_OK_SELECT) != 1)
		{
			reader = 0;
			break;
		}
		/* while we waited for the lock it may have handed its queries over */
		if (reader == int_column(1))
			break;
		reader = int_column(1);
		value = Int32GetDatum(reader);
		se_wake_manager();
		(void) se_spi("SELECT FROM stream_engine.reader WHERE id = $1 FOR UPDATE", 1, &type,
					  &value, NULL, SPI_OK_SELECT);
	}
	se_catalog_end(&scope);
	return reader;
}

/* The reader's row is locked. */
static void
copy_reader(int32 query, int32 reader)
{
	static const char *const steps[] = {
		"INSERT INTO stream_engine.reader_partition (reader, partition, start_offset, next_offset,"
		" complete, max_event_time, first_event_time, idle, records, gaps, decoded, dead, future,"
		" tombstones, skipped, last_offset, last_timestamp, last_checksum, high_offset, problem, gone)"
		" SELECT $3, partition, start_offset, next_offset,"
		" complete, max_event_time, first_event_time, idle, records, gaps, decoded, dead, future,"
		" tombstones, skipped, last_offset, last_timestamp, last_checksum, high_offset, problem, gone"
		" FROM stream_engine.reader_partition WHERE reader = $2",

		"INSERT INTO stream_engine.dead_letter_reader (reader, partition, \"offset\")"
		" SELECT $3, partition, \"offset\" FROM stream_engine.dead_letter_reader"
		" WHERE reader = $2",

		"INSERT INTO stream_engine.replay (reader, query, partition, \"offset\", kafka_timestamp, key, payload,"
		" headers) SELECT $3, query, partition, \"offset\", kafka_timestamp, key, payload, headers"
		" FROM stream_engine.replay WHERE reader = $2 AND (query IS NULL OR query = $1)",

		"DELETE FROM stream_engine.replay WHERE reader = $2 AND query = $1",

		"INSERT INTO stream_engine.reader_history (query, reader, after_seq, upto_seq, ledger_shift)"
		" SELECT p.query, p.reader, p.joined_seq, r.seq, p.ledger_shift"
		" FROM stream_engine.query_progress p JOIN stream_engine.reader r ON r.id = p.reader"
		" WHERE p.query = $1 AND r.seq > p.joined_seq",

		"UPDATE stream_engine.query_progress p SET reader = $3, joined_seq = r.seq"
		" FROM stream_engine.reader r WHERE p.query = $1 AND r.id = $2",

		"UPDATE stream_engine.reader SET generation = generation + 1"
		" WHERE id = $2",
	};
	static const int results[] = {
		SPI_OK_INSERT, SPI_OK_INSERT, SPI_OK_INSERT, SPI_OK_DELETE, SPI_OK_INSERT, SPI_OK_UPDATE,
		SPI_OK_UPDATE
	};
	Oid			types[3] = {INT4OID, INT4OID, INT4OID};
	Datum		values[3];

	values[0] = Int32GetDatum(query);
	values[1] = Int32GetDatum(reader);
	se_spi("INSERT INTO stream_engine.reader (stream, head, start, seq, watermark, promise,"
		   " advance_to, committed_at) SELECT stream, false, start, seq, watermark, promise,"
		   " advance_to, committed_at FROM stream_engine.reader WHERE id = $2"
		   " RETURNING id", 2, types, values, NULL, SPI_OK_INSERT_RETURNING);
	values[2] = Int32GetDatum(int_column(1));
	for (int i = 0; i < lengthof(steps); i++)
	{
		SE_FAILPOINT("split.step");
		se_spi(steps[i], 3, types, values, NULL, results[i]);
	}
}

void
se_reader_commits(int32 reader)
{
	commit_xid = GetTopTransactionId();
	commit_reader = reader;
}

/*
 * A trigger of the user's must not split what is being committed: what was read since the last
 * commit is in the state already, and the positions that would be copied are before it.
 */
static void
refuse_in_commit(int32 reader)
{
	if (reader == commit_reader && TransactionIdIsValid(commit_xid) &&
		commit_xid == GetTopTransactionIdIfAny())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a query cannot be stopped by what its own reader writes"),
				 errhint("Pause the stream, or let another session pause the query.")));
}

void
se_query_split(int32 query)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	int32		reader = se_query_lock_reader(query);
	Datum		value = Int32GetDatum(reader);

	if (reader == 0)
		return;
	se_catalog_begin(&scope);
	if (se_spi("SELECT FROM stream_engine.reader r WHERE r.id = $1 AND (r.head OR"
			   " (SELECT pg_catalog.count(*) FROM stream_engine.query_progress p WHERE p.reader = r.id) > 1)",
			   1, &type, &value, NULL, SPI_OK_SELECT) == 1)
	{
		refuse_in_commit(reader);
		copy_reader(query, reader);
	}
	else
		/* no other reader's queries may join this one: it is about to stop */
		se_spi("UPDATE stream_engine.reader SET generation = generation + 1 WHERE id = $1",
			   1, &type, &value, NULL, SPI_OK_UPDATE);
	se_wake_at_commit();
	se_catalog_end(&scope);
}
