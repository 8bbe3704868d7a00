/*
 * stream_options.c
 *	  Options of a stream's foreign table and of its columns.
 *
 * NOTES
 *	  Both wrappers share these options.  A value is checked when it is set and
 *	  parsed anew whenever the stream is opened: options are text in
 *	  pg_foreign_table, and what cannot be parsed any more (a setting moved by
 *	  hand between servers of different versions, say) raises the same error.
 *
 *	  Defaults are filled in by se_stream_options() and nowhere else.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "common/int.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "compat/compat.h"
#include "options.h"

/* How a value is spelled. */
typedef enum OptionKind
{
	OPTION_TEXT,				/* anything but the empty string */
	OPTION_TOPIC,
	OPTION_FORMAT,
	OPTION_START,
	OPTION_INTERVAL,			/* not negative */
	OPTION_SIZE,				/* bytes, as pg_size_bytes reads them */
	OPTION_INTEGER,
	OPTION_ON_ERROR,
	OPTION_PATH,
	OPTION_EPOCH
} OptionKind;

typedef struct StreamOption
{
	const char *name;
	int			place;
	OptionKind	kind;
	int64		low;			/* of OPTION_INTEGER */
	int64		high;
} StreamOption;

#define MAX_WORKERS_OF_STREAM 64

/* A thousand years. */
#define MAX_INTERVAL_DAYS 366000

static const StreamOption stream_options[] = {
	{"topic", SE_ON_TABLE, OPTION_TOPIC, 0, 0},
	{"format", SE_ON_TABLE, OPTION_FORMAT, 0, 0},
	{"event_time", SE_ON_TABLE, OPTION_TEXT, 0, 0},
	{"watermark_delay", SE_ON_TABLE, OPTION_INTERVAL, 0, 0},
	{"idle_timeout", SE_ON_TABLE, OPTION_INTERVAL, 0, 0},
	{"idle_close", SE_ON_TABLE, OPTION_INTERVAL, 0, 0},
	{"max_future", SE_ON_TABLE, OPTION_INTERVAL, 0, 0},
	{"start", SE_ON_TABLE, OPTION_START, 0, 0},
	{"on_error", SE_ON_TABLE, OPTION_ON_ERROR, 0, 0},
	{"on_error_limit", SE_ON_TABLE, OPTION_INTEGER, 0, PG_INT32_MAX},
	{"staging_retention", SE_ON_TABLE, OPTION_INTERVAL, 0, 0},
	{"staging_max_size", SE_ON_TABLE, OPTION_SIZE, 0, 0},
	{"workers", SE_ON_TABLE, OPTION_INTEGER, 1, MAX_WORKERS_OF_STREAM},
	{"path", SE_ON_COLUMN, OPTION_PATH, 0, 0},
	{"epoch", SE_ON_COLUMN, OPTION_EPOCH, 0, 0},
};

/*
 * se_option_place
 */
int
se_option_place(Oid catalog)
{
	switch (catalog)
	{
		case ForeignServerRelationId:
			return SE_ON_SERVER;
		case UserMappingRelationId:
			return SE_ON_MAPPING;
		case ForeignTableRelationId:
			return SE_ON_TABLE;
		case AttributeRelationId:
			return SE_ON_COLUMN;
		default:
			return 0;
	}
}

/*
 * se_option_place_name
 */
const char *
se_option_place_name(int place)
{
	switch (place)
	{
		case SE_ON_SERVER:
			return "server";
		case SE_ON_MAPPING:
			return "user mapping";
		case SE_ON_TABLE:
			return "foreign table";
		case SE_ON_COLUMN:
			return "column";
		default:
			return "foreign-data wrapper";
	}
}

/*
 * se_closest_name
 */
const char *
se_closest_name(const char *name, const char *const *names, int nnames)
{
	const char *nearest = NULL;
	int			nearest_distance;
	int			length = strlen(name);

	/* levenshtein() refuses long strings, and nobody mistypes that much */
	if (length > 63)
		return NULL;

	nearest_distance = Max(2, length / 3) + 1;
	for (int i = 0; i < nnames; i++)
	{
		int			distance;

		distance = varstr_levenshtein_less_equal(name, length, names[i], strlen(names[i]),
												 1, 1, 1, nearest_distance, true);
		if (distance < nearest_distance)
		{
			nearest = names[i];
			nearest_distance = distance;
		}
	}
	return nearest;
}

/*
 * se_invalid_option
 */
void
se_invalid_option(const char *name, int place, const char *detail, const char *nearest)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\" for a %s", name, se_option_place_name(place)),
			 detail ? errdetail("%s", detail) : 0,
			 nearest ? errhint("Perhaps you meant the option \"%s\".", nearest) : 0));
}

/*
 * se_option_integer
 */
