/*
 * aside.c
 *	  What becomes of a query that fails, and of a stream that stops in front of a bad record.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/ddl.h"
#include "engine/engine.h"
#include "reader.h"

/*
 * An error that may pass, or be nobody's fault, is tried again, and a table that is locked is
 * waited for; but others are not to wait for a query that this happens to again and again, or for
 * long.  Give that a reader of its own, in a transaction of its own, where it goes on trying; it
 * is merged again when it has caught up.  False: it has one.
 */
bool
se_query_isolate(int32 query)
{
	SeCatalogScope scope;
	Oid			type = INT4OID;
	Datum		value;
	bool		shared;

	if (!se_worker_begin())
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	value = Int32GetDatum(se_query_lock_reader(query));
	se_catalog_begin(&scope);
	shared = se_spi("SELECT FROM stream_engine.reader r WHERE r.id = $1 AND (r.head OR"
					" (SELECT pg_catalog.count(*) FROM stream_engine.query_progress p"
					" WHERE p.reader = r.id) > 1)", 1, &type, &value, NULL, SPI_OK_SELECT) == 1;
	se_catalog_end(&scope);
	if (shared)
		se_query_split(query);
	PopActiveSnapshot();
	se_worker_commit();
	if (shared)
		ereport(LOG,
				(errmsg("query %d gets a reader of its own, so that others do not wait for it", query)));
	return shared;
}

/*
 * Whether the reader's definition is the one that was read; locks the reader.  If a session has
 * changed something since then, that may be what the error was about: it is tried again.
 */
static bool
definition_holds(int32 reader, int64 generation)
{
	SeCatalogScope scope;
	Oid			types[2] = {INT4OID, INT8OID};
	Datum		values[2];
	bool		result;

	values[0] = Int32GetDatum(reader);
	values[1] = Int64GetDatum(generation);
	se_catalog_begin(&scope);
	result = se_spi("SELECT FROM stream_engine.reader WHERE id = $1 AND generation = $2 FOR UPDATE",
					2, types, values, NULL, SPI_OK_SELECT) == 1;
	se_catalog_end(&scope);
	return result;
}

/*
 * Set a query aside, with a reader of its own, in a transaction of its own.  It has failed by
 * the definition of "reader" that has this generation.
 */
void
se_query_fails(int32 reader, int64 generation, int32 query, const ErrorData *error,
			   int32 partition, int64 offset)
{
	SeCatalogScope scope;
	Oid			types[6] = {INT4OID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT8OID};
	Datum		values[6];
	char		nulls[] = "      ";

	if (!se_worker_begin())
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	values[0] = Int32GetDatum(query);
	values[1] = CStringGetTextDatum(error->message);
	values[2] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[3] = CStringGetTextDatum(error->hint ? error->hint :
									"Mend the cause, then call stream_engine.resume().");
	values[4] = Int32GetDatum(partition);
	values[5] = Int64GetDatum(offset);
	if (offset < 0)
		nulls[4] = nulls[5] = 'n';
	if (!definition_holds(reader, generation))
	{
		PopActiveSnapshot();
		se_worker_commit();
		return;
	}
	/* readers before queries, and the others go on without this one */
	se_query_split(query);
	se_catalog_begin(&scope);
	se_spi("UPDATE stream_engine.query SET state = 'error', error = $2, error_sqlstate = $3,"
		   " error_hint = $4, error_partition = $5, error_offset = $6,"
		   " error_at = pg_catalog.clock_timestamp() WHERE id = $1",
		   6, types, values, nulls, SPI_OK_UPDATE);
	se_catalog_end(&scope);
	se_wake_at_commit();
	PopActiveSnapshot();
	se_worker_commit();
	se_progress_broadcast();
}

/* on_error => 'pause': the stream stops in front of a record. */
void
se_stream_stops(Reader *reader)
{
	SeCatalogScope scope;
	Oid			types[5] = {INT4OID, TEXTOID, TEXTOID, INT4OID, INT8OID};
	Datum		values[5];

	if (!se_worker_begin())
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	values[0] = Int32GetDatum(reader->stream->id);
	values[1] = CStringGetTextDatum(reader->pause_message);
	values[2] = CStringGetTextDatum(reader->pause_sqlstate);
	values[3] = Int32GetDatum(reader->pause_partition);
	values[4] = Int64GetDatum(reader->pause_offset);
	if (!definition_holds(reader->def->id, reader->def->generation))
	{
		PopActiveSnapshot();
		se_worker_commit();
		return;
	}
	se_catalog_begin(&scope);
	se_spi("UPDATE stream_engine.stream SET state = 'error', error = $2, error_sqlstate = $3,"
		   " error_partition = $4, error_offset = $5, error_at = pg_catalog.clock_timestamp()"
		   " WHERE id = $1 AND state = 'running'", 5, types, values, NULL, SPI_OK_UPDATE);
	se_catalog_end(&scope);
	se_wake_at_commit();
	PopActiveSnapshot();
	se_worker_commit();
	ereport(LOG,
			(errmsg("stream %s stops before offset %lld of partition %d: %s", reader->stream->name,
					(long long) reader->pause_offset, reader->pause_partition,
					reader->pause_message)));
	se_progress_broadcast();
}
