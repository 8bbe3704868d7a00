/*
 * kafka_errors.c
 *	  librdkafka's errors as SQLSTATEs, event kinds and messages.
 *
 * NOTES
 *	  librdkafka retries what it calls a transport error for ever by itself, so
 *	  such an error is news for a view, not a reason to stop.  What only a
 *	  person can repair (login, privileges, a topic that is not there) is of
 *	  kind SE_EVENT_CONFIG.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "kafka.h"

/*
 * How an error is to be taken.  Whatever is not listed is transient.
 */
static const struct
{
	rd_kafka_resp_err_t error;
	SeSourceEventKind kind;
	int			sqlstate;
}			classes[] = {
	{RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, SE_EVENT_OFFSET_LOST, ERRCODE_NO_DATA_FOUND},
	{RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE, SE_EVENT_OFFSET_LOST, ERRCODE_NO_DATA_FOUND},
#if RD_KAFKA_VERSION >= 0x020100ff
	{RD_KAFKA_RESP_ERR__LOG_TRUNCATION, SE_EVENT_OFFSET_LOST, ERRCODE_NO_DATA_FOUND},
#endif

	{RD_KAFKA_RESP_ERR__AUTHENTICATION, SE_EVENT_CONFIG,
	ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION},
	{RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, SE_EVENT_CONFIG,
	ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION},
	{RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM, SE_EVENT_CONFIG,
	ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION},
	{RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, SE_EVENT_CONFIG,
	ERRCODE_INSUFFICIENT_PRIVILEGE},
	{RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, SE_EVENT_CONFIG,
	ERRCODE_INSUFFICIENT_PRIVILEGE},
	{RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, SE_EVENT_CONFIG, ERRCODE_UNDEFINED_OBJECT},
	{RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, SE_EVENT_CONFIG, ERRCODE_UNDEFINED_OBJECT},
	{RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, SE_EVENT_CONFIG, ERRCODE_UNDEFINED_OBJECT},
	{RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, SE_EVENT_CONFIG, ERRCODE_UNDEFINED_OBJECT},

	{RD_KAFKA_RESP_ERR__BAD_MSG, SE_EVENT_DATA, ERRCODE_DATA_EXCEPTION},
	{RD_KAFKA_RESP_ERR__BAD_COMPRESSION, SE_EVENT_DATA, ERRCODE_DATA_EXCEPTION},
	{RD_KAFKA_RESP_ERR__UNDERFLOW, SE_EVENT_DATA, ERRCODE_DATA_EXCEPTION},
	{RD_KAFKA_RESP_ERR_INVALID_MSG, SE_EVENT_DATA, ERRCODE_DATA_EXCEPTION},
	{RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, SE_EVENT_DATA, ERRCODE_DATA_EXCEPTION},

	{RD_KAFKA_RESP_ERR__FATAL, SE_EVENT_FATAL, ERRCODE_CONNECTION_FAILURE},
	{RD_KAFKA_RESP_ERR__DESTROY, SE_EVENT_FATAL, ERRCODE_CONNECTION_FAILURE},
	{RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, SE_EVENT_FATAL, ERRCODE_INSUFFICIENT_RESOURCES},
};

static SeSourceEventKind
classify(rd_kafka_resp_err_t error, int *sqlstate)
{
	for (int i = 0; i < lengthof(classes); i++)
	{
		if (classes[i].error == error)
		{
			*sqlstate = classes[i].sqlstate;
			return classes[i].kind;
		}
	}
	*sqlstate = ERRCODE_CONNECTION_FAILURE;
	return SE_EVENT_TRANSIENT;
}

/*
 * After these the topic, or the end of its log, may be another one of the same
 * name: it was away, or all that keep it were.
 */
static bool
leaves_doubt(rd_kafka_resp_err_t error)
{
	switch (error)
	{
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
			return true;
		default:
			return false;
	}
}

/*
 * se_kafka_copy_text
 */
void
se_kafka_copy_text(char *to, size_t size, const char *from)
{
	size_t		n = 0;

	for (; *from && n < size - 1; from++)
		to[n++] = (unsigned char) *from < ' ' ? ' ' :
			(unsigned char) *from >= 0x7f ? '?' : *from;
	while (n > 0 && (to[n - 1] == ' ' || to[n - 1] == '.'))
		n--;
	to[n] = '\0';
}

/*
 * se_kafka_login_hint
 *
 * The limits are those of librdkafka's change log: SCRAM against Kafka 4 needs
 * 2.6.1, GSSAPI against Kafka 4 needs 2.11.0.
 */
void
se_kafka_login_hint(const KafkaSource *source, char *hint, size_t size)
{
	if (strncmp(source->mechanism, "SCRAM", 5) == 0 && rd_kafka_version() < 0x020601ff)
		snprintf(hint, size, "librdkafka %s cannot log in to Kafka 4 by SCRAM: 2.6.1 or later can. "
				 "Older brokers, and the mechanism PLAIN over SSL, do work.",
				 rd_kafka_version_str());
	else if (strcmp(source->mechanism, "GSSAPI") == 0 && rd_kafka_version() < 0x020b00ff)
		snprintf(hint, size, "librdkafka %s cannot log in to Kafka 4 by GSSAPI: 2.11.0 or later can.",
				 rd_kafka_version_str());
	else if (source->mechanism[0] == '\0')
		snprintf(hint, size, "Set the server's options security_protocol and sasl_mechanism.");
	else
		snprintf(hint, size, "Check the user mapping's sasl_username and sasl_password, and the "
				 "server's sasl_mechanism.");
}

/* librdkafka tells how long it took, too, and so the same thing differently each time. */
static void
drop_times(char *detail)
{
	char	   *times = strstr(detail, " (after ");

	if (times != NULL)
		*times = '\0';
}

