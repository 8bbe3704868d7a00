/*
 * aside.c
 *	  What becomes of a query that fails: the others go on without it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "catalog/ddl.h"
#include "engine/engine.h"
#include "reader.h"

/*
 * An error that may pass, or be nobody's fault, is tried again; but others are not to wait for
 * a query that it comes back with.  Give that a reader of its own, in a transaction of its own,
 * where it goes on trying; it is merged again when it has caught up.  False: it has one.
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
				(errmsg("query %d gets a reader of its own, since it fails again and again", query)));
	return shared;
}

/* Set a query aside, with a reader of its own, in a transaction of its own. */
void
se_query_fails(int32 query, const ErrorData *error, int32 partition, int64 offset)
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
