/*
 * kafka.h
 *	  What the files of the Kafka source share.
 */
#ifndef SE_KAFKA_H
#define SE_KAFKA_H

#include "postgres.h"

#include <librdkafka/rdkafka.h>

#include "compat/compat.h"
#include "source.h"

/* One assigned partition. */
typedef struct KafkaPartition
{
	bool		assigned;
	bool		retired;		/* was assigned to this client and is not any more:
								 * leftovers of it may still be under way */
	int64		delivered;		/* one past the last delivered offset */
	int64		next;			/* as above, or the end of the partition if that
								 * was reached; between the two are no records */
	bool		at_end;			/* the end was told since the last record */
} KafkaPartition;

typedef struct KafkaSource KafkaSource;

/* Lives in the memory context of open(), and so may outlive the source. */
typedef struct KafkaGuard
{
	MemoryContextCallback callback;
	KafkaSource *source;		/* NULL when closed */
} KafkaGuard;

/* Bytes of the records of a batch. */
typedef struct KafkaBuffer
{
	char	   *data;			/* malloc'd */
	size_t		used;
	size_t		size;
} KafkaBuffer;

/*
 * malloc'd, with all that it points to except for the guard: it is closed while
 * memory contexts are going away.
 */
struct KafkaSource
{
	KafkaGuard *guard;
	char	   *topic;
	bool		sasl;
	char		mechanism[24];	/* "" without login */
	char		brokers[128];	/* beginning of bootstrap_servers, for messages */

	rd_kafka_conf_t *conf;		/* to make the client anew from */
	rd_kafka_t *client;
	rd_kafka_topic_t *handle;	/* of the topic, for metadata */
	rd_kafka_queue_t *queue;	/* records and partitions' errors */
	rd_kafka_queue_t *events;	/* the client's errors and log lines */
	int			fd;				/* eventfd of both queues */
	int			reserved_fds;	/* told to fd.c */

	int			known_partitions;	/* of the last metadata; 0: none yet */
	int			npartitions;	/* size of the array */
	KafkaPartition *partitions;

	/* limits of the client's queue, see kafka_fetch.c; 0: of no interest */
	int64		queue_records;
	int64		queue_bytes;
	bool		queue_full;		/* a limit was reached, and nobody told the client since that
								 * there is room again */

	/* the last trouble of the client as a whole, "" if none */
	rd_kafka_resp_err_t trouble;
	char		trouble_text[256];

	/* events that did not fit the last batch */
	SeSourceEvent *pending;
	int			npending;
	int			pending_size;

	/* what the caller holds: copies of messages, or the messages themselves */
	bool		keep_messages;	/* for their headers */
	KafkaBuffer values;
	KafkaBuffer keys;
	int			nmessages;
	rd_kafka_message_t *messages[SE_BATCH_MAX];
};

/* ---- kafka_errors.c ---- */

/*
 * Fill an event from an error of librdkafka; "text" may be NULL.  Returns false
 * if it is of no interest to anybody.
 */
extern bool se_kafka_event(const KafkaSource *source, rd_kafka_resp_err_t error,
						   const char *text, int32 partition, int64 offset,
						   SeSourceEvent *event);

/* Raise the error that a failed question to the broker deserves. */
se_noreturn extern void se_kafka_raise(KafkaSource *source, rd_kafka_resp_err_t error,
									   const char *doing);

/* The hint for a refused login, in a buffer of at least 200 bytes. */
extern void se_kafka_login_hint(const KafkaSource *source, char *hint, size_t size);

/* Copy a text of librdkafka as one line of printable characters in the server's encoding. */
extern void se_kafka_copy_text(char *to, size_t size, const char *from);

/* ---- kafka_ask.c ---- */

extern int	se_kafka_partitions(SeSource *source, int timeout_ms);
extern void se_kafka_offsets(SeSource *source, int32 partition, int timeout_ms, int64 *low,
							 int64 *high);
extern int64 se_kafka_offset_for_time(SeSource *source, int32 partition, TimestampTz t,
									  int timeout_ms);

/* ---- kafka_fetch.c ---- */

extern void se_kafka_fetch(SeSource *source, SeSourceBatch *batch, int max_records);
extern void se_kafka_release(SeSource *source, SeSourceBatch *batch);

/* Give back what the caller holds of a batch.  Raises nothing. */
extern void se_kafka_give_back(KafkaSource *source);

/* Keep an event for the next fetch.  Raises nothing. */
extern void se_kafka_keep_event(KafkaSource *source, const SeSourceEvent *event);

/* Make the event of a partition's end. */
extern void se_kafka_end_event(SeSourceEvent *event, int32 partition, int64 offset);

/* Take the client's own errors off their queue into "trouble" and, if not NULL, events. */
extern void se_kafka_serve_events(KafkaSource *source, SeSourceBatch *batch);

#endif							/* SE_KAFKA_H */
