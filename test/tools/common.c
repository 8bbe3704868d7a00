/*
 * common.c
 *	  What the test tools share: errors, numbers, librdkafka configurations.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "common.h"

const char *tool_name = "tool";

void
die(const char *format,...)
{
	va_list		args;

	fflush(stdout);
	fprintf(stderr, "%s: ", tool_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

int64_t
parse_int(const char *what, const char *text, int64_t low, int64_t high)
{
	char	   *end;
	long long	value;

	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || value < low || value > high)
		die("%s: \"%s\" is not a whole number between %lld and %lld",
			what, text, (long long) low, (long long) high);
	return value;
}

double
parse_double(const char *what, const char *text, double low, double high)
{
	char	   *end;
	double		value;

	errno = 0;
	value = strtod(text, &end);
	if (errno != 0 || end == text || *end != '\0' || !(value >= low && value <= high))
		die("%s: \"%s\" is not a number between %g and %g", what, text, low, high);
	return value;
}

void *
xcalloc(size_t count, size_t size)
{
	void	   *memory = calloc(count, size);

	if (memory == NULL)
		die("out of memory");
	return memory;
}

char *
xstrdup(const char *text)
{
	char	   *copy = strdup(text);

	if (copy == NULL)
		die("out of memory");
	return copy;
}

static int64_t
clock_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t
wall_us(void)
{
	return clock_us(CLOCK_REALTIME);
}

int64_t
monotonic_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

int64_t
cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (int64_t) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
		usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

void
conf_set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[512];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
		die("%s", error);
}

rd_kafka_conf_t *
conf_new(const char *brokers)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	if (brokers == NULL || *brokers == '\0')
		die("no bootstrap servers given");
	conf_set(conf, "bootstrap.servers", brokers);

	/* The tools report errors themselves; connection attempts are not errors. */
	conf_set(conf, "log_level", "2");
	conf_set(conf, "log.connection.close", "false");
	conf_set(conf, "client.id", tool_name);
	return conf;
}

void
conf_option(rd_kafka_conf_t *conf, const char *assignment)
{
	char	   *name = xstrdup(assignment);
	char	   *value = strchr(name, '=');

	if (value == NULL)
		die("\"%s\" is not of the form property=value", assignment);
	*value++ = '\0';
	conf_set(conf, name, value);
	free(name);
}

rd_kafka_t *
client_new(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
	char		error[512];
	rd_kafka_t *rk = rd_kafka_new(type, conf, error, sizeof(error));

	if (rk == NULL)
		die("%s", error);
	return rk;
}

int
topic_partitions(rd_kafka_t *rk, const char *topic, int timeout_ms)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, topic, NULL);
	int			result = -1;

	if (handle == NULL)
		die("topic \"%s\": %s", topic, rd_kafka_err2str(rd_kafka_last_error()));
	if (rd_kafka_metadata(rk, 0, handle, &metadata, timeout_ms) != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_topic_destroy(handle);
		return -2;
	}
	if (metadata->topic_cnt == 1 && metadata->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		result = metadata->topics[0].partition_cnt;
		for (int i = 0; i < metadata->topics[0].partition_cnt; i++)
			if (metadata->topics[0].partitions[i].leader < 0)
				result = -1;
		if (result == 0)
			result = -1;
	}
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(handle);
	return result;
}
