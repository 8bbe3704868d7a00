/*
 * kadmin.c
 *	  Topic administration through librdkafka's Admin API.
 *
 * NOTES
 *	  Kafka's own tools start a JVM for each command, which takes a second or
 *	  two; this takes milliseconds.  Commands return when the change can be
 *	  seen in the broker's metadata, so that a caller need not wait.
 *
 *	  AlterConfigs of librdkafka 2.0.2 replaces all of a topic's settings;
 *	  "alter" therefore reads the ones that are set and sends them along.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

#define REQUEST_TIMEOUT_MS 20000

static const char *usage =
"kadmin: Kafka topic administration for the tests.\n"
"\n"
"Usage: kadmin [-X PROPERTY=VALUE]... COMMAND ...\n"
"\n"
"  wait BOOTSTRAP SECONDS                      until a broker answers\n"
"  create BOOTSTRAP TOPIC PARTITIONS [CONFIG=VALUE]...\n"
"  alter BOOTSTRAP TOPIC CONFIG=VALUE...       an empty VALUE restores the default\n"
"  config BOOTSTRAP TOPIC                      the settings that are not defaults\n"
"  delete BOOTSTRAP TOPIC\n"
"  add-partitions BOOTSTRAP TOPIC TOTAL\n"
"  delete-records BOOTSTRAP TOPIC PARTITION OFFSET   (-1: all)\n"
"  offsets BOOTSTRAP TOPIC                     partition, low, high: one line each\n"
"  topics BOOTSTRAP                            topic, partitions: one line each\n"
"  freeport [COUNT]                            TCP ports that are free on 127.0.0.1\n";

static char **properties;
static int	property_count;

static rd_kafka_t *
connect_to(const char *brokers)
{
	rd_kafka_conf_t *conf = conf_new(brokers);

	conf_set(conf, "reconnect.backoff.ms", "20");
	conf_set(conf, "reconnect.backoff.max.ms", "200");
	conf_set(conf, "topic.metadata.propagation.max.ms", "0");
	for (int i = 0; i < property_count; i++)
		conf_option(conf, properties[i]);
	return client_new(RD_KAFKA_PRODUCER, conf);
}

static rd_kafka_AdminOptions_t *
admin_options(rd_kafka_t *rk, rd_kafka_admin_op_t operation)
{
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, operation);
	char		error[512];

	if (rd_kafka_AdminOptions_set_request_timeout(options, REQUEST_TIMEOUT_MS,
												  error, sizeof(error)))
		die("%s", error);

	/* The broker's own wait until a change has spread in the cluster. */
	if ((operation == RD_KAFKA_ADMIN_OP_CREATETOPICS ||
		 operation == RD_KAFKA_ADMIN_OP_DELETETOPICS ||
		 operation == RD_KAFKA_ADMIN_OP_CREATEPARTITIONS ||
		 operation == RD_KAFKA_ADMIN_OP_DELETERECORDS) &&
		rd_kafka_AdminOptions_set_operation_timeout(options, REQUEST_TIMEOUT_MS,
													error, sizeof(error)))
		die("%s", error);
	return options;
}

/* The answer to an admin request; dies if the request as a whole failed. */
static rd_kafka_event_t *
await(rd_kafka_queue_t *queue)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, REQUEST_TIMEOUT_MS + 5000);

	if (event == NULL)
		die("no answer from the broker");
	if (rd_kafka_event_error(event))
		die("%s", rd_kafka_event_error_string(event));
	return event;
}

static void
check_topics(const rd_kafka_topic_result_t **results, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (rd_kafka_topic_result_error(results[i]))
			die("topic \"%s\": %s", rd_kafka_topic_result_name(results[i]),
				rd_kafka_topic_result_error_string(results[i]) ?
				rd_kafka_topic_result_error_string(results[i]) :
				rd_kafka_err2str(rd_kafka_topic_result_error(results[i])));
}

static void
check_configs(const rd_kafka_ConfigResource_t **resources, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (rd_kafka_ConfigResource_error(resources[i]))
			die("topic \"%s\": %s", rd_kafka_ConfigResource_name(resources[i]),
				rd_kafka_ConfigResource_error_string(resources[i]) ?
				rd_kafka_ConfigResource_error_string(resources[i]) :
				rd_kafka_err2str(rd_kafka_ConfigResource_error(resources[i])));
}

