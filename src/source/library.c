/*
 * library.c
 *	  The door of the second library, stream_engine_source.
 *
 * NOTES
 *	  The library keeps nothing in shared memory and needs no preloading: it is
 *	  loaded by the first scan of a stream, or by a worker.  Nothing of librdkafka
 *	  runs until a stream is opened, and so never in the postmaster.
 */
#include "postgres.h"

#include <librdkafka/rdkafka.h>

#include "catalog/pg_foreign_data_wrapper.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "utils/lsyscache.h"

#include "headers.h"
#include "source.h"

PG_MODULE_MAGIC;

void		_PG_init(void);
extern PGDLLEXPORT const SeSourceLibrary *se_source_library(void);

/* Version of the simdjson that decodes; defined beside the decoder. */
extern const char *se_json_version(void);

void
_PG_init(void)
{
	se_record_headers = se_headers_of_record;
}

/*
 * The source that a handler function stands for, NULL if it is not ours.  The
 * wrapper is known by its handler, since its name can be changed.
 */
static const SeSourceRoutine *
routine_of_handler(Oid handler)
{
	static const struct
	{
		const char *name;
		const SeSourceRoutine *routine;
	}			handlers[] = {
		{"kafka_fdw_handler", &se_kafka_routine},
		{"table_fdw_handler", &se_table_routine},
	};
	char	   *name;
	char	   *schema;

	if (!OidIsValid(handler))
		return NULL;
	name = get_func_name(handler);
	schema = get_namespace_name(get_func_namespace(handler));
	if (name == NULL || schema == NULL || strcmp(schema, "stream_engine") != 0)
		return NULL;
	for (int i = 0; i < lengthof(handlers); i++)
	{
		if (strcmp(name, handlers[i].name) == 0)
			return handlers[i].routine;
	}
	return NULL;
}

static const SeSourceRoutine *
routine_of_server(Oid serverid)
{
	ForeignServer *server = GetForeignServer(serverid);

	return routine_of_handler(GetForeignDataWrapper(server->fdwid)->fdwhandler);
}

/*
 * se_source_is_stream_server
 */
bool
se_source_is_stream_server(Oid serverid)
{
	return routine_of_server(serverid) != NULL;
}

/*
 * se_source_routine_of_server
 */
const SeSourceRoutine *
se_source_routine_of_server(Oid serverid)
{
	const SeSourceRoutine *routine = routine_of_server(serverid);

	if (routine == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a source of streams",
						GetForeignServer(serverid)->servername),
				 errhint("Create it with FOREIGN DATA WRAPPER stream_engine_kafka.")));
	return routine;
}

static const char *
library_version(void)
{
	static char version[64];

	if (version[0] == '\0')
		snprintf(version, sizeof(version), "librdkafka %s, simdjson %s", rd_kafka_version_str(),
				 se_json_version());
	return version;
}

/*
 * se_source_library
 */
const SeSourceLibrary *
se_source_library(void)
{
	static const SeSourceLibrary library = {
		.abi_version = SE_SOURCE_ABI,
		.routine_of_server = se_source_routine_of_server,
		.decoder_create = se_decoder_create,
		.decoder_run = se_decoder_run,
		.decoder_batch = se_decoder_batch,
		.version = library_version,
		.is_stream_server = se_source_is_stream_server,
		.stream_options = se_stream_options,
		.record_headers = se_headers_of_record,
		.scan_override_push = se_scan_override_push,
		.scan_override_pop = se_scan_override_pop,
	};

	return &library;
}
