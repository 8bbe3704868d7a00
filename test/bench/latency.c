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
 *	  its end.  And the commit: how long a transaction takes, on a connection of its
 *	  own, that logs a few bytes and does nothing else.  It is tried at the window's
 *	  end, and every WITNESS_EVERY from there until the window is seen, so that the
 *	  longest of them has met the same stall of the disk, if there was one.  More often
 *	  would have the engine wait for the flushes of these.
 *
 *	  Prints "ready", and then for each window a line: its end in microseconds
 *	  since 1970, and in microseconds the latency, the arrival after the window's
 *	  end (-1 without a topic, or if it is not known), and the longest commit.  The
 *	  windows seen first are not counted: they may have been there before.  Ends after
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

/* So often a commit is tried while a window is waited for; and how often that is looked for. */
#define WITNESS_EVERY (SECOND / 50)
#define WITNESS_LOOKS (SECOND / 1000)

typedef struct Arrival
{
	int64_t		second;			/* since 1970 */
	int			partitions;		/* that have a record from then or later */
	int64_t		when;			/* the last of them, by the clock */
} Arrival;

static PGconn *connection;
static PGconn *witness;

/* Under witness_lock: the last end whose window was seen, and the commits since. */
static pthread_mutex_t witness_lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t seen_end;
static int64_t commit_began;	/* monotonic; 0: none is under way */
static int64_t longest_commit = -1;

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
	/* a queue that is full has some versions of librdkafka sleep for a second */
	conf_set(conf, "queued.min.messages", "10000000");
	conf_set(conf, "queued.max.messages.kbytes", "1048576");
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

static void
pause_us(int64_t us)
{
	struct timespec pause = {us / SECOND, us % SECOND * 1000};

	nanosleep(&pause, NULL);
}

/* ---- commits beside ---- */

/* A transaction that logs something and does nothing. */
static void
try_commit(void)
{
	PGresult   *result;
	int64_t		duration;

	pthread_mutex_lock(&witness_lock);
	commit_began = monotonic_us();
	pthread_mutex_unlock(&witness_lock);
	result = PQexec(witness, "SELECT pg_logical_emit_message(true, 'latency', '')");
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die("cannot write to the log: %s", PQerrorMessage(witness));
	PQclear(result);
	pthread_mutex_lock(&witness_lock);
	duration = monotonic_us() - commit_began;
	if (duration > longest_commit)
		longest_commit = duration;
	commit_began = 0;
	pthread_mutex_unlock(&witness_lock);
}

/* Try commits from the end of the window that is waited for next. */
static void *
try_commits(void *unused)
{
	int64_t		last = 0;

	for (;;)
	{
		int64_t		now = wall_us();
		int64_t		wanted;

		pthread_mutex_lock(&witness_lock);
		wanted = seen_end == 0 ? 0 : seen_end + SECOND;
		pthread_mutex_unlock(&witness_lock);
		if (wanted > 0 && now >= wanted && now - last >= WITNESS_EVERY)
		{
			last = now;
			try_commit();
		}
		else
			pause_us(WITNESS_LOOKS);
	}
	return NULL;
}

/*
 * The longest of the commits until now, with the one under way, when the window ending at
 * "end" has been seen; -1: there was none.
 */
static int64_t
take_commit(int64_t end)
{
	int64_t		result;

	pthread_mutex_lock(&witness_lock);
	result = longest_commit;
	if (commit_began > 0 && monotonic_us() - commit_began > result)
		result = monotonic_us() - commit_began;
	longest_commit = -1;
	seen_end = end;
	pthread_mutex_unlock(&witness_lock);
	return result;
}

/* ---- the client ---- */

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
	pthread_t	thread;

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
	witness = PQconnectdb(argv[1]);
	if (PQstatus(witness) != CONNECTION_OK)
		die("cannot connect: %s", PQerrorMessage(witness));
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
	if (pthread_create(&thread, NULL, try_commits, NULL) != 0)
		die("cannot start a thread");

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready\n");
	last_news = wall_us();
	while (seen < windows)
	{
		const char *values[1] = {last};
		PGresult   *result = PQexecPrepared(connection, "poll", 1, values, NULL, NULL, 0);
		int64_t		now = wall_us();
		int			first = strcmp(last, "0") == 0;

		check(result, PGRES_TUPLES_OK, "cannot read the result table");
		for (int i = 0; i < PQntuples(result); i++)
		{
			int64_t		end = strtoll(PQgetvalue(result, i, 1), NULL, 10);
			int64_t		commit = take_commit(end);

			if (!first)
			{
				printf("%lld %lld %lld %lld\n", (long long) end, (long long) (now - end),
					   (long long) arrival_after(end), (long long) commit);
				seen++;
			}
			snprintf(last, sizeof(last), "%s", PQgetvalue(result, i, 0));
			last_news = now;
		}
		PQclear(result);
		if (now - last_news > 60 * SECOND)
			die("no window has closed for a minute");
		pause_us(interval);
	}
	PQfreemem(table);
	PQfinish(connection);
	return 0;
}
