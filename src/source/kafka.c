/*
 * kafka.c
 *	  The Kafka source: librdkafka behind SeSourceRoutine.
 *
 * NOTES
 *	  Offsets live in the database, so partitions are assigned by hand with
 *	  explicit offsets, nothing is committed to Kafka, and an offset that is not
 *	  there is an event, never a silent jump.  Records arrive in the consumer's
 *	  queue; the client's errors and log lines in a second one; both write the
 *	  same eventfd.  The write happens once when an empty queue becomes non-empty,
 *	  hence the rule of the interface: clear the descriptor, then fetch until
 *	  nothing comes, then wait.
 *
 *	  Assigning.  Records that an earlier assignment fetched may still be under
 *	  way inside librdkafka when a partition is assigned again at a smaller
 *	  offset, and cannot be told from the new ones by their offsets, since gaps
 *	  are normal.  A client therefore is never rewound: where the wanted positions
 *	  are those that it has, partitions are added or removed, which is safe;
 *	  otherwise the client is thrown away and made anew, which costs some
 *	  milliseconds and happens after errors only.
 *
 *	  Doubts.  A topic that is deleted and made again within a moment is the same
 *	  one to librdkafka, which knows it by its name.  What it does notice is that a
 *	  fetch was refused because the partition is not there, or is led by another
 *	  broker; it says so in its debug log alone, and fetches on where it was once a
 *	  leader is found.  That line comes before any record of the new log, and is
 *	  passed on as an event without a message: the caller shall compare what it has
 *	  read.
 *
 *	  Threads.  librdkafka's threads must not take the server's signals: all are
 *	  blocked while one may be created.  No callbacks are registered that they would
 *	  call, so none of our code runs on them.
 *
 *	  Closing.  All messages and queues are given back first: a message that is
 *	  kept makes rd_kafka_destroy() wait for ever.  As it may also wait for a
 *	  dead network, it runs on a thread of its own that is left behind when it
 *	  takes too long.  A process that is exiting anyway does not destroy; with
 *	  clients left it goes without the handlers of exit(), see leave_at_once().
 */
#include "postgres.h"

#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "access/parallel.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "kafka.h"
#include "options.h"

/* How long close waits for librdkafka. */
#define DESTROY_PATIENCE_MS 300

/* How long assign asks for partitions that the client has not seen. */
#define METADATA_PATIENCE_MS 2000

static void kafka_close(SeSource *opaque);

/* ---- the client ---- */

/* Clients that have threads; counted down by the threads that destroy them. */
static int	live_clients = 0;

/* The status to exit with, once the server has done what it does before. */
static bool cleaned_up = false;
static int	exit_status = 0;

static void
note_exit(int code, Datum arg)
{
	cleaned_up = true;
	exit_status = code;
}

/*
 * exit() has OpenSSL free what librdkafka's threads may be using at that moment,
 * and a crash there would have the postmaster restart the whole server.  When
 * nothing is left to be done but that, leave the rest to the kernel.
 */
static void
leave_at_once(void)
{
	if (cleaned_up && __atomic_load_n(&live_clients, __ATOMIC_ACQUIRE) > 0)
		_exit(exit_status);
}

/* To be called when OpenSSL has been initialised: the last handler comes first. */
static void
register_exit(void)
{
	static bool done = false;

	if (done)
		return;
	done = true;
	on_proc_exit(note_exit, (Datum) 0);
	(void) atexit(leave_at_once);
}

/*
 * Tell malloc to keep what librdkafka's fetches free: with the defaults each
 * response is mapped and unmapped.  Only in processes that do nothing else.
 *
 * Median of 7 rounds, 2,000,000 orders, 8 groups, against the C library's own
 * settings: page faults 0.67, CPU of the worker 0.93, resident memory the same.
 * With 32 MB instead of 128 as much CPU as without; with one or two arenas
 * (M_ARENA_MAX) the same as with them all.
 */
