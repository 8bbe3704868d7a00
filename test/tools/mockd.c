/*
 * mockd.c
 *	  librdkafka's mock cluster as a helper process, driven by lines on stdin.
 *
 * NOTES
 *	  The brokers listen on loopback, so that any process can use them.  The
 *	  first line on stdout is "bootstrap=HOST:PORT,...".  Each command is
 *	  answered by one line, "ok ..." or "error: ...", when it has taken effect.
 *	  End of input ends the process: a driver that dies leaves nothing behind.
 *
 *	  What the mock cannot do is in README.md; a partition keeps about 5 MB.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

#include <librdkafka/rdkafka_mock.h>

#define MESSAGE_TIMEOUT_MS "20000"

static const char *usage =
"mockd: a mock Kafka cluster driven by lines on stdin.\n"
"\n"
"Usage: mockd [-n BROKERS] [-X PROPERTY=VALUE]...   (the properties are of its producer)\n"
"\n"
"Commands:\n"
"  create TOPIC PARTITIONS\n"
"  produce TOPIC PARTITION KEY VALUE     KEY - and VALUE \\N are NULL; VALUE is the rest of the line\n"
"  produceat TOPIC PARTITION TIMESTAMP_MS KEY VALUE\n"
"  producefile TOPIC FILE                lines: partition<TAB>timestamp_ms<TAB>value\n"
"  offsets TOPIC                         answers ok LOW:HIGH for each partition\n"
"  down BROKER | up BROKER               -1: all\n"
"  leader TOPIC PARTITION BROKER         -1: none\n"
"  rtt MS [BROKER]                       delay of each answer\n"
"  topicerror TOPIC ERROR                in metadata; 0 ends it\n"
"  error APIKEY ERROR [COUNT]            of the next requests; 1 is Fetch, 3 Metadata; -195 disconnects\n"
"  noerror APIKEY\n"
"  apiversion APIKEY MIN MAX             -1 -1: not offered\n"
"  quit\n";

/* Messages that were produced but not delivered since the last command began. */
static int64_t failed;
static rd_kafka_resp_err_t last_failure;

static rd_kafka_t *producer;
static rd_kafka_mock_cluster_t *cluster;

static void
delivered(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	if (message->err)
	{
		failed++;
		last_failure = message->err;
	}
}

static void
answer(rd_kafka_resp_err_t error)
{
	if (error)
		printf("error: %s\n", rd_kafka_err2str(error));
	else
		printf("ok\n");
}

/* Cut the next word off *rest; NULL if there is none. */
static char *
next_word(char **rest)
{
	char	   *start = *rest;

	while (isspace((unsigned char) *start))
		start++;
	if (*start == '\0')
		return NULL;
	*rest = start;
	while (**rest != '\0' && !isspace((unsigned char) **rest))
		(*rest)++;
	if (**rest != '\0')
		*(*rest)++ = '\0';
	return start;
}

/* As parse_int(), but a bad number is the command's error, not the program's end. */
static bool
number(const char *text, int64_t *value)
{
	char	   *end;

	if (text == NULL)
		return false;
	errno = 0;
	*value = strtoll(text, &end, 10);
	return errno == 0 && end != text && *end == '\0';
}

/*
 * Queue one message; it is copied.  A full queue is drained first.  Returns an
 * error only for what will never work.
 */
static rd_kafka_resp_err_t
enqueue(const char *topic, int32_t partition, int64_t timestamp_ms,
		const char *key, const char *value, size_t length)
{
	rd_kafka_resp_err_t error;

	for (;;)
	{
		error = rd_kafka_producev(producer,
								  RD_KAFKA_V_TOPIC(topic),
								  RD_KAFKA_V_PARTITION(partition),
								  RD_KAFKA_V_TIMESTAMP(timestamp_ms),
								  RD_KAFKA_V_KEY(key, key ? strlen(key) : 0),
								  RD_KAFKA_V_VALUE((void *) value, length),
								  RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
								  RD_KAFKA_V_END);
		if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			return error;
		rd_kafka_poll(producer, 100);
	}
}

