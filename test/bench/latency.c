/*
 * latency.c
 *	  Measure how long after its end a window's rows are committed and visible.
 *
 * Usage: latency CONNINFO RESULT_TABLE WINDOWS INTERVAL_US
 *
 * NOTES
 *	  A client of the result table polls for windows that it has not seen, each
 *	  poll a statement with a snapshot of its own.  The latency of a window is
 *	  the client's clock when the answer has arrived, minus the window's end; the
 *	  polling interval is part of it.  The records' event times come from the
 *	  same machine's clock.
 *
 *	  Prints "ready", and then for each window a line: its end in microseconds
 *	  since 1970, and the latency in microseconds.  The first window seen is not
 *	  counted: it may have been there before.  Ends after WINDOWS windows, or
 *	  when none has come for a minute.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

static PGconn *connection;

static void
fail(const char *what)
{
	fprintf(stderr, "latency: %s: %s\n", what, PQerrorMessage(connection));
	exit(1);
}

static int64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int
main(int argc, char **argv)
{
	PGresult   *prepared;
	char	   *table;
	char		query[512];
	char		last[32] = "0";
	long		windows;
	long		interval;
	long		seen = 0;
	int64_t		last_news;

	if (argc != 5 || (windows = atol(argv[3])) <= 0 || (interval = atol(argv[4])) <= 0)
	{
		fprintf(stderr, "usage: latency CONNINFO RESULT_TABLE WINDOWS INTERVAL_US\n");
		return 2;
	}
	connection = PQconnectdb(argv[1]);
	if (PQstatus(connection) != CONNECTION_OK)
		fail("cannot connect");
	table = PQescapeIdentifier(connection, argv[2], strlen(argv[2]));

	/* The start comes first in the table's unique index; the end follows from it. */
	snprintf(query, sizeof(query),
			 "SELECT (extract(epoch FROM window_start) * 1000000)::bigint,"
			 " (extract(epoch FROM window_end) * 1000000)::bigint"
			 " FROM %s WHERE window_start > 'epoch'::timestamptz + $1::bigint * interval '1 microsecond'"
			 " GROUP BY window_start, window_end ORDER BY 1", table);
	prepared = PQprepare(connection, "poll", query, 1, NULL);
	if (PQresultStatus(prepared) != PGRES_COMMAND_OK)
		fail("cannot read the result table");
	PQclear(prepared);

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready\n");
	last_news = now_us();
	while (seen < windows)
	{
		const char *values[1] = {last};
		PGresult   *result = PQexecPrepared(connection, "poll", 1, values, NULL, NULL, 0);
		int64_t		now = now_us();
		struct timespec pause = {interval / 1000000, interval % 1000000 * 1000};

		if (PQresultStatus(result) != PGRES_TUPLES_OK)
			fail("cannot read the result table");
		for (int i = 0; i < PQntuples(result); i++)
		{
			int64_t		end = strtoll(PQgetvalue(result, i, 1), NULL, 10);

			if (strcmp(last, "0") != 0)
			{
				printf("%lld %lld\n", (long long) end, (long long) (now - end));
				seen++;
			}
			snprintf(last, sizeof(last), "%s", PQgetvalue(result, i, 0));
			last_news = now;
		}
		PQclear(result);
		if (now - last_news > 60 * INT64_C(1000000))
		{
			fprintf(stderr, "latency: no window has closed for a minute\n");
			return 1;
		}
		nanosleep(&pause, NULL);
	}
	PQfreemem(table);
	PQfinish(connection);
	return 0;
}