static void
tune_malloc(void)
{
	static bool done = false;
	const char *setting;
	int			kept;			/* kB */

	if (done || MyBackendType != B_BG_WORKER || IsParallelWorker())
		return;
	done = true;
	setting = GetConfigOption("stream_engine.worker_free_memory", true, false);
	kept = setting ? atoi(setting) : 0;
	if (kept == 0)
		return;
	mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024);
	mallopt(M_TRIM_THRESHOLD, kept * 1024);
	mallopt(M_TOP_PAD, 4 * 1024 * 1024);
}

/*
 * A client that has nothing assigned, from source->conf.  Returns NULL with a
 * message in "message", and leaves everything as it was.
 */
static rd_kafka_t *
client_new(KafkaSource *source, char *message, size_t size)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_dup(source->conf);
	rd_kafka_t *client;
	sigset_t	all;
	sigset_t	before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, message, size);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (client == NULL)
	{
		rd_kafka_conf_destroy(conf);
		return NULL;
	}
	__atomic_add_fetch(&live_clients, 1, __ATOMIC_ACQ_REL);
	register_exit();
	return client;
}

/* Make "client" the source's: its queues, its topic. */
static bool
client_attach(KafkaSource *source, rd_kafka_t *client)
{
	static const uint64 one = 1;

	source->client = client;
	source->known_partitions = 0;
	source->handle = rd_kafka_topic_new(client, source->topic, NULL);
	(void) rd_kafka_set_log_queue(client, NULL);
	source->events = rd_kafka_queue_get_main(client);
	source->queue = rd_kafka_queue_get_consumer(client);
	if (source->handle == NULL || source->events == NULL || source->queue == NULL)
		return false;
	rd_kafka_queue_io_event_enable(source->queue, source->fd, &one, sizeof(one));
	rd_kafka_queue_io_event_enable(source->events, source->fd, &one, sizeof(one));
	return true;
}

/* What a destroying thread and its waiter share; the last of the two frees it. */
typedef struct Destroyer
{
	rd_kafka_t *client;
	sem_t		done;
	int			users;
} Destroyer;

static void
destroyer_leave(Destroyer *destroyer)
{
	if (__atomic_sub_fetch(&destroyer->users, 1, __ATOMIC_ACQ_REL) == 0)
	{
		sem_destroy(&destroyer->done);
		free(destroyer);
	}
}

static void *
destroyer_main(void *argument)
{
	Destroyer  *destroyer = argument;

	rd_kafka_destroy_flags(destroyer->client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	__atomic_sub_fetch(&live_clients, 1, __ATOMIC_ACQ_REL);
	sem_post(&destroyer->done);
	destroyer_leave(destroyer);
	return NULL;
}

/*
 * Destroy a client whose messages and queues are given back.  Raises nothing.
 */
static void
client_destroy(rd_kafka_t *client)
{
	Destroyer  *destroyer;
	pthread_t	thread;
	sigset_t	all;
	sigset_t	before;
	struct timespec until;
	int			error;

	if (proc_exit_inprogress)
		return;

	destroyer = malloc(sizeof(Destroyer));
	if (destroyer == NULL)
		return;					/* out of memory: leave the client behind */
	destroyer->client = client;
	destroyer->users = 2;
	sem_init(&destroyer->done, 0, 0);

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, NULL, destroyer_main, destroyer);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error != 0)
	{
		sem_destroy(&destroyer->done);
		free(destroyer);
		return;
	}
	pthread_detach(thread);

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += DESTROY_PATIENCE_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	while (sem_timedwait(&destroyer->done, &until) != 0 && errno == EINTR)
		continue;
	destroyer_leave(destroyer);
}

/* Give back whatever the source holds of its client, and the client. */
static void
client_detach(KafkaSource *source)
{
	se_kafka_give_back(source);
	if (source->queue != NULL)
	{
		rd_kafka_queue_io_event_enable(source->queue, -1, NULL, 0);
		rd_kafka_queue_destroy(source->queue);
	}
	if (source->events != NULL)
	{
		rd_kafka_queue_io_event_enable(source->events, -1, NULL, 0);
		rd_kafka_queue_destroy(source->events);
	}
	if (source->handle != NULL)
		rd_kafka_topic_destroy(source->handle);
	if (source->client != NULL)
		client_destroy(source->client);
	source->queue = source->events = NULL;
	source->handle = NULL;
	source->client = NULL;
}

