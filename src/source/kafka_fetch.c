/*
 * kafka_fetch.c
 *	  Records and events out of librdkafka's queues.
 *
 * NOTES
 *	  Two ways.  Usually librdkafka hands over its messages one by one to a
 *	  callback, which copies their bytes into buffers of the source, one record behind
 *	  the other, each followed by a newline: the form in which the JSON scanner
 *	  reads them without a copy of its own.  Messages are given back at once.  That
 *	  saves librdkafka a lock and a wake-up for each message, measured at a tenth
 *	  of its own cost.  The callback runs on our thread, but inside librdkafka:
 *	  nothing there may raise an error or allocate by palloc.  It stops after an error
 *	  of a partition, which is looked at outside.
 *
 *	  A stream with a column _headers reads messages in batches and keeps them until
 *	  release, since headers are parsed when somebody asks for them.
 *
 *	  A client whose queue is full stops to fetch, and librdkafka before 2.2 looks whether
 *	  there is room again only when its thread has something else to do, or a
 *	  second has passed.  A reader that was held up for a moment would lose that second
 *	  as well, and while it catches up a second for each time that the queue fills.
 *	  So the thread is given something to do as soon as the queue is half empty.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "kafka.h"

/* Bytes after which a batch is full, whatever the number of its records. */
#define FETCH_BYTES (4 * 1024 * 1024)

/* A buffer above this size is given back when the batch is. */
#define BUFFER_KEEP (16 * 1024 * 1024)

/* What may be read behind the last byte of a batch's values. */
#define BUFFER_PADDING 64

/* What the callback needs. */
typedef struct Fetch
{
	KafkaSource *source;
	SeSourceBatch *batch;
	int			max_records;
	bool		failed;			/* out of memory */
	rd_kafka_resp_err_t error;	/* of a partition, or none */
	int32		partition;		/* of the error */
	int64		offset;
	char		text[256];
} Fetch;

/* ---- events ---- */

/*
 * se_kafka_keep_event
 *		Keep an event for the next fetch.
 */
void
se_kafka_keep_event(KafkaSource *source, const SeSourceEvent *event)
{
	if (source->npending == source->pending_size)
	{
		int			size = Max(64, source->pending_size * 2);
		SeSourceEvent *grown = realloc(source->pending, size * sizeof(SeSourceEvent));

		if (grown == NULL)
			return;				/* the partition's state is asked for again */
		source->pending = grown;
		source->pending_size = size;
	}
	source->pending[source->npending++] = *event;
}

/*
 * se_kafka_end_event
 */
void
se_kafka_end_event(SeSourceEvent *event, int32 partition, int64 offset)
{
	memset(event, 0, offsetof(SeSourceEvent, message));
	event->kind = SE_EVENT_EOF;
	event->partition = partition;
	event->offset = offset;
	event->message[0] = event->hint[0] = '\0';
	event->doubt = false;
}

/*
 * An event for the caller: into the batch, or kept for the next one when it is
 * full.  Of the client's own transient troubles only as many as fit: they
 * repeat.
 */
static void
put_event(KafkaSource *source, SeSourceBatch *batch, const SeSourceEvent *event)
{
	if (batch->nevents < SE_EVENTS_MAX)
	{
		batch->events[batch->nevents++] = *event;
		return;
	}
	if (event->kind != SE_EVENT_TRANSIENT || event->doubt)
		se_kafka_keep_event(source, event);
}

/*
 * Leave out the ends behind which records of the batch lie: whoever sees records and
 * events apart would take such an end for that of the records, too.
 */
static void
drop_passed_ends(const KafkaSource *source, SeSourceBatch *batch)
{
	int			n = 0;

	for (int i = 0; i < batch->nevents; i++)
	{
		const SeSourceEvent *event = &batch->events[i];

		if (event->kind == SE_EVENT_EOF && !source->partitions[event->partition].at_end)
			continue;
		if (n != i)
			batch->events[n] = *event;
		n++;
	}
	batch->nevents = n;
}

static void
take_pending(KafkaSource *source, SeSourceBatch *batch)
{
	int			n = Min(source->npending, SE_EVENTS_MAX);

	if (n == 0)
		return;
	memcpy(batch->events, source->pending, n * sizeof(SeSourceEvent));
	batch->nevents = n;
	source->npending -= n;
	memmove(source->pending, source->pending + n, source->npending * sizeof(SeSourceEvent));
}