/*
 * Wait until the metadata shows "wanted" partitions, all with leaders, or
 * (wanted = -1) no such topic.  The admin call has returned, so this takes a
 * few round trips; each is a request, which paces the loop.
 */
static void
await_partitions(rd_kafka_t *rk, const char *topic, int wanted)
{
	int64_t		deadline = monotonic_us() + (int64_t) REQUEST_TIMEOUT_MS * 1000;

	while (topic_partitions(rk, topic, 1000) != wanted)
	{
		if (monotonic_us() > deadline)
			die("topic \"%s\": the change is not in the metadata after %d ms",
				topic, REQUEST_TIMEOUT_MS);
		rd_kafka_poll(rk, 10);
	}
}

static void
command_wait(const char *brokers, const char *seconds)
{
	rd_kafka_t *rk = connect_to(brokers);
	int64_t		deadline;

	deadline = monotonic_us() + parse_int("SECONDS", seconds, 0, 3600) * 1000000;
	for (;;)
	{
		const struct rd_kafka_metadata *metadata;
		rd_kafka_resp_err_t error = rd_kafka_metadata(rk, 0, NULL, &metadata, 500);

		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			int			brokers_up = metadata->broker_cnt;

			rd_kafka_metadata_destroy(metadata);
			if (brokers_up > 0)
				break;
		}
		if (monotonic_us() > deadline)
			die("no broker answers at %s: %s", brokers, rd_kafka_err2str(error));
		rd_kafka_poll(rk, 20);
	}
	rd_kafka_destroy(rk);
}

static void
command_create(const char *brokers, const char *topic, int partitions, char **configs, int count)
{
	rd_kafka_t *rk = connect_to(brokers);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_AdminOptions_t *options = admin_options(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
	char		error[512];
	rd_kafka_NewTopic_t *new;
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		n;

	new = rd_kafka_NewTopic_new(topic, partitions, 1, error, sizeof(error));
	if (new == NULL)
		die("%s", error);
	for (int i = 0; i < count; i++)
	{
		char	   *value = strchr(configs[i], '=');

		if (value == NULL)
			die("\"%s\" is not of the form config=value", configs[i]);
		*value++ = '\0';
		if (rd_kafka_NewTopic_set_config(new, configs[i], value))
			die("config \"%s\" is not accepted", configs[i]);
	}
	rd_kafka_CreateTopics(rk, &new, 1, options, queue);
	event = await(queue);
	results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
	check_topics(results, n);
	await_partitions(rk, topic, partitions);

	rd_kafka_event_destroy(event);
	rd_kafka_NewTopic_destroy(new);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(rk);
}

/*
 * Read the topic's settings that are not defaults; print them, or (alter is
 * not NULL) add them to the resource unless "assignments" names them.
 */
static void
copy_settings(rd_kafka_t *rk, rd_kafka_queue_t *queue, const char *topic,
			  rd_kafka_ConfigResource_t *alter, char **assignments, int count)
{
	rd_kafka_AdminOptions_t *options = admin_options(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_ConfigResource_t *resource;
	const rd_kafka_ConfigResource_t **resources;
	const rd_kafka_ConfigEntry_t **entries;
	rd_kafka_event_t *event;
	size_t		n;

	resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
	rd_kafka_DescribeConfigs(rk, &resource, 1, options, queue);
	event = await(queue);
	resources = rd_kafka_DescribeConfigs_result_resources(
		rd_kafka_event_DescribeConfigs_result(event), &n);
	check_configs(resources, n);

	entries = rd_kafka_ConfigResource_configs(resources[0], &n);
	for (size_t i = 0; i < n; i++)
	{
		const char *name = rd_kafka_ConfigEntry_name(entries[i]);
		const char *value = rd_kafka_ConfigEntry_value(entries[i]);
		bool		named = false;

		if (rd_kafka_ConfigEntry_source(entries[i]) !=
			RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG || value == NULL)
			continue;
		for (int j = 0; j < count; j++)
			named |= strncmp(assignments[j], name, strlen(name)) == 0 &&
				assignments[j][strlen(name)] == '=';
		if (alter == NULL)
			printf("%s=%s\n", name, value);
		else if (!named)
			rd_kafka_ConfigResource_set_config(alter, name, value);
	}
	rd_kafka_event_destroy(event);
	rd_kafka_ConfigResource_destroy(resource);
	rd_kafka_AdminOptions_destroy(options);
}

static void
command_config(const char *brokers, const char *topic)
{
	rd_kafka_t *rk = connect_to(brokers);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);

	copy_settings(rk, queue, topic, NULL, NULL, 0);
	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(rk);
}

static void
command_alter(const char *brokers, const char *topic, char **assignments, int count)
{
	rd_kafka_t *rk = connect_to(brokers);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_AdminOptions_t *options = admin_options(rk, RD_KAFKA_ADMIN_OP_ALTERCONFIGS);
	rd_kafka_ConfigResource_t *resource;
	const rd_kafka_ConfigResource_t **resources;
	rd_kafka_event_t *event;
	size_t		n;

	resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
	copy_settings(rk, queue, topic, resource, assignments, count);
	for (int i = 0; i < count; i++)
	{
		char	   *value = strchr(assignments[i], '=');

		if (value == NULL)
			die("\"%s\" is not of the form config=value", assignments[i]);
		*value++ = '\0';

		/* What is not sent falls back to the default. */
		if (*value != '\0')
			rd_kafka_ConfigResource_set_config(resource, assignments[i], value);
	}
	rd_kafka_AlterConfigs(rk, &resource, 1, options, queue);
	event = await(queue);
	resources = rd_kafka_AlterConfigs_result_resources(
		rd_kafka_event_AlterConfigs_result(event), &n);
	check_configs(resources, n);

	rd_kafka_event_destroy(event);
	rd_kafka_ConfigResource_destroy(resource);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(rk);
}

static void
command_delete(const char *brokers, const char *topic)
{
	rd_kafka_t *rk = connect_to(brokers);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_AdminOptions_t *options = admin_options(rk, RD_KAFKA_ADMIN_OP_DELETETOPICS);
	rd_kafka_DeleteTopic_t *request = rd_kafka_DeleteTopic_new(topic);
	const rd_kafka_topic_result_t **results;
	rd_kafka_event_t *event;
	size_t		n;

	rd_kafka_DeleteTopics(rk, &request, 1, options, queue);
	event = await(queue);
	results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &n);
	check_topics(results, n);
	await_partitions(rk, topic, -1);

	rd_kafka_event_destroy(event);
	rd_kafka_DeleteTopic_destroy(request);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(rk);
}