int64
se_option_integer(const char *name, const char *value, int64 low, int64 high)
{
	char	   *end;
	int64		number;

	errno = 0;
	number = strtoi64(value, &end, 10);
	if (end == value || *end != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" must be an integer", name)));
	if (errno == ERANGE || number < low || number > high)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" must be between %lld and %lld", name,
						(long long) low, (long long) high)));
	return number;
}

/*
 * se_option_value
 */
const char *
se_option_value(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, name) == 0)
			return defGetString(def);
	}
	return NULL;
}

/*
 * se_user_mapping_options
 */
List *
se_user_mapping_options(Oid userid, Oid serverid)
{
	HeapTuple	tuple;
	Datum		options;
	bool		isnull;
	List	   *result = NIL;

	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
								ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		return NIL;

	options = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions,
							  &isnull);
	if (!isnull)
		result = untransformRelOptions(options);
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Microseconds of an interval.  A month has no fixed length and is refused.
 */
static int64
interval_option(const char *name, const char *value)
{
	Interval   *interval;
	int64		result;

	interval = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(value),
													 ObjectIdGetDatum(InvalidOid),
													 Int32GetDatum(-1)));
	if (interval->month != 0 || SE_INTERVAL_NOT_FINITE(interval))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" must have a fixed length", name),
				 errdetail("Months and years vary in length; a day counts as 24 hours.")));
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &result) ||
		pg_add_s64_overflow(result, interval->time, &result))
		ereport(ERROR,
				(errcode(ERRCODE_INTERVAL_FIELD_OVERFLOW),
				 errmsg("option \"%s\" is out of range", name)));
	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" must not be negative", name)));
	/* sums of times and options do not overflow */
	if (result > MAX_INTERVAL_DAYS * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" must not exceed %d days", name, MAX_INTERVAL_DAYS)));
	pfree(interval);
	return result;
}

static int64
size_option(const char *name, const char *value)
{
	int64		result;

	result = DatumGetInt64(DirectFunctionCall1(pg_size_bytes,
											   PointerGetDatum(cstring_to_text(value))));
	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" must not be negative", name)));
	return result;
}

static TimestampTz
timestamp_in_zone(const char *value, pg_tz *zone)
{
	pg_tz	   *saved = session_timezone;
	volatile TimestampTz result = 0;

	PG_TRY();
	{
		session_timezone = zone;
		result = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(value),
														 ObjectIdGetDatum(InvalidOid),
														 Int32GetDatum(-1)));
	}
	PG_FINALLY();
	{
		session_timezone = saved;
	}
	PG_END_TRY();

	return result;
}

/* Whether "value" is of the form {"0": 1200, "1": 0}, which are offsets by partition. */
static bool
is_offsets(const char *value)
{
	Jsonb	   *jsonb;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	part;

	if (value[strspn(value, " ")] != '{')
		return false;
	jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(value)));
	iterator = JsonbIteratorInit(&jsonb->root);
	while ((token = JsonbIteratorNext(&iterator, &part, true)) != WJB_DONE)
	{
		char	   *digits;

		if (token != WJB_KEY && token != WJB_VALUE)
			continue;
		if (token == WJB_KEY)
			digits = pnstrdup(part.val.string.val, part.val.string.len);
		else if (part.type == jbvNumeric)
			digits = numeric_normalize(part.val.numeric);
		else
			return false;
		if (digits[0] == '\0' || digits[strspn(digits, "0123456789")] != '\0' ||
			strlen(digits) > (token == WJB_KEY ? 9 : 18))
			return false;
	}
	return true;
}

/*
 * A start must mean the same in every session: no now, no missing zone.  Two
 * readings in different zones tell whether the text has one.
 */
static void
check_start(const char *name, const char *value)
{
	TimestampTz reading;

	if (strcmp(value, "earliest") == 0 || strcmp(value, "latest") == 0 || is_offsets(value))
		return;
	if (value[0] < '0' || value[0] > '9')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
				 errhint("Valid values are \"earliest\", \"latest\", a timestamp with time zone, "
						 "and offsets by partition as in {\"0\": 1200, \"1\": 0}.")));
	reading = timestamp_in_zone(value, pg_tzset("GMT"));
	if (reading != timestamp_in_zone(value, pg_tzset("Etc/GMT+5")))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" needs a time zone", name),
				 errhint("Write it as \"%s+00\" if it is in UTC.", value)));
}

static void
check_topic(const char *name, const char *value)
{
	size_t		length = strlen(value);

	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" must not be empty", name)));
	if (length > 249 || strcmp(value, ".") == 0 || strcmp(value, "..") == 0 ||
		strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != length)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a valid topic name", value),
				 errdetail("A topic's name has at most 249 letters, digits, dots, underscores "
						   "and hyphens.")));
}

static void
check_one_of(const char *name, const char *value, const char *const *allowed)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; allowed[i] != NULL; i++)
	{
		if (strcmp(value, allowed[i]) == 0)
			return;
		appendStringInfo(&list, "%s\"%s\"", i == 0 ? "" : ", ", allowed[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
			 errhint("Valid values are: %s.", list.data)));
}