static void
doubt_event(SeSourceEvent *event)
{
	memset(event, 0, sizeof(*event));
	event->kind = SE_EVENT_TRANSIENT;
	event->partition = -1;
	event->offset = -1;
	event->sqlstate = ERRCODE_CONNECTION_FAILURE;
	event->doubt = true;
}

/*
 * A line of librdkafka's log; most of them are of its debug log.
 */
static void
take_log(KafkaSource *source, SeSourceBatch *batch, const char *facility, const char *text)
{
	if (strcmp(facility, "BROKERUA") == 0)
	{
		SeSourceEvent event;

		doubt_event(&event);
		if (batch)
			put_event(source, batch, &event);
		else
			se_kafka_keep_event(source, &event);
	}
	/* a connection that the broker closes is only logged */
	else if (strcmp(facility, "FAIL") == 0 &&
			 (source->trouble == RD_KAFKA_RESP_ERR_NO_ERROR ||
			  source->trouble == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN))
	{
		const char *thread_end = strstr(text, "]: ");

		source->trouble = RD_KAFKA_RESP_ERR__TRANSPORT;
		se_kafka_copy_text(source->trouble_text, sizeof(source->trouble_text),
						   thread_end ? thread_end + 3 : text);
	}
}

/*
 * se_kafka_serve_events
 */
void
se_kafka_serve_events(KafkaSource *source, SeSourceBatch *batch)
{
	rd_kafka_event_t *event;

	while ((event = rd_kafka_queue_poll(source->events, 0)) != NULL)
	{
		if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR)
		{
			rd_kafka_resp_err_t error = rd_kafka_event_error(event);
			const char *text = rd_kafka_event_error_string(event);
			SeSourceEvent out;

			if (error == RD_KAFKA_RESP_ERR__FATAL)
			{
				char		fatal[240];

				error = rd_kafka_fatal_error(source->client, fatal, sizeof(fatal));
				if (se_kafka_event(source, RD_KAFKA_RESP_ERR__FATAL, fatal, -1, -1, &out) && batch)
					put_event(source, batch, &out);
			}
			else if (se_kafka_event(source, error, text, -1, -1, &out))
			{
				/* "all brokers down" follows the reason and says less */
				if (source->trouble == RD_KAFKA_RESP_ERR_NO_ERROR ||
					(error != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN &&
					 source->trouble != RD_KAFKA_RESP_ERR__AUTHENTICATION))
				{
					source->trouble = error;
					se_kafka_copy_text(source->trouble_text, sizeof(source->trouble_text),
									   text ? text : rd_kafka_err2str(error));
				}
				if (batch)
					put_event(source, batch, &out);
			}
		}
		else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_LOG)
		{
			const char *facility;
			const char *text;
			int			level;

			if (rd_kafka_event_log(event, &facility, &text, &level) == 0)
				take_log(source, batch, facility, text);
		}
		rd_kafka_event_destroy(event);
	}
}

/* An error that came in a record's place.  "text" may be NULL. */
static void
take_error(KafkaSource *source, SeSourceBatch *batch, rd_kafka_resp_err_t error, int32 number,
		   int64 offset, const char *text)
{
	SeSourceEvent event;
	KafkaPartition *partition = NULL;

	if (number >= 0)
	{
		if (number >= source->npartitions || !source->partitions[number].assigned)
			return;				/* of a partition given up */
		partition = &source->partitions[number];
	}
	if (se_kafka_event(source, error, text, number, offset, &event))
	{
		/* only named where librdkafka names it: else where we stand */
		if (event.kind == SE_EVENT_OFFSET_LOST && partition != NULL && event.offset < 0)
			(void) se_kafka_event(source, error, text, number, partition->next, &event);
		if (event.kind == SE_EVENT_OFFSET_LOST && partition != NULL)
		{
			/* stopped: whatever position is assigned next, it is a new start */
			partition->delivered = PG_INT64_MAX;
			partition->next = -1;
		}
		put_event(source, batch, &event);
	}
}

/* The end of a partition was reached. */
static void
take_end(KafkaSource *source, SeSourceBatch *batch, int32 number, int64 offset)
{
	KafkaPartition *partition;
	SeSourceEvent event;

	if (number < 0 || number >= source->npartitions)
		return;
	partition = &source->partitions[number];
	if (!partition->assigned || offset < partition->delivered)
		return;
	se_kafka_end_event(&event, number, offset);
	partition->next = offset;
	partition->at_end = true;
	put_event(source, batch, &event);
}