/* Wait for the delivery of all that was queued, and answer with their number. */
static void
finish_producing(int64_t count, rd_kafka_resp_err_t error)
{
	rd_kafka_flush(producer, -1);
	if (error)
		answer(error);
	else if (failed > 0)
		printf("error: %lld of %lld messages were not delivered: %s\n",
			   (long long) failed, (long long) count, rd_kafka_err2str(last_failure));
	else
		printf("ok %lld\n", (long long) count);
}

static void
command_produce(char *rest, bool with_timestamp)
{
	char	   *topic = next_word(&rest);
	char	   *partition_word = next_word(&rest);
	char	   *timestamp_word = with_timestamp ? next_word(&rest) : NULL;
	char	   *key = next_word(&rest);
	int64_t		partition;
	int64_t		timestamp_ms = wall_us() / 1000;
	bool		null;

	if (topic == NULL || key == NULL || !number(partition_word, &partition) ||
		(with_timestamp && !number(timestamp_word, &timestamp_ms)))
	{
		printf("error: produce wants TOPIC PARTITION %sKEY VALUE\n",
			   with_timestamp ? "TIMESTAMP_MS " : "");
		return;
	}
	null = strcmp(rest, "\\N") == 0;
	finish_producing(1, enqueue(topic, partition, timestamp_ms,
								strcmp(key, "-") == 0 ? NULL : key,
								null ? NULL : rest, null ? 0 : strlen(rest)));
}

static void
command_producefile(const char *topic, const char *path)
{
	FILE	   *file = fopen(path, "r");
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		length;
	int64_t		count = 0;
	rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;

	if (file == NULL)
	{
		printf("error: cannot open \"%s\": %m\n", path);
		return;
	}
	while (!error && (length = getline(&line, &size, file)) >= 0)
	{
		char	   *end;
		char	   *value;
		int64_t		partition;
		int64_t		timestamp_ms;
		bool		null;

		if (length > 0 && line[length - 1] == '\n')
			line[--length] = '\0';
		partition = strtoll(line, &end, 10);
		value = end;
		if (*end == '\t')
		{
			timestamp_ms = strtoll(end + 1, &value, 10);
			if (value == end + 1)
				value = end;
		}
		if (end == line || value == end || *value != '\t')
		{
			rd_kafka_flush(producer, -1);
			printf("error: line %lld is not partition<TAB>timestamp_ms<TAB>value\n",
				   (long long) count + 1);
			goto done;
		}
		value++;
		null = strcmp(value, "\\N") == 0;
		error = enqueue(topic, partition, timestamp_ms, NULL, null ? NULL : value,
						null ? 0 : (size_t) (line + length - value));
		count++;
		if (count % 1000 == 0)
			rd_kafka_poll(producer, 0);
	}
	finish_producing(count, error);
done:
	free(line);
	fclose(file);
}

static void
command_offsets(const char *topic)
{
	int			partitions = topic_partitions(producer, topic, 5000);
	int64_t		low;
	int64_t		high;

	if (partitions < 0)
	{
		printf("error: %s\n",
			   partitions == -2 ? "no broker answers" : "no such topic, or no leader");
		return;
	}
	printf("ok");
	for (int partition = 0; partition < partitions; partition++)
	{
		rd_kafka_resp_err_t error;

		error = rd_kafka_query_watermark_offsets(producer, topic, partition, &low, &high, 5000);
		if (error)
			printf(" ?:?");
		else
			printf(" %lld:%lld", (long long) low, (long long) high);
	}
	printf("\n");
}

static void
command_error(int64_t api_key, int64_t error, int64_t count)
{
	rd_kafka_resp_err_t *errors = xcalloc(count, sizeof(*errors));

	for (int64_t i = 0; i < count; i++)
		errors[i] = error;
	rd_kafka_mock_push_request_errors_array(cluster, api_key, count, errors);
	free(errors);
	printf("ok\n");
}

