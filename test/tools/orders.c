/*
 * orders.c
 *	  Generate orders as JSON, with disorder, late, bad and future ones; write
 *	  them to a file, a topic, or both.
 *
 * NOTES
 *	  The same options and seed give the same records: each record draws from
 *	  a generator of its own, seeded by (seed, number).  Record i has its place
 *	  in event time at start + i / rate; disorder puts its event time up to so
 *	  many seconds before that.  So the event time never runs ahead of the
 *	  place (but for future records), and records of a partition are out of
 *	  order by less than the disorder.
 *
 *	  With --pace the place is the wall clock instead: the record's event time
 *	  is the moment at which it was handed to the client library.
 *
 *	  The file has one line a record: partition, timestamp in ms, payload,
 *	  separated by tabs; \N is a NULL payload.  Line order is offset order in
 *	  each partition of a topic that was empty.  Records of aborted transactions
 *	  are not in the file.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common.h"

#define MAX_PARTITIONS 1024
#define MAX_PAYLOAD 512
#define FUTURE_US (100LL * 31557600 * 1000000)	/* a future record is 100 years ahead */
#define LEAST_SLEEP_US 500

static const char *usage =
"orders: a generator of orders for tests and benchmarks.\n"
"\n"
"Usage: orders [OPTION]...\n"
"\n"
"What\n"
"  --count N            records (default 1000000)\n"
"  --first N            number of the first one, its order_id (0)\n"
"  --partitions P       (4)\n"
"  --seed S             (1)\n"
"  --users K            users 0..K-1 (100000)\n"
"  --skew Z             0: users are uniform; larger: low numbers come more often (0)\n"
"  --categories C       1..8 (8)\n"
"  --amount FORM        number: 123.45; string: \"123.45\" (number)\n"
"  --partition-by HOW   round, random, user (random)\n"
"  --key HOW            the message key: none, user (none)\n"
"\n"
"When\n"
"  --start TIME         place of record 0 in event time (2025-01-01T00:00:00Z)\n"
"  --rate R             records per second of event time (1000)\n"
"  --disorder SECONDS   event times lie up to this before their place (2; 0 with --pace)\n"
"  --late SHARE         of the records; these lie LATE-BY to 2*LATE-BY seconds back (0)\n"
"  --late-by SECONDS    (120)\n"
"  --end-marker SECONDS one more record in each partition, so far after the last place\n"
"\n"
"Trouble\n"
"  --bad SHARE          broken JSON, amounts, times, numbers, UTF-8; negative amounts (0)\n"
"  --future SHARE       event time 100 years ahead (0)\n"
"  --tombstones SHARE   NULL payloads (0)\n"
"  --transaction N      transactions of N records (none)\n"
"  --abort SHARE        of the transactions (0)\n"
"\n"
"Where\n"
"  --file PATH          - is stdout\n"
"  --brokers LIST --topic NAME\n"
"  -X PROPERTY=VALUE    of the producer\n"
"  --summary PATH       counts, as JSON (- is stdout; default stderr)\n"
"\n"
"How fast\n"
"  --pace R             R records per second of the wall clock, event time = wall clock\n"
"                       (default: as fast as possible)\n"
"  --throttle R         R records per second of the wall clock, event time as by --rate\n";

enum
{
	OPT_COUNT = 256, OPT_FIRST, OPT_PARTITIONS, OPT_SEED, OPT_USERS, OPT_SKEW, OPT_CATEGORIES,
	OPT_AMOUNT, OPT_PARTITION_BY, OPT_KEY, OPT_START, OPT_RATE, OPT_DISORDER, OPT_LATE,
	OPT_LATE_BY, OPT_END_MARKER, OPT_BAD, OPT_FUTURE, OPT_TOMBSTONES, OPT_TRANSACTION, OPT_ABORT,
	OPT_FILE, OPT_BROKERS, OPT_TOPIC, OPT_SUMMARY, OPT_PACE, OPT_THROTTLE
};