/* Milliseconds since 1970 to a timestamptz; what it cannot hold is no time. */
static inline int64
record_timestamp(int64 ms)
{
	const int64 epoch_ms = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * INT64CONST(86400000);

	if (unlikely(ms < 0 || ms >= END_TIMESTAMP / 1000 + epoch_ms))
		return SE_NO_TIMESTAMP;
	return (ms - epoch_ms) * 1000;
}

/*
 * The batch's next record, without its bytes; NULL if the message is a leftover of a
 * partition given up.
 */
static inline SeRecord *
take_record(KafkaSource *source, SeSourceBatch *batch, const rd_kafka_message_t *message)
{
	KafkaPartition *partition;
	SeRecord   *record;

	if (unlikely(message->partition < 0 || message->partition >= source->npartitions))
		return NULL;
	partition = &source->partitions[message->partition];
	if (unlikely(!partition->assigned || message->offset < partition->delivered))
		return NULL;
	partition->delivered = partition->next = message->offset + 1;
	partition->at_end = false;

	record = &batch->records[batch->nrecords++];
	record->payload = message->payload;
	record->payload_len = (int32) message->len;
	record->key = message->key;
	record->key_len = (int32) message->key_len;
	record->partition = message->partition;
	record->flags = 0;
	record->offset = message->offset;
	record->timestamp = record_timestamp(rd_kafka_message_timestamp(message, NULL));
	record->handle = NULL;
	return record;
}

/* ---- by callback ---- */

/* Room for "size" more bytes and the padding; false: there is no memory. */
static inline bool
reserve(KafkaBuffer *buffer, size_t size)
{
	size_t		wanted = buffer->used + size + BUFFER_PADDING;
	char	   *grown;

	if (likely(wanted <= buffer->size))
		return true;
	wanted = Max(wanted + wanted / 2, 64 * 1024);
	grown = realloc(buffer->data, wanted);
	if (grown == NULL)
		return false;
	buffer->data = grown;
	buffer->size = wanted;
	return true;
}

/* Bytes are found by their position until all are there: buffers move when they grow. */
static void
message_callback(rd_kafka_message_t *message, void *opaque)
{
	Fetch	   *fetch = opaque;
	KafkaSource *source = fetch->source;
	SeRecord   *record;

	if (unlikely(message->err != RD_KAFKA_RESP_ERR_NO_ERROR))
	{
		if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
		{
			take_end(source, fetch->batch, message->partition, message->offset);
			return;
		}
		fetch->error = message->err;
		fetch->partition = message->partition;
		fetch->offset = message->offset;
		strlcpy(fetch->text, rd_kafka_message_errstr(message), sizeof(fetch->text));
		rd_kafka_yield(source->client);
		return;
	}
	if (unlikely(!reserve(&source->values, message->len + 1) ||
				 !reserve(&source->keys, message->key_len)))
	{
		fetch->failed = true;
		rd_kafka_yield(source->client);
		return;
	}
	record = take_record(source, fetch->batch, message);
	if (unlikely(record == NULL))
		return;
	if (message->payload != NULL)
	{
		memcpy(source->values.data + source->values.used, message->payload, message->len);
		source->values.used += message->len;
		source->values.data[source->values.used++] = '\n';
	}
	if (message->key != NULL)
	{
		memcpy(source->keys.data + source->keys.used, message->key, message->key_len);
		source->keys.used += message->key_len;
	}
	if (fetch->batch->nrecords == fetch->max_records || source->values.used >= FETCH_BYTES)
		rd_kafka_yield(source->client);
}

static void
fetch_copies(KafkaSource *source, SeSourceBatch *batch, int max_records)
{
	Fetch		fetch;
	const char *value;
	const char *key;

	fetch.source = source;
	fetch.batch = batch;
	fetch.max_records = max_records;
	fetch.failed = false;
	fetch.error = RD_KAFKA_RESP_ERR_NO_ERROR;
	rd_kafka_consume_callback_queue(source->queue, 0, message_callback, &fetch);
	if (fetch.failed)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));

	value = source->values.data;
	key = source->keys.data;
	for (int i = 0; i < batch->nrecords; i++)
	{
		SeRecord   *record = &batch->records[i];

		if (record->payload != NULL)
		{
			record->payload = value;
			record->flags = SE_RECORD_PACKED;
			value += record->payload_len + 1;
		}
		if (record->key != NULL)
		{
			record->key = key;
			key += record->key_len;
		}
	}
	if (fetch.error != RD_KAFKA_RESP_ERR_NO_ERROR)
		take_error(source, batch, fetch.error, fetch.partition, fetch.offset, fetch.text);
}