static void
command_add_partitions(const char *brokers, const char *topic, int total)
{
	rd_kafka_t *rk = connect_to(brokers);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_AdminOptions_t *options = admin_options(rk, RD_KAFKA_ADMIN_OP_CREATEPARTITIONS);
	char		error[512];
	rd_kafka_NewPartitions_t *request;
	const rd_kafka_topic_result_t **results;
	rd_kafka_event_t *event;
	size_t		n;

	request = rd_kafka_NewPartitions_new(topic, total, error, sizeof(error));
	if (request == NULL)
		die("%s", error);
	rd_kafka_CreatePartitions(rk, &request, 1, options, queue);
	event = await(queue);
	results = rd_kafka_CreatePartitions_result_topics(
		rd_kafka_event_CreatePartitions_result(event), &n);
	check_topics(results, n);
	await_partitions(rk, topic, total);

	rd_kafka_event_destroy(event);
	rd_kafka_NewPartitions_destroy(request);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(rk);
}

static void
command_delete_records(const char *brokers, const char *topic, int partition, int64_t offset)
{
	rd_kafka_t *rk = connect_to(brokers);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_AdminOptions_t *options = admin_options(rk, RD_KAFKA_ADMIN_OP_DELETERECORDS);
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	const rd_kafka_topic_partition_list_t *answer;
	rd_kafka_DeleteRecords_t *request;
	rd_kafka_event_t *event;

	rd_kafka_topic_partition_list_add(list, topic, partition)->offset =
		offset < 0 ? RD_KAFKA_OFFSET_END : offset;
	request = rd_kafka_DeleteRecords_new(list);
	rd_kafka_DeleteRecords(rk, &request, 1, options, queue);
	event = await(queue);
	answer = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event));
	for (int i = 0; i < answer->cnt; i++)
		if (answer->elems[i].err)
			die("topic \"%s\" partition %d: %s", topic, (int) answer->elems[i].partition,
				rd_kafka_err2str(answer->elems[i].err));

	rd_kafka_event_destroy(event);
	rd_kafka_DeleteRecords_destroy(request);
	rd_kafka_topic_partition_list_destroy(list);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(rk);
}