/*
 * What to do about a failure of TLS, by what OpenSSL says of it; NULL: not known.
 */
static const char *
certificate_hint(const char *detail)
{
	if (strstr(detail, "certificate verify failed") != NULL)
		return "The broker's certificate must be valid now, name its host, and come from an authority "
			"that ssl_ca_pem or ssl_ca_location has.";
	if (strstr(detail, " alert ") != NULL && strstr(detail, "certificate") != NULL)
		return "The broker wants a certificate that it trusts: set the user mapping's "
			"ssl_certificate_pem and ssl_key_pem.";
	return NULL;
}

/*
 * se_kafka_event
 */
bool
se_kafka_event(const KafkaSource *source, rd_kafka_resp_err_t error, const char *text,
			   int32 partition, int64 offset, SeSourceEvent *event)
{
	char		detail[240];

	/*
	 * The group is named because librdkafka insists on one; nothing is ever
	 * committed to it, so it does not matter when we are not allowed to use
	 * it or when it has no coordinator.
	 */
	if (error == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
		error == RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE ||
		error == RD_KAFKA_RESP_ERR__WAIT_COORD)
		return false;

	event->kind = classify(error, &event->sqlstate);
	if (event->kind == SE_EVENT_DATA && partition < 0)
	{
		/* no record, but an answer that is not Kafka's */
		event->kind = SE_EVENT_TRANSIENT;
		event->sqlstate = ERRCODE_CONNECTION_FAILURE;
	}
	event->partition = partition;
	event->offset = offset;
	event->hint[0] = '\0';
	event->doubt = leaves_doubt(error);
	se_kafka_copy_text(detail, sizeof(detail), text ? text : rd_kafka_err2str(error));
	drop_times(detail);

	switch (event->kind)
	{
		case SE_EVENT_OFFSET_LOST:
			snprintf(event->message, sizeof(event->message),
					 "offset " INT64_FORMAT " of partition %d is not in the topic", offset,
					 partition);
			snprintf(event->hint, sizeof(event->hint), "Retention has passed it, or the topic was "
					 "made anew.");
			break;
		case SE_EVENT_DATA:
			snprintf(event->message, sizeof(event->message),
					 "the record at offset " INT64_FORMAT " of partition %d cannot be fetched: %s",
					 offset, partition, detail);
			snprintf(event->hint, sizeof(event->hint), "stream_engine.skip() steps over it.");
			break;
		case SE_EVENT_CONFIG:
			if (event->sqlstate == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION)
			{
				snprintf(event->message, sizeof(event->message),
						 "Kafka refused the login: %s", detail);
				se_kafka_login_hint(source, event->hint, sizeof(event->hint));
				break;
			}
			/* FALLTHROUGH */
		default:
			snprintf(event->message, sizeof(event->message), "%s", detail);
			if (certificate_hint(detail) != NULL)
				strlcpy(event->hint, certificate_hint(detail), sizeof(event->hint));
			break;
	}
	return true;
}

/*
 * se_kafka_raise
 */
void
se_kafka_raise(KafkaSource *source, rd_kafka_resp_err_t error, const char *doing)
{
	char		detail[256];
	char		hint[200];
	int			sqlstate;

	/* what went wrong below explains a time-out better than the time-out */
	if ((error == RD_KAFKA_RESP_ERR__TRANSPORT || error == RD_KAFKA_RESP_ERR__TIMED_OUT ||
		 error == RD_KAFKA_RESP_ERR__WAIT_CACHE || error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
		 error == source->trouble) && source->trouble != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		error = source->trouble;
		strlcpy(detail, source->trouble_text, sizeof(detail));
	}
	else
		se_kafka_copy_text(detail, sizeof(detail), rd_kafka_err2str(error));

	drop_times(detail);
	(void) classify(error, &sqlstate);

	/* an answer that makes no sense is not Kafka's */
	if (sqlstate == ERRCODE_DATA_EXCEPTION)
		sqlstate = ERRCODE_CONNECTION_FAILURE;
	switch (sqlstate)
	{
		case ERRCODE_UNDEFINED_OBJECT:
			ereport(ERROR,
					(errcode(sqlstate),
					 errmsg("topic \"%s\" does not exist", source->topic),
					 errdetail("Kafka at \"%s\" says: %s.", source->brokers, detail),
					 errhint("Create the topic first; reading does not create it.")));
			break;
		case ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION:
			se_kafka_login_hint(source, hint, sizeof(hint));
			ereport(ERROR,
					(errcode(sqlstate),
					 errmsg("Kafka at \"%s\" refused the login", source->brokers),
					 errdetail("librdkafka says: %s.", detail),
					 errhint("%s", hint)));
			break;
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			ereport(ERROR,
					(errcode(sqlstate),
					 errmsg("Kafka does not allow to read topic \"%s\"", source->topic),
					 errdetail("Kafka at \"%s\" says: %s.", source->brokers, detail),
					 errhint("The Kafka user needs the operations READ and DESCRIBE on the topic.")));
			break;
		case ERRCODE_CONNECTION_FAILURE:
			ereport(ERROR,
					(errcode(sqlstate),
					 errmsg("could not reach Kafka at \"%s\"", source->brokers),
					 errdetail("While %s: %s.", doing, detail),
					 certificate_hint(detail) ? errhint("%s", certificate_hint(detail)) :
					 errhint("Check the server's option bootstrap_servers, that the broker runs, and "
							 "that it speaks the server's security_protocol.")));
			break;
		default:
			ereport(ERROR,
					(errcode(sqlstate),
					 errmsg("Kafka at \"%s\" failed", source->brokers),
					 errdetail("While %s: %s.", doing, detail)));
			break;
	}
	pg_unreachable();
}
