/*
 * latency.c
 *	  Measure how long after its end a window's rows are committed and visible.
 *
 * Usage: latency CONNINFO RESULT_TABLE WINDOWS INTERVAL_US [BROKERS TOPIC]
 *
 * NOTES
 *	  A client of the result table polls for windows that it has not seen, each
 *	  poll a statement with a snapshot of its own.  The latency of a window is
 *	  the client's clock when the answer has arrived, minus the window's end; the
 *	  polling interval is part of it.  The records' event times come from the
 *	  same machine's clock.
 *
 *	  Beside it two things are measured that are none of the engine's doing, so
 *	  that a bad machine can be told from a bad engine.  The arrival: when a plain
 *	  consumer in this process has been handed the record that the window waits
 *	  for, which is the last, over the partitions, of the first records from after
 *	  its end.  And the commit: how long a transaction takes, some time after the
 *	  window was seen, that logs a few bytes and does nothing else.
 *
 *	  Prints "ready", and then for each window a line: its end in microseconds
 *	  since 1970, and in microseconds the latency, the arrival after the window's
 *	  end (-1 without a topic, or if it is not known), and the commit before it.  The
 *	  first window seen is not counted: it may have been there before.  Ends after
 *	  WINDOWS windows, or when none has come for a minute.  Windows must end at
 *	  whole seconds; event times stand in the records as in those of orders.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#include "../tools/common.h"

#define SECOND INT64_C(1000000)

/* Arrivals are known of so many last seconds. */
#define SECONDS_KEPT 256

/* The commit is tried so long after a window was seen: windows follow each other by a second. */
#define COMMIT_AFTER (SECOND / 2)

typedef struct Arrival
{
	int64_t		second;			/* since 1970 */
	int			partitions;		/* that have a record from then or later */
	int64_t		when;			/* the last of them, by the clock */
} Arrival;

static PGconn *connection;

static pthread_mutex_t arrivals_lock = PTHREAD_MUTEX_INITIALIZER;
static Arrival arrivals[SECONDS_KEPT];
static int	npartitions;
static rd_kafka_t *consumer;

/* ---- arrivals ---- */

/* The second of a record's event time, its last one known before; 0 if it has none. */
static int64_t
event_second(const rd_kafka_message_t *message)
{
	static char known[20];
	static int64_t known_second;
	const char *text = memmem(message->payload, message->len, "\"ts\":\"", 6);
	struct tm	tm = {0};

	if (text == NULL || text + 6 + 19 > (const char *) message->payload + message->len)
		return 0;
	if (memcmp(text + 6, known, 19) != 0)
	{
		memcpy(known, text + 6, 19);
		if (strptime(known, "%Y-%m-%dT%H:%M:%S", &tm) == NULL)
			die("an event time is not one of orders: \"%s\"", known);
		known_second = (int64_t) timegm(&tm);
	}
	return known_second;
}

/* A partition has its first record from "second" or later. */
static void
note_arrival(int64_t second, int64_t now)
{
	Arrival    *arrival = &arrivals[second % SECONDS_KEPT];

	pthread_mutex_lock(&arrivals_lock);
	if (arrival->second != second)
		*arrival = (Arrival) {.second = second};
	arrival->partitions++;
	arrival->when = now;
	pthread_mutex_unlock(&arrivals_lock);
}

static void
consumed(rd_kafka_message_t *message, void *opaque)
{
	int64_t    *last = opaque;
	int64_t		second;

	if (message->err)
		return;
	last += message->partition;
	second = event_second(message);
	/* what was there at the start is not new */
	if (*last == 0)
		*last = second;
	while (*last < second)
		note_arrival(++*last, wall_us());
}

static void *
consume(void *queue)
{
	int64_t    *last = xcalloc(npartitions, sizeof(int64_t));

	for (;;)
		rd_kafka_consume_callback_queue(queue, 1000, consumed, last);
	return NULL;
}

static void
start_consumer(const char *brokers, const char *topic)
{
	rd_kafka_conf_t *conf = conf_new(brokers);
	rd_kafka_topic_partition_list_t *assignment;
	pthread_t	thread;

	conf_set(conf, "group.id", "latency");
	conf_set(conf, "enable.auto.commit", "false");
	conf_set(conf, "enable.auto.offset.store", "false");
	consumer = client_new(RD_KAFKA_CONSUMER, conf);
	rd_kafka_poll_set_consumer(consumer);
	npartitions = topic_partitions(consumer, topic, 10000);
	if (npartitions < 0)
		die("cannot read topic \"%s\"", topic);
	assignment = rd_kafka_topic_partition_list_new(npartitions);
	for (int i = 0; i < npartitions; i++)
		rd_kafka_topic_partition_list_add(assignment, topic, i)->offset = RD_KAFKA_OFFSET_END;
	if (rd_kafka_assign(consumer, assignment) != RD_KAFKA_RESP_ERR_NO_ERROR)
		die("cannot assign the partitions of topic \"%s\"", topic);
	rd_kafka_topic_partition_list_destroy(assignment);
	if (pthread_create(&thread, NULL, consume, rd_kafka_queue_get_consumer(consumer)) != 0)
		die("cannot start a thread");
}