/* ---- open and close ---- */

static void
guard_callback(void *argument)
{
	KafkaGuard *guard = argument;

	if (guard->source != NULL)
		kafka_close((SeSource *) guard->source);
}

/*
 * librdkafka's configuration from our settings; raises an error that names the
 * option but shows no secret.
 */
static rd_kafka_conf_t *
conf_create(List *settings)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	ListCell   *cell;

	foreach(cell, settings)
	{
		const SeKafkaSetting *setting = lfirst(cell);
		char		text[512];
		char		message[512];

		if (rd_kafka_conf_set(conf, setting->name, setting->value, text, sizeof(text)) ==
			RD_KAFKA_CONF_OK)
			continue;
		rd_kafka_conf_destroy(conf);
		se_kafka_copy_text(message, sizeof(message), text);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("librdkafka refused the value of option \"%s\"",
						setting->option ? setting->option : setting->name),
				 setting->secret ? 0 : errdetail("It says: %s.", message)));
	}
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	return conf;
}

static const char *
setting_value(List *settings, const char *name)
{
	ListCell   *cell;

	foreach(cell, settings)
	{
		const SeKafkaSetting *setting = lfirst(cell);

		if (strcmp(setting->name, name) == 0)
			return setting->value;
	}
	return "";
}

/* librdkafka shows them as it understood them, be they ours or its own defaults. */
static int64
conf_number(const rd_kafka_conf_t *conf, const char *name)
{
	char		value[32];
	size_t		size = sizeof(value);

	if (rd_kafka_conf_get(conf, name, value, &size) != RD_KAFKA_CONF_OK)
		return 0;
	return strtoll(value, NULL, 10);
}

static SeSource *
kafka_open(Oid relid, Oid userid)
{
	SeStreamOptions options;
	const char *mechanism;
	List	   *settings;
	rd_kafka_conf_t *conf;
	KafkaGuard *guard;
	KafkaSource *source;
	rd_kafka_t *client;
	char		text[512];
	char		message[512];

	se_stream_options(relid, &options);
	settings = se_kafka_settings(relid, userid, &mechanism);
	guard = palloc0(sizeof(KafkaGuard));
	tune_malloc();

	conf = conf_create(settings);

	/* from here on the guard closes */
	source = calloc(1, sizeof(KafkaSource));
	if (source == NULL)
	{
		rd_kafka_conf_destroy(conf);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	source->fd = -1;
	source->conf = conf;
	source->guard = guard;
	guard->source = source;
	guard->callback.func = guard_callback;
	guard->callback.arg = guard;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &guard->callback);

	if (rd_kafka_version() < 0x02020000)
	{
		source->queue_records = conf_number(conf, "queued.min.messages");
		source->queue_bytes = conf_number(conf, "queued.max.messages.kbytes") * 1024;
	}
	source->keep_messages = get_attnum(relid, "_headers") != InvalidAttrNumber;
	source->topic = strdup(options.topic);
	source->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (source->topic == NULL || source->fd < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not open a Kafka consumer: %m")));
	while (source->reserved_fds < 8)
	{
		ReserveExternalFD();
		source->reserved_fds++;
	}
	strlcpy(source->mechanism, mechanism ? mechanism : "", sizeof(source->mechanism));
	strlcpy(source->brokers, setting_value(settings, "bootstrap.servers"),
			sizeof(source->brokers));

	client = client_new(source, text, sizeof(text));
	if (client == NULL)
	{
		/* its texts speak of properties and files, not of secrets */
		se_kafka_copy_text(message, sizeof(message), text);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not open a Kafka consumer"),
				 errdetail("librdkafka says: %s.", message)));
	}
	if (!client_attach(source, client))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not open a Kafka consumer")));
	return (SeSource *) source;
}