static const struct option options[] = {
	{"count", required_argument, NULL, OPT_COUNT},
	{"first", required_argument, NULL, OPT_FIRST},
	{"partitions", required_argument, NULL, OPT_PARTITIONS},
	{"seed", required_argument, NULL, OPT_SEED},
	{"users", required_argument, NULL, OPT_USERS},
	{"skew", required_argument, NULL, OPT_SKEW},
	{"categories", required_argument, NULL, OPT_CATEGORIES},
	{"amount", required_argument, NULL, OPT_AMOUNT},
	{"partition-by", required_argument, NULL, OPT_PARTITION_BY},
	{"key", required_argument, NULL, OPT_KEY},
	{"start", required_argument, NULL, OPT_START},
	{"rate", required_argument, NULL, OPT_RATE},
	{"disorder", required_argument, NULL, OPT_DISORDER},
	{"late", required_argument, NULL, OPT_LATE},
	{"late-by", required_argument, NULL, OPT_LATE_BY},
	{"end-marker", required_argument, NULL, OPT_END_MARKER},
	{"bad", required_argument, NULL, OPT_BAD},
	{"future", required_argument, NULL, OPT_FUTURE},
	{"tombstones", required_argument, NULL, OPT_TOMBSTONES},
	{"transaction", required_argument, NULL, OPT_TRANSACTION},
	{"abort", required_argument, NULL, OPT_ABORT},
	{"file", required_argument, NULL, OPT_FILE},
	{"brokers", required_argument, NULL, OPT_BROKERS},
	{"topic", required_argument, NULL, OPT_TOPIC},
	{"summary", required_argument, NULL, OPT_SUMMARY},
	{"pace", required_argument, NULL, OPT_PACE},
	{"throttle", required_argument, NULL, OPT_THROTTLE},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0}
};

static const char *const categories[] = {
	"books", "music", "games", "garden", "kitchen", "clothing", "sports", "electronics"
};
static const char *const countries[] = {"DE", "FR", "US", "GB", "IN", "BR", "JP", "ZA"};
static const char *const channels[] = {"web", "app", "shop", "phone"};
static const char *const states[] = {"paid", "open", "sent", "held"};

typedef enum RecordKind
{
	RECORD_GOOD, RECORD_LATE, RECORD_BAD, RECORD_FUTURE, RECORD_TOMBSTONE
} RecordKind;

/* The options, times in microseconds. */
static int64_t count = 1000000;
static int64_t first;
static int64_t partitions = 4;
static uint64_t seed = 1;
static int64_t users = 100000;
static double skew;
static int64_t category_count = 8;
static bool amount_as_string;
static enum {BY_ROUND, BY_RANDOM, BY_USER} partition_by = BY_RANDOM;
static bool key_is_user;
static int64_t start_us;
static double rate = 1000;
static int64_t disorder_us = -1;
static double late_share;
static int64_t late_by_us = 120 * 1000000LL;
static int64_t end_marker_us = -1;
static double bad_share;
static double future_share;
static double tombstone_share;
static int64_t transaction_size;
static double abort_share;
static double pace;
static double throttle;

/* What was made. */
static int64_t made[RECORD_TOMBSTONE + 1];
static int64_t aborted;
static int64_t bytes;
static int64_t per_partition[MAX_PARTITIONS];
static int64_t first_time = INT64_MAX;
static int64_t last_time = INT64_MIN;
static int64_t undelivered;
static rd_kafka_resp_err_t delivery_error;

