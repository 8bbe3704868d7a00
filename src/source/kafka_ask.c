/*
 * kafka_ask.c
 *	  Questions to the broker: partitions, offsets, offsets of a time.
 *
 * NOTES
 *	  librdkafka has only blocking calls for these.  They are made in slices, with
 *	  the interrupts checked between two.  A slice is 100 ms; only when a
 *	  connection stands and the answer is still on its way the next one is
 *	  longer, up to a second, as a distant broker would never answer within
 *	  100 ms.
 *
 *	  Offsets are asked for by rd_kafka_offsets_for_times() with the special
 *	  times "earliest" and "latest": rd_kafka_query_watermark_offsets() of
 *	  librdkafka before 2.3 can exceed its time-out and asks former leaders.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "kafka.h"

#define FIRST_SLICE_MS 100
#define LONGEST_SLICE_MS 1000

/* A question in slices: how long is left, how long the next slice takes. */
typedef struct Slices
{
	TimestampTz end;
	int			slice_ms;
} Slices;

static void
slices_begin(Slices *slices, KafkaSource *source, int timeout_ms)
{
	slices->end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	slices->slice_ms = Min(FIRST_SLICE_MS, timeout_ms);
	source->trouble = RD_KAFKA_RESP_ERR_NO_ERROR;
	source->trouble_text[0] = '\0';
}

/*
 * After a slice that ended with "error": true if there is a next one, else
 * raises the error.  A refused login does not get better by waiting.
 */
static bool
slices_next(Slices *slices, KafkaSource *source, rd_kafka_resp_err_t error, const char *doing)
{
	int64		left;

	CHECK_FOR_INTERRUPTS();
	se_kafka_serve_events(source, NULL);

	if (source->trouble == RD_KAFKA_RESP_ERR__AUTHENTICATION)
		se_kafka_raise(source, source->trouble, doing);

	switch (error)
	{
		case RD_KAFKA_RESP_ERR__TIMED_OUT:
		case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
			slices->slice_ms = Min(slices->slice_ms * 2, LONGEST_SLICE_MS);
			break;
		case RD_KAFKA_RESP_ERR__TRANSPORT:
		case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
		case RD_KAFKA_RESP_ERR__WAIT_CACHE:
		case RD_KAFKA_RESP_ERR__RESOLVE:
		case RD_KAFKA_RESP_ERR__IN_PROGRESS:
		case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
		case RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
		case RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
			break;
		default:
			se_kafka_raise(source, error, doing);
	}

	left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), slices->end);
	if (left <= 0)
		se_kafka_raise(source, error, doing);
	slices->slice_ms = Min(slices->slice_ms, left);

	/*
	 * Several of these errors come back at once: let the client's threads
	 * change something before the next try.
	 */
	if (error != RD_KAFKA_RESP_ERR__TIMED_OUT && error != RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(left, FIRST_SLICE_MS / 2), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/*
 * se_kafka_partitions
 */
int
se_kafka_partitions(SeSource *opaque, int timeout_ms)
{
	KafkaSource *source = (KafkaSource *) opaque;
	const char *doing = "asking for the topic's partitions";
	Slices		slices;

	slices_begin(&slices, source, timeout_ms);
	for (;;)
	{
		const struct rd_kafka_metadata *metadata;
		rd_kafka_resp_err_t error;
		int			npartitions = 0;
		int			nbrokers = 0;

		error = rd_kafka_metadata(source->client, 0, source->handle, &metadata, slices.slice_ms);
		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			if (metadata->topic_cnt != 1)
				error = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
			else
			{
				error = metadata->topics[0].err;
				npartitions = metadata->topics[0].partition_cnt;
				if (error == RD_KAFKA_RESP_ERR_NO_ERROR && npartitions == 0)
					error = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
			}
			nbrokers = metadata->broker_cnt;
			rd_kafka_metadata_destroy(metadata);
		}
		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			/* a socket and a pipe for each broker's thread */
			while (source->reserved_fds < 3 * nbrokers + 8)
			{
				ReserveExternalFD();
				source->reserved_fds++;
			}
			source->known_partitions = npartitions;
			return npartitions;
		}
		(void) slices_next(&slices, source, error, doing);
	}
}

/*
 * Ask one partition's leader for the offset of a time in milliseconds, or of
 * one of librdkafka's special times.
 */
static int64
ask_offset(KafkaSource *source, int32 partition, int64 time, int timeout_ms)
{
	const char *doing = "asking for a partition's offsets";
	Slices		slices;

	slices_begin(&slices, source, timeout_ms);
	for (;;)
	{
		rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
		rd_kafka_resp_err_t error;
		int64		offset;

		rd_kafka_topic_partition_list_add(list, source->topic, partition)->offset = time;
		error = rd_kafka_offsets_for_times(source->client, list, slices.slice_ms);
		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
			error = list->elems[0].err;
		offset = list->elems[0].offset;
		rd_kafka_topic_partition_list_destroy(list);

		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
			return offset;
		if (error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION &&
			partition < source->known_partitions)
			error = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE; /* not seen by all yet */
		(void) slices_next(&slices, source, error, doing);
	}
}

/*
 * se_kafka_offsets
 */
void
se_kafka_offsets(SeSource *opaque, int32 partition, int timeout_ms, int64 *low, int64 *high)
{
	KafkaSource *source = (KafkaSource *) opaque;

	*low = ask_offset(source, partition, RD_KAFKA_OFFSET_BEGINNING, timeout_ms);
	*high = ask_offset(source, partition, RD_KAFKA_OFFSET_END, timeout_ms);
	*low = Max(*low, 0);
	*high = Max(*high, *low);
}

/*
 * se_kafka_offset_for_time
 */
int64
se_kafka_offset_for_time(SeSource *opaque, int32 partition, TimestampTz t, int timeout_ms)
{
	KafkaSource *source = (KafkaSource *) opaque;
	int64		low;
	int64		high;
	int64		offset;
	int64		ms;

	if (TIMESTAMP_IS_NOBEGIN(t))
		ms = 0;
	else if (TIMESTAMP_IS_NOEND(t))
		ms = PG_INT64_MAX;
	else
	{
		/* Kafka counts whole milliseconds since 1970: the first one not before t */
		ms = t / 1000 + (t % 1000 > 0 ? 1 : 0);
		ms += (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * INT64CONST(86400000);
		ms = Max(ms, 0);
	}
	/* before the time: records that arrive between the two questions are wanted */
	se_kafka_offsets(opaque, partition, timeout_ms, &low, &high);
	offset = ask_offset(source, partition, ms, timeout_ms);
	if (offset >= 0)
		return offset;

	/*
	 * No record is that late; or there are no times to look up (records
	 * without, a broker that cannot), which shows when even the earliest time
	 * finds none: then any record may be wanted.
	 */
	if (low < high && ask_offset(source, partition, 0, timeout_ms) < 0)
		return low;
	return high;
}