static void
command_offsets(const char *brokers, const char *topic)
{
	rd_kafka_t *rk = connect_to(brokers);
	int			partitions = topic_partitions(rk, topic, REQUEST_TIMEOUT_MS);

	if (partitions < 0)
		die("topic \"%s\": %s", topic, partitions == -2 ? "no broker answers" : "does not exist");
	for (int partition = 0; partition < partitions; partition++)
	{
		int64_t		low;
		int64_t		high;
		rd_kafka_resp_err_t error;

		error = rd_kafka_query_watermark_offsets(rk, topic, partition, &low, &high,
												 REQUEST_TIMEOUT_MS);
		if (error)
			die("topic \"%s\" partition %d: %s", topic, partition, rd_kafka_err2str(error));
		printf("%d %lld %lld\n", partition, (long long) low, (long long) high);
	}
	rd_kafka_destroy(rk);
}

static void
command_topics(const char *brokers)
{
	rd_kafka_t *rk = connect_to(brokers);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t error;

	error = rd_kafka_metadata(rk, 1, NULL, &metadata, REQUEST_TIMEOUT_MS);
	if (error)
		die("no broker answers at %s: %s", brokers, rd_kafka_err2str(error));
	for (int i = 0; i < metadata->topic_cnt; i++)
		printf("%s %d\n", metadata->topics[i].topic, metadata->topics[i].partition_cnt);
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_destroy(rk);
}

/*
 * Ports below the range from which the kernel takes those of outgoing
 * connections, so that a broker finds its port free again after a restart.
 * The sockets are held open until the last port is known, so that all differ.
 */
static void
command_freeport(int count)
{
	const int	low = 15000;
	const int	high = 32000;

	srand48(wall_us() ^ ((int64_t) getpid() << 20));
	for (int i = 0, tries = 0; i < count; tries++)
	{
		struct sockaddr_in address = {.sin_family = AF_INET};
		int			port = low + lrand48() % (high - low);
		int			fd = socket(AF_INET, SOCK_STREAM, 0);

		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		address.sin_port = htons(port);
		if (fd >= 0 && bind(fd, (struct sockaddr *) &address, sizeof(address)) == 0)
		{
			printf("%d\n", port);
			i++;
			continue;
		}
		if (fd < 0 || tries > 1000)
			die("no free port: %m");
		close(fd);
	}
}

int
main(int argc, char **argv)
{
	const char *command;
	int			opt;

	tool_name = "kadmin";
	properties = xcalloc(argc, sizeof(char *));
	while ((opt = getopt(argc, argv, "+X:h")) != -1)
	{
		if (opt == 'X')
			properties[property_count++] = optarg;
		else
		{
			fputs(usage, opt == 'h' ? stdout : stderr);
			return opt == 'h' ? 0 : 2;
		}
	}
	argv += optind;
	argc -= optind;
	command = argc > 0 ? argv[0] : "";

	if (strcmp(command, "wait") == 0 && argc == 3)
		command_wait(argv[1], argv[2]);
	else if (strcmp(command, "create") == 0 && argc >= 4)
		command_create(argv[1], argv[2], parse_int("PARTITIONS", argv[3], 1, 100000),
					   argv + 4, argc - 4);
	else if (strcmp(command, "alter") == 0 && argc >= 4)
		command_alter(argv[1], argv[2], argv + 3, argc - 3);
	else if (strcmp(command, "config") == 0 && argc == 3)
		command_config(argv[1], argv[2]);
	else if (strcmp(command, "delete") == 0 && argc == 3)
		command_delete(argv[1], argv[2]);
	else if (strcmp(command, "add-partitions") == 0 && argc == 4)
		command_add_partitions(argv[1], argv[2], parse_int("TOTAL", argv[3], 1, 100000));
	else if (strcmp(command, "delete-records") == 0 && argc == 5)
		command_delete_records(argv[1], argv[2], parse_int("PARTITION", argv[3], 0, 100000),
							   parse_int("OFFSET", argv[4], -1, INT64_MAX));
	else if (strcmp(command, "offsets") == 0 && argc == 3)
		command_offsets(argv[1], argv[2]);
	else if (strcmp(command, "topics") == 0 && argc == 2)
		command_topics(argv[1]);
	else if (strcmp(command, "freeport") == 0 && argc <= 2)
		command_freeport(argc == 2 ? parse_int("COUNT", argv[1], 1, 100) : 1);
	else
	{
		fputs(usage, stderr);
		return 2;
	}
	return 0;
}
