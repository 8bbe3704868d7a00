/*
 * consume_raw.c
 *	  Consume a topic from the beginning to the end and do nothing with it: the
 *	  baseline that the engine's cost is compared with.
 *
 * NOTES
 *	  Uses librdkafka as the engine does: assign() at the first offset, batches
 *	  from the consumer's queue, the same queue limits.  A partition is done at
 *	  its end-of-partition event.  CPU is that of all threads of the process,
 *	  from before the client is made until it is gone.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

#define MAX_BATCH 10000

static const char *usage =
"consume_raw: consume a topic, count its messages, print what that cost.\n"
"\n"
"Usage: consume_raw [OPTION]... BOOTSTRAP TOPIC\n"
"\n"
"  -n N                 messages per batch (1000)\n"
"  -X PROPERTY=VALUE    of the consumer\n"
"  -j                   print JSON\n"
"\n"
"Defaults: queued.min.messages=100000, queued.max.messages.kbytes=65536.\n";

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf;
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	rd_kafka_topic_partition_list_t *assignment;
	rd_kafka_message_t *batch[MAX_BATCH];
	char	  **properties = xcalloc(argc, sizeof(char *));
	int			property_count = 0;
	int			batch_size = 1000;
	bool		json = false;
	int			partitions;
	int			at_end = 0;
	int64_t		messages = 0;
	int64_t		bytes = 0;
	int64_t		wall;
	int64_t		cpu;
	double		cpu_ns;
	int			opt;

	tool_name = "consume_raw";
	while ((opt = getopt(argc, argv, "n:X:jh")) != -1)
	{
		switch (opt)
		{
			case 'n':
				batch_size = parse_int("-n", optarg, 1, MAX_BATCH);
				break;
			case 'X':
				properties[property_count++] = optarg;
				break;
			case 'j':
				json = true;
				break;
			default:
				fputs(usage, opt == 'h' ? stdout : stderr);
				return opt == 'h' ? 0 : 2;
		}
	}
	if (argc - optind != 2)
	{
		fputs(usage, stderr);
		return 2;
	}

	wall = monotonic_us();
	cpu = cpu_us();
	conf = conf_new(argv[optind]);
	conf_set(conf, "group.id", "consume_raw");
	conf_set(conf, "enable.auto.commit", "false");
	conf_set(conf, "enable.auto.offset.store", "false");
	conf_set(conf, "auto.offset.reset", "error");
	conf_set(conf, "enable.partition.eof", "true");
	conf_set(conf, "queued.min.messages", "100000");
	conf_set(conf, "queued.max.messages.kbytes", "65536");
	for (int i = 0; i < property_count; i++)
		conf_option(conf, properties[i]);
	rk = client_new(RD_KAFKA_CONSUMER, conf);
	rd_kafka_poll_set_consumer(rk);
	queue = rd_kafka_queue_get_consumer(rk);

	partitions = topic_partitions(rk, argv[optind + 1], 10000);
	if (partitions < 0)
		die(partitions == -2 ? "no broker answers" : "topic \"%s\" does not exist",
			argv[optind + 1]);
	assignment = rd_kafka_topic_partition_list_new(partitions);
	for (int i = 0; i < partitions; i++)
		rd_kafka_topic_partition_list_add(assignment, argv[optind + 1], i)->offset =
			RD_KAFKA_OFFSET_BEGINNING;
	if (rd_kafka_assign(rk, assignment))
		die("cannot assign the partitions: %s", rd_kafka_err2str(rd_kafka_last_error()));

	while (at_end < partitions)
	{
		ssize_t		n = rd_kafka_consume_batch_queue(queue, 100, batch, batch_size);

		if (n < 0)
			die("cannot consume: %s", rd_kafka_err2str(rd_kafka_last_error()));
		for (ssize_t i = 0; i < n; i++)
		{
			if (!batch[i]->err)
			{
				messages++;
				bytes += batch[i]->len;
			}
			else if (batch[i]->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
				at_end++;
			else if (batch[i]->err != RD_KAFKA_RESP_ERR__TRANSPORT &&
					 batch[i]->err != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
				die("partition %d: %s", (int) batch[i]->partition,
					rd_kafka_message_errstr(batch[i]));
			rd_kafka_message_destroy(batch[i]);
		}
	}
	rd_kafka_topic_partition_list_destroy(assignment);
	rd_kafka_queue_destroy(queue);
	rd_kafka_consumer_close(rk);
	rd_kafka_destroy(rk);
	wall = monotonic_us() - wall;
	cpu = cpu_us() - cpu;

	cpu_ns = messages > 0 ? cpu * 1000.0 / messages : 0;
	if (json)
		printf("{\"messages\":%lld,\"bytes\":%lld,\"cpu_ns_per_message\":%.1f,\"cpu_s\":%.3f,\"wall_s\":%.3f}\n",
			   (long long) messages, (long long) bytes, cpu_ns, cpu / 1e6, wall / 1e6);
	else
		printf("%lld messages, %lld bytes, %.0f ns of CPU per message, %.2f s wall\n",
			   (long long) messages, (long long) bytes, cpu_ns, wall / 1e6);
	free(properties);
	return 0;
}