/*
 * se_stream_option_names
 */
int
se_stream_option_names(int place, const char **names, int max)
{
	int			n = 0;

	for (int i = 0; i < lengthof(stream_options) && n < max; i++)
	{
		if (stream_options[i].place & place)
			names[n++] = stream_options[i].name;
	}
	return n;
}

/*
 * se_stream_option_check
 */
bool
se_stream_option_check(const char *name, const char *value, int place)
{
	static const char *const formats[] = {"json", NULL};
	static const char *const actions[] = {"dead_letter", "pause", "skip", NULL};
	static const char *const epochs[] = {"s", "ms", "us", NULL};
	const StreamOption *option = NULL;

	for (int i = 0; i < lengthof(stream_options); i++)
	{
		if (strcmp(stream_options[i].name, name) == 0)
			option = &stream_options[i];
	}
	if (option == NULL)
		return false;
	if ((option->place & place) == 0)
		se_invalid_option(name, place,
						  psprintf("This option belongs on the %s.",
								   se_option_place_name(option->place)), NULL);

	switch (option->kind)
	{
		case OPTION_TEXT:
			if (value[0] == '\0')
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"%s\" must not be empty", name)));
			break;
		case OPTION_TOPIC:
			check_topic(name, value);
			break;
		case OPTION_FORMAT:
			check_one_of(name, value, formats);
			break;
		case OPTION_START:
			check_start(name, value);
			break;
		case OPTION_INTERVAL:
			(void) interval_option(name, value);
			break;
		case OPTION_SIZE:
			(void) size_option(name, value);
			break;
		case OPTION_INTEGER:
			(void) se_option_integer(name, value, option->low, option->high);
			break;
		case OPTION_ON_ERROR:
			check_one_of(name, value, actions);
			break;
		case OPTION_PATH:
			if (value[0] != '$')
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
						 errhint("A path begins with \"$\", as in \"$.user.id\".")));
			break;
		case OPTION_EPOCH:
			check_one_of(name, value, epochs);
			break;
	}
	return true;
}

/*
 * se_stream_options
 */
void
se_stream_options(Oid relid, SeStreamOptions *out)
{
	ForeignTable *table = GetForeignTable(relid);
	ListCell   *cell;

	if (!se_source_is_stream_server(table->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream", get_rel_name(relid))));

	memset(out, 0, sizeof(*out));
	out->topic = pstrdup("");
	out->format = pstrdup("json");
	out->watermark_delay = 5 * USECS_PER_SEC;
	out->idle_timeout = 30 * USECS_PER_SEC;
	out->idle_close = -1;
	out->max_future = 5 * USECS_PER_MINUTE;
	out->staging_retention = 10 * USECS_PER_MINUTE;
	out->staging_max_size = INT64CONST(1024) * 1024 * 1024;
	out->start = pstrdup("earliest");
	out->on_error = pstrdup("dead_letter");
	out->on_error_limit = -1;
	out->workers = 1;

	foreach(cell, table->options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		const char *name = def->defname;
		char	   *value = defGetString(def);

		if (!se_stream_option_check(name, value, SE_ON_TABLE))
			continue;			/* the source's own */

		if (strcmp(name, "topic") == 0)
			out->topic = pstrdup(value);
		else if (strcmp(name, "format") == 0)
			out->format = pstrdup(value);
		else if (strcmp(name, "event_time") == 0)
			out->event_time = pstrdup(value);
		else if (strcmp(name, "watermark_delay") == 0)
			out->watermark_delay = interval_option(name, value);
		else if (strcmp(name, "idle_timeout") == 0)
			out->idle_timeout = interval_option(name, value);
		else if (strcmp(name, "idle_close") == 0)
			out->idle_close = interval_option(name, value);
		else if (strcmp(name, "max_future") == 0)
			out->max_future = interval_option(name, value);
		else if (strcmp(name, "staging_retention") == 0)
			out->staging_retention = interval_option(name, value);
		else if (strcmp(name, "staging_max_size") == 0)
			out->staging_max_size = size_option(name, value);
		else if (strcmp(name, "start") == 0)
			out->start = pstrdup(value);
		else if (strcmp(name, "on_error") == 0)
			out->on_error = pstrdup(value);
		else if (strcmp(name, "on_error_limit") == 0)
			out->on_error_limit = (int) se_option_integer(name, value, 0, PG_INT32_MAX);
		else if (strcmp(name, "workers") == 0)
			out->workers = (int) se_option_integer(name, value, 1, MAX_WORKERS_OF_STREAM);
	}

	/* the clock is never late */
	out->processing_time = out->event_time != NULL &&
		strcmp(out->event_time, "processing_time") == 0;
	if (out->processing_time)
		out->watermark_delay = 0;
}
