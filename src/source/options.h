/*
 * options.h
 *	  Options of servers, user mappings, streams and columns.
 */
#ifndef SE_OPTIONS_H
#define SE_OPTIONS_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "compat/compat.h"
#include "source.h"

/* Where an option is allowed: a set of these. */
#define SE_ON_SERVER	0x01
#define SE_ON_MAPPING	0x02
#define SE_ON_TABLE		0x04
#define SE_ON_COLUMN	0x08

/* The SE_ON_ flag of a catalog that has options; 0 for any other catalog. */
extern int	se_option_place(Oid catalog);

/* "server", "user mapping", "foreign table", "column" or "foreign-data wrapper". */
extern const char *se_option_place_name(int place);

/*
 * The element of names[0..nnames-1] that is spelled most like "name", or NULL
 * when none is near.
 */
extern const char *se_closest_name(const char *name, const char *const *names, int nnames);

/* Raise "invalid option", with detail (may be NULL) and a hint on the nearest name. */
se_noreturn extern void se_invalid_option(const char *name, int place, const char *detail,
							  const char *nearest);

/*
 * The integer that "value" spells, between low and high; raises an error that
 * names the option.
 */
extern int64 se_option_integer(const char *name, const char *value, int64 low, int64 high);

/* ---- streams (stream_options.c) ---- */

/* All names of stream options allowed in "place", for hints. */
extern int	se_stream_option_names(int place, const char **names, int max);

/*
 * Check an option of a stream (foreign table) or of one of its columns;
 * returns false when there is no option of that name.
 */
extern bool se_stream_option_check(const char *name, const char *value, int place);

/* The value of an option in a list of DefElems, NULL if it is not there. */
extern const char *se_option_value(List *options, const char *name);

/*
 * Options of the user mapping of "userid" for a server, or of PUBLIC's; NIL if
 * there is neither.
 */
extern List *se_user_mapping_options(Oid userid, Oid serverid);

/* ---- Kafka's (kafka_options.c) ---- */

extern void se_kafka_validate(List *options, int place);

typedef struct SeKafkaSetting
{
	const char *name;			/* librdkafka's */
	const char *value;
	const char *option;			/* ours; NULL if the engine's own */
	bool		secret;
} SeKafkaSetting;

/*
 * librdkafka's properties for the stream "relid" read by "userid", files read
 * and privileges checked; a list of SeKafkaSetting in CurrentMemoryContext.
 * *mechanism is the SASL mechanism, NULL when there is no login.
 */
extern List *se_kafka_settings(Oid relid, Oid userid, const char **mechanism);

/* ---- table-backed streams (table_source.c) ---- */

extern void se_table_validate(List *options, int place);

#endif							/* SE_OPTIONS_H */