/* When the record came that the window ending at "end" waits for, after the end; -1: unknown. */
static int64_t
arrival_after(int64_t end)
{
	Arrival    *arrival = &arrivals[end / SECOND % SECONDS_KEPT];
	int64_t		result = -1;

	pthread_mutex_lock(&arrivals_lock);
	if (npartitions > 0 && arrival->second == end / SECOND && arrival->partitions == npartitions)
		result = arrival->when - end;
	pthread_mutex_unlock(&arrivals_lock);
	return result;
}

/* ---- the result table ---- */

static void
check(PGresult *result, ExecStatusType wanted, const char *what)
{
	if (PQresultStatus(result) != wanted)
		die("%s: %s", what, PQerrorMessage(connection));
}

/* Microseconds of a transaction that logs something and does nothing. */
static int64_t
commit_duration(void)
{
	int64_t		start = monotonic_us();
	PGresult   *result = PQexec(connection, "SELECT pg_logical_emit_message(true, 'latency', '')");

	check(result, PGRES_TUPLES_OK, "cannot write to the log");
	PQclear(result);
	return monotonic_us() - start;
}

int
main(int argc, char **argv)
{
	PGresult   *prepared;
	char	   *table;
	char		query[512];
	char		last[32] = "0";
	int64_t		windows;
	int64_t		interval;
	int64_t		seen = 0;
	int64_t		last_news;
	int64_t		commit = -1;

	tool_name = "latency";
	if (argc != 5 && argc != 7)
	{
		fprintf(stderr, "usage: latency CONNINFO RESULT_TABLE WINDOWS INTERVAL_US [BROKERS TOPIC]\n");
		return 2;
	}
	windows = parse_int("WINDOWS", argv[3], 1, 1000000);
	interval = parse_int("INTERVAL_US", argv[4], 1, 10 * SECOND);
	connection = PQconnectdb(argv[1]);
	if (PQstatus(connection) != CONNECTION_OK)
		die("cannot connect: %s", PQerrorMessage(connection));
	table = PQescapeIdentifier(connection, argv[2], strlen(argv[2]));

	/* The start comes first in the table's unique index; the end follows from it. */
	snprintf(query, sizeof(query),
			 "SELECT (extract(epoch FROM window_start) * 1000000)::bigint,"
			 " (extract(epoch FROM window_end) * 1000000)::bigint"
			 " FROM %s WHERE window_start > 'epoch'::timestamptz + $1::bigint * interval '1 microsecond'"
			 " GROUP BY window_start, window_end ORDER BY 1", table);
	prepared = PQprepare(connection, "poll", query, 1, NULL);
	check(prepared, PGRES_COMMAND_OK, "cannot read the result table");
	PQclear(prepared);
	if (argc == 7)
		start_consumer(argv[5], argv[6]);

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready\n");
	last_news = wall_us();
	while (seen < windows)
	{
		const char *values[1] = {last};
		PGresult   *result = PQexecPrepared(connection, "poll", 1, values, NULL, NULL, 0);
		int64_t		now = wall_us();
		struct timespec pause = {interval / SECOND, interval % SECOND * 1000};

		check(result, PGRES_TUPLES_OK, "cannot read the result table");
		for (int i = 0; i < PQntuples(result); i++)
		{
			int64_t		end = strtoll(PQgetvalue(result, i, 1), NULL, 10);

			if (strcmp(last, "0") != 0)
			{
				printf("%lld %lld %lld %lld\n", (long long) end, (long long) (now - end),
					   (long long) arrival_after(end), (long long) commit);
				seen++;
			}
			snprintf(last, sizeof(last), "%s", PQgetvalue(result, i, 0));
			last_news = now;
			commit = -1;
		}
		PQclear(result);
		if (commit < 0 && now - last_news > COMMIT_AFTER)
			commit = commit_duration();
		if (now - last_news > 60 * SECOND)
			die("no window has closed for a minute");
		nanosleep(&pause, NULL);
	}
	PQfreemem(table);
	PQfinish(connection);
	return 0;
}