static void
kafka_close(SeSource *opaque)
{
	KafkaSource *source = (KafkaSource *) opaque;

	source->guard->source = NULL;
	client_detach(source);
	if (source->conf != NULL)
		rd_kafka_conf_destroy(source->conf);
	if (source->fd >= 0)
		close(source->fd);
	while (source->reserved_fds > 0)
	{
		ReleaseExternalFD();
		source->reserved_fds--;
	}
	free(source->topic);
	free(source->partitions);
	free(source->pending);
	free(source->values.data);
	free(source->keys.data);
	free(source);
}

/* ---- assign ---- */

/* Make room for partitions 0..count-1. */
static void
grow_partitions(KafkaSource *source, int count)
{
	KafkaPartition *grown;

	if (count <= source->npartitions)
		return;
	grown = realloc(source->partitions, count * sizeof(KafkaPartition));
	if (grown == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	memset(grown + source->npartitions, 0,
		   (count - source->npartitions) * sizeof(KafkaPartition));
	source->partitions = grown;
	source->npartitions = count;
}

/*
 * Assigning a partition that the client has not heard of stays without any
 * effect until it asks for metadata by itself.  So it is made to ask; if that
 * fails it has no connection, and will ask once it has.
 */
static void
learn_partitions(KafkaSource *source, int count)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), METADATA_PATIENCE_MS);

	while (source->known_partitions < count)
	{
		const struct rd_kafka_metadata *metadata;
		rd_kafka_resp_err_t error;

		error = rd_kafka_metadata(source->client, 0, source->handle, &metadata, 100);
		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			bool		good = metadata->topic_cnt == 1 &&
				metadata->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR;

			if (good)
				source->known_partitions = metadata->topics[0].partition_cnt;
			rd_kafka_metadata_destroy(metadata);
			if (good)
				break;
		}
		CHECK_FOR_INTERRUPTS();
		if (GetCurrentTimestamp() >= end)
			break;
	}
}

/* Whether a partition continues at "offset" in the client as it is. */
static bool
continues_at(const KafkaPartition *partition, int64 offset)
{
	return partition->assigned && offset >= partition->delivered && offset <= partition->next;
}

static void
check_assigned(rd_kafka_resp_err_t error)
{
	if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not assign partitions: %s", rd_kafka_err2str(error))));
}

/* A list of partitions is librdkafka's memory: nothing may raise while it lives. */
static void
add_partitions(KafkaSource *source, const SePosition *positions, int npositions, bool first)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(npositions);
	rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;

	for (int i = 0; i < npositions; i++)
	{
		if (!source->partitions[positions[i].partition].assigned)
			rd_kafka_topic_partition_list_add(list, source->topic,
											  positions[i].partition)->offset = positions[i].offset;
	}
	if (list->cnt > 0 && first)
		error = rd_kafka_assign(source->client, list);
	else if (list->cnt > 0)
	{
		rd_kafka_error_t *complex = rd_kafka_incremental_assign(source->client, list);

		if (complex != NULL)
		{
			error = rd_kafka_error_code(complex);
			rd_kafka_error_destroy(complex);
		}
	}
	rd_kafka_topic_partition_list_destroy(list);
	check_assigned(error);

	for (int i = 0; i < npositions; i++)
	{
		KafkaPartition *partition = &source->partitions[positions[i].partition];

		if (!partition->assigned)
		{
			partition->assigned = true;
			partition->delivered = partition->next = positions[i].offset;
		}
	}
}

/* Stop the partitions that are not among the positions. */
static void
remove_partitions(KafkaSource *source, const SePosition *positions, int npositions)
{
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;

	list = rd_kafka_topic_partition_list_new(source->npartitions);
	for (int p = 0; p < source->npartitions; p++)
	{
		bool		wanted = false;

		for (int i = 0; i < npositions && !wanted; i++)
			wanted = positions[i].partition == p;
		if (!wanted && source->partitions[p].assigned)
		{
			rd_kafka_topic_partition_list_add(list, source->topic, p);
			source->partitions[p].assigned = false;
			source->partitions[p].retired = true;
		}
	}
	if (list->cnt > 0)
	{
		rd_kafka_error_t *complex = rd_kafka_incremental_unassign(source->client, list);

		if (complex != NULL)
		{
			error = rd_kafka_error_code(complex);
			rd_kafka_error_destroy(complex);
		}
	}
	rd_kafka_topic_partition_list_destroy(list);
	check_assigned(error);
}