/* Run one command; false ends the program. */
static bool
run(char *line)
{
	char	   *rest = line;
	char	   *command = next_word(&rest);
	char	   *words[5] = {NULL};
	int64_t		n[5] = {0};
	bool		is_number[5] = {false};
	int			count = 0;

	failed = 0;
	if (command == NULL || *command == '#')
		return true;
	if (strcmp(command, "quit") == 0)
		return false;
	if (strcmp(command, "produce") == 0 || strcmp(command, "produceat") == 0)
	{
		command_produce(rest, command[7] != '\0');
		return true;
	}

	while (count < 5 && (words[count] = next_word(&rest)) != NULL)
	{
		is_number[count] = number(words[count], &n[count]);
		count++;
	}

	if (strcmp(command, "create") == 0 && count == 2 && is_number[1])
		answer(rd_kafka_mock_topic_create(cluster, words[0], n[1], 1));
	else if (strcmp(command, "producefile") == 0 && count == 2)
		command_producefile(words[0], words[1]);
	else if (strcmp(command, "offsets") == 0 && count == 1)
		command_offsets(words[0]);
	else if (strcmp(command, "down") == 0 && count == 1 && is_number[0])
		answer(rd_kafka_mock_broker_set_down(cluster, n[0]));
	else if (strcmp(command, "up") == 0 && count == 1 && is_number[0])
		answer(rd_kafka_mock_broker_set_up(cluster, n[0]));
	else if (strcmp(command, "leader") == 0 && count == 3 && is_number[1] && is_number[2])
		answer(rd_kafka_mock_partition_set_leader(cluster, words[0], n[1], n[2]));
	else if (strcmp(command, "rtt") == 0 && is_number[0] && (count == 1 || is_number[1]))
		answer(rd_kafka_mock_broker_set_rtt(cluster, count == 1 ? -1 : n[1], n[0]));
	else if (strcmp(command, "topicerror") == 0 && count == 2 && is_number[1])
	{
		rd_kafka_mock_topic_set_error(cluster, words[0], n[1]);
		printf("ok\n");
	}
	else if (strcmp(command, "error") == 0 && is_number[0] && is_number[1] &&
			 (count == 2 || (is_number[2] && n[2] > 0 && n[2] <= 100000)))
		command_error(n[0], n[1], count == 2 ? 1 : n[2]);
	else if (strcmp(command, "noerror") == 0 && count == 1 && is_number[0])
	{
		rd_kafka_mock_clear_request_errors(cluster, n[0]);
		printf("ok\n");
	}
	else if (strcmp(command, "apiversion") == 0 && count == 3 &&
			 is_number[0] && is_number[1] && is_number[2])
		answer(rd_kafka_mock_set_apiversion(cluster, n[0], n[1], n[2]));
	else
		printf("error: no such command, or wrong arguments: %s\n", command);
	return true;
}

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	int			brokers = 1;
	char		count[16];
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		length;
	int			opt;

	tool_name = "mockd";
	conf_set(conf, "enable.idempotence", "true");
	conf_set(conf, "linger.ms", "1");
	conf_set(conf, "compression.codec", "lz4");
	conf_set(conf, "message.timeout.ms", MESSAGE_TIMEOUT_MS);
	conf_set(conf, "reconnect.backoff.max.ms", "200");
	conf_set(conf, "log_level", "2");
	while ((opt = getopt(argc, argv, "n:X:h")) != -1)
	{
		if (opt == 'n')
			brokers = parse_int("BROKERS", optarg, 1, 32);
		else if (opt == 'X')
			conf_option(conf, optarg);
		else
		{
			fputs(usage, opt == 'h' ? stdout : stderr);
			return opt == 'h' ? 0 : 2;
		}
	}
	snprintf(count, sizeof(count), "%d", brokers);
	conf_set(conf, "test.mock.num.brokers", count);
	rd_kafka_conf_set_dr_msg_cb(conf, delivered);
	producer = client_new(RD_KAFKA_PRODUCER, conf);
	cluster = rd_kafka_handle_mock_cluster(producer);

	/* A driver reads line by line, over a pipe. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("bootstrap=%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
	while ((length = getline(&line, &size, stdin)) >= 0)
	{
		if (length > 0 && line[length - 1] == '\n')
			line[length - 1] = '\0';
		if (!run(line))
			break;
	}
	free(line);

	/* Nothing outlives the process, so the cluster need not be taken down in order. */
	fflush(stdout);
	_exit(0);
}