/* splitmix64, by S. Vigna (public domain). */
static uint64_t
next_random(uint64_t *state)
{
	uint64_t	z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* Uniform in [0, 1). */
static double
next_share(uint64_t *state)
{
	return (double) (next_random(state) >> 11) * 0x1.0p-53;
}

/* Uniform in [0, n). */
static int64_t
next_below(uint64_t *state, int64_t n)
{
	return (int64_t) (((unsigned __int128) next_random(state) * (uint64_t) n) >> 64);
}

static char *
put_text(char *out, const char *text)
{
	size_t		length = strlen(text);

	memcpy(out, text, length);
	return out + length;
}

/* A number of at least "width" digits, padded with zeros. */
static char *
put_number(char *out, uint64_t value, int width)
{
	char		digits[20];
	int			n = 0;

	do
	{
		digits[n++] = '0' + value % 10;
		value /= 10;
	} while (value > 0);
	while (n < width)
		digits[n++] = '0';
	while (n > 0)
		*out++ = digits[--n];
	return out;
}

/* ISO 8601 in UTC with milliseconds; the date is computed once a day. */
static char *
put_time(char *out, int64_t us)
{
	static int64_t known_day = INT64_MIN;
	static char date[16];
	int64_t		seconds = us / 1000000 - (us % 1000000 < 0);
	int64_t		day = seconds / 86400 - (seconds % 86400 < 0);
	int64_t		in_day = seconds - day * 86400;

	if (day != known_day)
	{
		time_t		t = day * 86400;
		struct tm	tm;

		gmtime_r(&t, &tm);
		strftime(date, sizeof(date), "%Y-%m-%d", &tm);
		known_day = day;
	}
	out = put_text(out, date);
	*out++ = 'T';
	out = put_number(out, in_day / 3600, 2);
	*out++ = ':';
	out = put_number(out, in_day / 60 % 60, 2);
	*out++ = ':';
	out = put_number(out, in_day % 60, 2);
	*out++ = '.';
	out = put_number(out, (us - seconds * 1000000) / 1000, 3);
	*out++ = 'Z';
	return out;
}

static int64_t
parse_time(const char *text)
{
	struct tm	tm = {0};
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (end == NULL || (strcmp(end, "Z") != 0 && *end != '\0'))
		die("--start: \"%s\" is not of the form 2025-01-01T00:00:00Z", text);
	return (int64_t) timegm(&tm) * 1000000;
}

/*
 * Write the order's payload; returns its length.  "bad" is 0 for a good one,
 * else what is wrong with it.
 */
static int
put_order(char *buffer, int64_t number, int64_t user, int64_t event_us, int bad, uint64_t *random)
{
	char	   *out = buffer;
	int64_t		cents = 100 + next_below(random, 49900);
	uint64_t	dice = next_random(random);

	if (bad == 1)
		return put_text(out, "[1, 2, 3]") - buffer;

	out = put_text(out, "{\"order_id\":");
	out = put_number(out, number, 1);
	if (bad == 2)
		out = put_text(out, ".5");
	out = put_text(out, ",\"user\":{\"id\":");
	out = put_number(out, user, 1);
	out = put_text(out, ",\"country\":\"");
	out = put_text(out, countries[user % 8]);
	out = put_text(out, "\"},\"category\":\"");
	out = put_text(out, bad == 3 ? "\xff\xfe" : categories[dice % category_count]);
	out = put_text(out, "\",\"amount\":");
	if (bad == 4)
		out = put_text(out, "\"12,50 EUR\"");
	else
	{
		if (amount_as_string)
			*out++ = '"';
		if (bad == 5)
			*out++ = '-';
		out = put_number(out, cents / 100, 1);
		*out++ = '.';
		out = put_number(out, cents % 100, 2);
		if (amount_as_string)
			*out++ = '"';
	}
	out = put_text(out, ",\"currency\":\"EUR\",\"ts\":");
	if (bad == 6)
		out = put_text(out, "null");
	else if (bad == 7)
		out = put_text(out, "\"a while ago\"");
	else
	{
		*out++ = '"';
		out = put_time(out, event_us);
		*out++ = '"';
	}
	out = put_text(out, ",\"state\":\"");
	out = put_text(out, states[(dice >> 8) % 4]);
	out = put_text(out, "\",\"channel\":\"");
	out = put_text(out, channels[(dice >> 16) % 4]);
	out = put_text(out, "\",\"quantity\":");
	out = put_number(out, 1 + (dice >> 24) % 9, 1);
	out = put_text(out, ",\"warehouse\":\"WH-");
	out = put_number(out, (dice >> 32) % 100, 2);
	if (bad == 8)
		return out - buffer;
	out = put_text(out, "\",\"session\":\"");
	for (int i = 0; i < 10; i++)
		*out++ = "0123456789abcdef"[(dice >> (4 * i)) & 15];
	out = put_text(out, "\"}");
	return out - buffer;
}

static void
delivered(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	if (message->err)
	{
		undelivered++;
		delivery_error = message->err;
	}
}

static void
produce(rd_kafka_t *rk, rd_kafka_topic_t *topic, int32_t partition, int64_t timestamp_ms,
		int64_t user, const char *payload, size_t length)
{
	char		key[24];
	int			key_length = 0;

	if (key_is_user)
		key_length = put_number(key, user, 1) - key;
	for (;;)
	{
		rd_kafka_resp_err_t error;

		error = rd_kafka_producev(rk, RD_KAFKA_V_RKT(topic),
								  RD_KAFKA_V_PARTITION(partition),
								  RD_KAFKA_V_TIMESTAMP(timestamp_ms),
								  RD_KAFKA_V_KEY(key_is_user ? key : NULL, key_length),
								  RD_KAFKA_V_VALUE((void *) payload, payload ? length : 0),
								  RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
								  RD_KAFKA_V_END);
		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
			return;
		if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			die("cannot produce: %s", rd_kafka_err2str(error));
		rd_kafka_poll(rk, 100);
	}
}

static void
check(rd_kafka_error_t *error, const char *what)
{
	if (error != NULL)
		die("%s: %s", what, rd_kafka_error_string(error));
}

/*
 * End the open transaction.  What is to be aborted is sent first: records that
 * never reached the log would leave no trace there.
 */
static void
end_transaction(rd_kafka_t *rk, bool abort_it)
{
	if (abort_it)
	{
		rd_kafka_flush(rk, -1);
		check(rd_kafka_abort_transaction(rk, 30000), "abort_transaction");
	}
	else
		check(rd_kafka_commit_transaction(rk, 30000), "commit_transaction");
}

/*
 * Serve delivery reports until a moment of the monotonic clock, or nearly: records come in
 * bursts at high rates, as a sleep for each would cost more than the record.
 */
static void
sleep_until(rd_kafka_t *rk, int64_t deadline)
{
	int64_t		left = deadline - monotonic_us();

	if (left < LEAST_SLEEP_US)
		return;
	while ((left = deadline - monotonic_us()) > 0)
	{
		if (rk != NULL && left >= 2000)
			rd_kafka_poll(rk, left / 1000 - 1);
		else
		{
			struct timespec pause = {left / 1000000, left % 1000000 * 1000};

			nanosleep(&pause, NULL);
		}
	}
	if (rk != NULL)
		rd_kafka_poll(rk, 0);
}

static void
write_summary(const char *path, int64_t elapsed_us)
{
	FILE	   *file = stderr;
	char		from[40];
	char		to[40];
	int64_t		total = 0;

	if (path != NULL && strcmp(path, "-") == 0)
		file = stdout;
	else if (path != NULL && (file = fopen(path, "w")) == NULL)
		die("cannot write \"%s\": %m", path);

	for (int kind = 0; kind <= RECORD_TOMBSTONE; kind++)
		total += made[kind];
	*from = *to = '\0';
	if (first_time <= last_time)
	{
		*put_time(from, first_time) = '\0';
		*put_time(to, last_time) = '\0';
	}
	fprintf(file, "{\"records\":%lld,\"good\":%lld,\"late\":%lld,\"bad\":%lld,\"future\":%lld,"
			"\"tombstones\":%lld,\"aborted\":%lld,\"bytes\":%lld,\"bytes_per_record\":%.1f,"
			"\"first_time\":\"%s\",\"last_time\":\"%s\",\"seconds\":%.3f,\"partitions\":[",
			(long long) total, (long long) made[RECORD_GOOD], (long long) made[RECORD_LATE],
			(long long) made[RECORD_BAD], (long long) made[RECORD_FUTURE],
			(long long) made[RECORD_TOMBSTONE], (long long) aborted, (long long) bytes,
			total > 0 ? (double) bytes / total : 0.0, from, to, elapsed_us / 1e6);
	for (int64_t i = 0; i < partitions; i++)
		fprintf(file, "%s%lld", i > 0 ? "," : "", (long long) per_partition[i]);
	fprintf(file, "]}\n");
	if (file != stderr && fflush(file) != 0)
		die("cannot write the summary: %m");
}

int
main(int argc, char **argv)
{
	const char *brokers = NULL;
	const char *topic_name = NULL;
	const char *path = NULL;
	const char *summary = NULL;
	char	  **properties = xcalloc(argc, sizeof(char *));
	int			property_count = 0;
	rd_kafka_t *rk = NULL;
	rd_kafka_topic_t *topic = NULL;
	FILE	   *file = NULL;
	int64_t		began;
	int64_t		total;
	bool		in_aborted = false;
	uint64_t	transactions;
	int			opt;

	tool_name = "orders";
	start_us = parse_time("2025-01-01T00:00:00Z");
	while ((opt = getopt_long(argc, argv, "X:h", options, NULL)) != -1)
	{
		char		name[32] = "";

		for (const struct option *o = options; o->name; o++)
			if (o->val == opt)
				snprintf(name, sizeof(name), "--%s", o->name);
		switch (opt)
		{
			case OPT_COUNT:
				count = parse_int(name, optarg, 0, INT64_C(1000000000000));
				break;
			case OPT_FIRST:
				first = parse_int(name, optarg, 0, INT64_C(1000000000000));
				break;
			case OPT_PARTITIONS:
				partitions = parse_int(name, optarg, 1, MAX_PARTITIONS);
				break;
			case OPT_SEED:
				seed = parse_int(name, optarg, 0, INT64_MAX);
				break;
			case OPT_USERS:
				users = parse_int(name, optarg, 1, INT64_C(1000000000000));
				break;
			case OPT_SKEW:
				skew = parse_double(name, optarg, 0, 100);
				break;
			case OPT_CATEGORIES:
				category_count = parse_int(name, optarg, 1, 8);
				break;
			case OPT_AMOUNT:
				if (strcmp(optarg, "string") != 0 && strcmp(optarg, "number") != 0)
					die("--amount is number or string, not \"%s\"", optarg);
				amount_as_string = strcmp(optarg, "string") == 0;
				break;
			case OPT_PARTITION_BY:
				if (strcmp(optarg, "round") == 0)
					partition_by = BY_ROUND;
				else if (strcmp(optarg, "random") == 0)
					partition_by = BY_RANDOM;
				else if (strcmp(optarg, "user") == 0)
					partition_by = BY_USER;
				else
					die("--partition-by is round, random or user, not \"%s\"", optarg);
				break;
			case OPT_KEY:
				if (strcmp(optarg, "user") != 0 && strcmp(optarg, "none") != 0)
					die("--key is none or user, not \"%s\"", optarg);
				key_is_user = strcmp(optarg, "user") == 0;
				break;
			case OPT_START:
				start_us = parse_time(optarg);
				break;
			case OPT_RATE:
				rate = parse_double(name, optarg, 1e-6, 1e9);
				break;
			case OPT_DISORDER:
				disorder_us = parse_double(name, optarg, 0, 1e9) * 1e6;
				break;
			case OPT_LATE:
				late_share = parse_double(name, optarg, 0, 1);
				break;
			case OPT_LATE_BY:
				late_by_us = parse_double(name, optarg, 1e-6, 1e9) * 1e6;
				break;
			case OPT_END_MARKER:
				end_marker_us = parse_double(name, optarg, 0, 1e9) * 1e6;
				break;
			case OPT_BAD:
				bad_share = parse_double(name, optarg, 0, 1);
				break;
			case OPT_FUTURE:
				future_share = parse_double(name, optarg, 0, 1);
				break;
			case OPT_TOMBSTONES:
				tombstone_share = parse_double(name, optarg, 0, 1);
				break;
			case OPT_TRANSACTION:
				transaction_size = parse_int(name, optarg, 1, INT64_C(1000000000));
				break;
			case OPT_ABORT:
				abort_share = parse_double(name, optarg, 0, 1);
				break;
			case OPT_FILE:
				path = optarg;
				break;
			case OPT_BROKERS:
				brokers = optarg;
				break;
			case OPT_TOPIC:
				topic_name = optarg;
				break;
			case OPT_SUMMARY:
				summary = optarg;
				break;
			case OPT_PACE:
				pace = parse_double(name, optarg, 1e-3, 1e9);
				break;
			case OPT_THROTTLE:
				throttle = parse_double(name, optarg, 1e-3, 1e9);
				break;
			case 'X':
				properties[property_count++] = optarg;
				break;
			case 'h':
				fputs(usage, stdout);
				return 0;
			default:
				fputs("Try orders --help.\n", stderr);
				return 2;
		}
	}
	if (optind < argc)
		die("unexpected argument \"%s\"", argv[optind]);
	if ((brokers == NULL) != (topic_name == NULL))
		die("--brokers and --topic go together");
	if (brokers == NULL && path == NULL)
		die("neither --file nor --brokers is given");
	if (late_share + bad_share + future_share + tombstone_share > 1)
		die("the shares of late, bad, future and tombstone records exceed 1");
	if (transaction_size > 0 && brokers == NULL)
		die("--transaction needs --brokers");
	if (pace > 0 && throttle > 0)
		die("--pace and --throttle exclude each other");
	if (disorder_us < 0)
		disorder_us = pace > 0 ? 0 : 2000000;

	if (path != NULL)
	{
		file = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
		if (file == NULL)
			die("cannot write \"%s\": %m", path);
		setvbuf(file, NULL, _IOFBF, 1 << 20);
	}
	if (brokers != NULL)
	{
		rd_kafka_conf_t *conf = conf_new(brokers);

		conf_set(conf, "enable.idempotence", "true");
		conf_set(conf, "compression.codec", "lz4");
		conf_set(conf, "linger.ms", pace > 0 || throttle > 0 ? "0" : "50");
		conf_set(conf, "batch.num.messages", "1000");
		conf_set(conf, "queue.buffering.max.messages", "200000");
		conf_set(conf, "queue.buffering.max.kbytes", "131072");
		conf_set(conf, "delivery.report.only.error", "true");
		if (transaction_size > 0)
			conf_set(conf, "transactional.id", "orders");
		for (int i = 0; i < property_count; i++)
			conf_option(conf, properties[i]);
		rd_kafka_conf_set_dr_msg_cb(conf, delivered);
		rk = client_new(RD_KAFKA_PRODUCER, conf);
		switch (topic_partitions(rk, topic_name, 10000))
		{
			case -2:
				die("no broker answers at %s", brokers);
			case -1:
				die("topic \"%s\" does not exist", topic_name);
		}
		topic = rd_kafka_topic_new(rk, topic_name, NULL);
		if (transaction_size > 0)
			check(rd_kafka_init_transactions(rk, 30000), "init_transactions");
	}

	began = monotonic_us();
	transactions = ~seed;
	total = count + (end_marker_us >= 0 ? partitions : 0);
	for (int64_t i = 0; i < total; i++)
	{
		int64_t		number = first + i;
		bool		marker = i >= count;
		uint64_t	random = seed * UINT64_C(0xd1342543de82ef95) +
			number * UINT64_C(0xaf251af3b0f025b5);
		char		buffer[MAX_PAYLOAD];
		const char *payload = buffer;
		int			length = 0;
		RecordKind	kind = RECORD_GOOD;
		int64_t		place;
		int64_t		event;
		int64_t		user;
		int			partition;
		double		dice;

		if (transaction_size > 0 && i % transaction_size == 0)
		{
			if (i > 0)
				end_transaction(rk, in_aborted);
			check(rd_kafka_begin_transaction(rk), "begin_transaction");
			in_aborted = next_share(&transactions) < abort_share;
		}
		if (pace > 0 || throttle > 0)
			sleep_until(rk, began + (int64_t) (i * 1e6 / (pace > 0 ? pace : throttle)));
		place = pace > 0 ? wall_us() : start_us + llround(number * 1e6 / rate);

		user = skew > 0 ? (int64_t) (users * pow(next_share(&random), 1 + skew)) :
			next_below(&random, users);
		event = place;
		if (disorder_us > 0)
			event -= next_below(&random, disorder_us);
		partition = partition_by == BY_ROUND ? number % partitions :
			partition_by == BY_USER ? user % partitions : next_below(&random, partitions);

		dice = next_share(&random);
		if (marker)
		{
			event = place = place + end_marker_us;
			partition = i - count;
		}
		else if (dice < late_share)
		{
			kind = RECORD_LATE;
			event = place - late_by_us - next_below(&random, late_by_us);
		}
		else if ((dice -= late_share) < bad_share)
			kind = RECORD_BAD;
		else if ((dice -= bad_share) < future_share)
		{
			kind = RECORD_FUTURE;
			event = place + FUTURE_US;
		}
		else if ((dice -= future_share) < tombstone_share)
			kind = RECORD_TOMBSTONE;

		if (kind == RECORD_TOMBSTONE)
			payload = NULL;
		else
			length = put_order(buffer, number, user, event,
							   kind == RECORD_BAD ? 1 + next_below(&random, 8) : 0, &random);

		if (rk != NULL)
		{
			produce(rk, topic, partition, place / 1000, user, payload, length);
			if (i % 512 == 0)
				rd_kafka_poll(rk, 0);
		}
		if (in_aborted)
		{
			aborted++;
			continue;
		}
		if (file != NULL)
		{
			char		head[48];
			char	   *end = put_number(head, partition, 1);

			*end++ = '\t';
			end = put_number(end, place / 1000, 1);
			*end++ = '\t';
			fwrite(head, 1, end - head, file);
			if (payload != NULL)
				fwrite(payload, 1, length, file);
			else
				fputs("\\N", file);
			putc('\n', file);
		}
		made[kind]++;
		bytes += length;
		per_partition[partition]++;
		if (kind == RECORD_GOOD || kind == RECORD_LATE)
		{
			if (event < first_time)
				first_time = event;
			if (event > last_time)
				last_time = event;
		}
	}

	if (transaction_size > 0 && total > 0)
		end_transaction(rk, in_aborted);
	if (rk != NULL)
	{
		rd_kafka_flush(rk, -1);
		if (undelivered > 0)
			die("%lld records were not delivered: %s", (long long) undelivered,
				rd_kafka_err2str(delivery_error));
		rd_kafka_topic_destroy(topic);
		rd_kafka_destroy(rk);
	}
	if (file != NULL && (fflush(file) != 0 || ferror(file)))
		die("cannot write \"%s\": %m", path);
	write_summary(summary, monotonic_us() - began);
	free(properties);
	return 0;
}
