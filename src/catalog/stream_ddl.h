/*
 * stream_ddl.h
 *	  The engine's part of creating a stream.
 */
#ifndef SE_STREAM_DDL_H
#define SE_STREAM_DDL_H

#include "definitions.h"

/*
 * Take a foreign table under the engine's care: checks it, inserts its row,
 * makes staging tables and head reader.  The caller has checked that the
 * current user owns it.  With check_source the broker is asked (and errors
 * raised) at once.
 */
extern SeStream *se_stream_register(Oid relid, bool check_source);

/* "dependent" is dropped silently with "on"; both are relations. */
extern void se_depend_auto(Oid dependent, Oid on);

/* The same, unless it is so already. */
extern void se_depend_auto_once(Oid dependent, Oid on);

#endif							/* SE_STREAM_DDL_H */