/* ---- in batches ---- */

static void
fetch_messages(KafkaSource *source, SeSourceBatch *batch, int max_records)
{
	ssize_t		received = rd_kafka_consume_batch_queue(source->queue, 0, source->messages,
														max_records);

	if (received <= 0)
		return;
	source->nmessages = (int) received;
	for (int i = 0; i < source->nmessages; i++)
	{
		rd_kafka_message_t *message = source->messages[i];
		SeRecord   *record;

		if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			take_end(source, batch, message->partition, message->offset);
		else if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
			take_error(source, batch, message->err, message->partition, message->offset,
					   rd_kafka_message_errstr(message));
		else if ((record = take_record(source, batch, message)) != NULL)
			record->handle = message;
	}
}

/* ---- the client's queue ---- */

/*
 * Give the threads that fetch our partitions something to do.  There is no call for
 * that, but a question to a partition's leader goes through the same thread.  Its
 * answer is not waited for.
 */
static void
wake_client(KafkaSource *source)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(source->npartitions);

	for (int i = 0; i < source->npartitions; i++)
		if (source->partitions[i].assigned && i < source->known_partitions)
			rd_kafka_topic_partition_list_add(list, source->topic, i)->offset = RD_KAFKA_OFFSET_END;
	if (list->cnt > 0)
		(void) rd_kafka_offsets_for_times(source->client, list, 0);
	rd_kafka_topic_partition_list_destroy(list);
}

/*
 * Notice that the queue was full before this batch was taken from it, and wake the
 * client when it is not any more.  Our thread alone takes from the queue, so when the
 * client found it full we find it so, but for a batch.  Its bytes are reckoned by the
 * batch's.
 */
static void
watch_queue(KafkaSource *source, const SeSourceBatch *batch)
{
	int64		left;
	int64		bytes = 0;

	if (source->queue_records == 0 || batch->nrecords == 0)
		return;
	left = (int64) rd_kafka_queue_length(source->queue);
	for (int i = 0; i < batch->nrecords; i++)
		bytes += Max(batch->records[i].payload_len, 0) + Max(batch->records[i].key_len, 0);
	if (left + 2 * batch->nrecords >= source->queue_records ||
		(left + 2 * batch->nrecords) * bytes / batch->nrecords >= source->queue_bytes)
		source->queue_full = true;
	if (source->queue_full && left < source->queue_records / 2 &&
		left * bytes / batch->nrecords < source->queue_bytes / 2)
	{
		wake_client(source);
		source->queue_full = false;
	}
}

/* ---- for the reader ---- */

/*
 * se_kafka_fetch
 */
void
se_kafka_fetch(SeSource *opaque, SeSourceBatch *batch, int max_records)
{
	KafkaSource *source = (KafkaSource *) opaque;

	Assert(source->nmessages == 0 && source->values.used == 0);
	batch->nrecords = batch->nevents = 0;

	take_pending(source, batch);
	max_records = Min(max_records, SE_BATCH_MAX);
	if (source->keep_messages)
		fetch_messages(source, batch, max_records);
	else
		fetch_copies(source, batch, max_records);
	drop_passed_ends(source, batch);
	watch_queue(source, batch);

	/* after the records: a doubt must not come later than those that it is about */
	se_kafka_serve_events(source, batch);
}

static void
empty_buffer(KafkaBuffer *buffer)
{
	buffer->used = 0;
	if (buffer->size > BUFFER_KEEP)
	{
		free(buffer->data);
		buffer->data = NULL;
		buffer->size = 0;
	}
}

/*
 * se_kafka_give_back
 */
void
se_kafka_give_back(KafkaSource *source)
{
	for (int i = 0; i < source->nmessages; i++)
	{
		if (source->messages[i] != NULL)
			rd_kafka_message_destroy(source->messages[i]);
	}
	source->nmessages = 0;
	empty_buffer(&source->values);
	empty_buffer(&source->keys);
}

/*
 * se_kafka_release
 */
void
se_kafka_release(SeSource *opaque, SeSourceBatch *batch)
{
	se_kafka_give_back((KafkaSource *) opaque);
	batch->nrecords = 0;
}