/*
 * Partitions that go on where they are and have nothing more: who assigns anew
 * waits for their ends, which librdkafka tells only once.
 */
static void
repeat_ends(KafkaSource *source)
{
	static const uint64 one = 1;

	for (int p = 0; p < source->npartitions; p++)
	{
		SeSourceEvent event;

		if (!source->partitions[p].assigned || !source->partitions[p].at_end)
			continue;
		se_kafka_end_event(&event, p, source->partitions[p].next);
		se_kafka_keep_event(source, &event);
	}
	if (source->npending > 0 && write(source->fd, &one, sizeof(one)) < 0)
		elog(DEBUG1, "could not wake up the reader: %m");
}

static void
kafka_assign(SeSource *opaque, const SePosition *positions, int npositions)
{
	KafkaSource *source = (KafkaSource *) opaque;
	bool		continued = true;
	bool		first = true;
	int			count = 0;

	for (int i = 0; i < npositions; i++)
		count = Max(count, positions[i].partition + 1);
	grow_partitions(source, count);

	for (int i = 0; i < npositions; i++)
	{
		const KafkaPartition *partition = &source->partitions[positions[i].partition];

		if (partition->assigned ? !continues_at(partition, positions[i].offset) :
			partition->retired)
			continued = false;
	}

	if (!continued)
	{
		rd_kafka_t *client;
		char		text[512];
		char		message[512];

		client = client_new(source, text, sizeof(text));
		if (client == NULL)
		{
			se_kafka_copy_text(message, sizeof(message), text);
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not open a Kafka consumer"),
					 errdetail("librdkafka says: %s.", message)));
		}
		client_detach(source);
		if (!client_attach(source, client))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not open a Kafka consumer")));
		memset(source->partitions, 0, source->npartitions * sizeof(KafkaPartition));
	}

	/* of what was not told yet, ends are told again, and errors come again */
	source->npending = 0;
	for (int p = 0; p < source->npartitions; p++)
	{
		if (source->partitions[p].assigned || source->partitions[p].retired)
			first = false;
	}
	remove_partitions(source, positions, npositions);
	repeat_ends(source);
	if (npositions > 0 && source->known_partitions < count)
		learn_partitions(source, count);
	add_partitions(source, positions, npositions, first);
}

static int64
kafka_cached_high(SeSource *opaque, int32 partition)
{
	KafkaSource *source = (KafkaSource *) opaque;
	int64_t		low;
	int64_t		high;

	if (rd_kafka_get_watermark_offsets(source->client, source->topic, partition, &low, &high) !=
		RD_KAFKA_RESP_ERR_NO_ERROR || high < 0)
		return -1;
	return high;
}

static int
kafka_wait_fd(SeSource *opaque, int *poll_ms)
{
	*poll_ms = -1;
	return ((KafkaSource *) opaque)->fd;
}

static void
kafka_drain_fd(SeSource *opaque)
{
	uint64		count;
	ssize_t		n;

	do
	{
		n = read(((KafkaSource *) opaque)->fd, &count, sizeof(count));
	} while (n < 0 && errno == EINTR);
}

const SeSourceRoutine se_kafka_routine = {
	.name = "kafka",
	.keeps_ends = true,
	.open = kafka_open,
	.close = kafka_close,
	.partitions = se_kafka_partitions,
	.offsets = se_kafka_offsets,
	.offset_for_time = se_kafka_offset_for_time,
	.cached_high = kafka_cached_high,
	.assign = kafka_assign,
	.fetch = se_kafka_fetch,
	.release = se_kafka_release,
	.wait_fd = kafka_wait_fd,
	.drain_fd = kafka_drain_fd,
};
