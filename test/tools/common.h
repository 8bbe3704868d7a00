/*
 * common.h
 *	  What the test tools share: errors, numbers, librdkafka configurations.
 */
#ifndef TOOLS_COMMON_H
#define TOOLS_COMMON_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <librdkafka/rdkafka.h>

/* The program's name, for messages; main() sets it. */
extern const char *tool_name;

/* Print a message to stderr and exit with status 1. */
extern void die(const char *format,...) __attribute__((format(printf, 1, 2), noreturn));

/* Parse a whole number or a decimal between two bounds, or die naming "what". */
extern int64_t parse_int(const char *what, const char *text, int64_t low, int64_t high);
extern double parse_double(const char *what, const char *text, double low, double high);

/* Memory, or die. */
extern void *xcalloc(size_t count, size_t size);
extern char *xstrdup(const char *text);

/* Microseconds: of the wall clock (since 1970) and of the monotonic clock. */
extern int64_t wall_us(void);
extern int64_t monotonic_us(void);

/* Microseconds of CPU that all threads of this process have used. */
extern int64_t cpu_us(void);

/*
 * A librdkafka configuration with the bootstrap servers set.  Options of the
 * form "property=value" are added by conf_option(), which dies on a bad one.
 */
extern rd_kafka_conf_t *conf_new(const char *brokers);
extern void conf_option(rd_kafka_conf_t *conf, const char *assignment);
extern void conf_set(rd_kafka_conf_t *conf, const char *name, const char *value);

/* A client handle, or die.  Takes the configuration. */
extern rd_kafka_t *client_new(rd_kafka_type_t type, rd_kafka_conf_t *conf);

/*
 * The number of partitions of a topic, asked of the broker for at most
 * timeout_ms; -1 if the topic does not exist or not all its partitions have a
 * leader; -2 if no broker answered.
 */
extern int	topic_partitions(rd_kafka_t *rk, const char *topic, int timeout_ms);

#endif							/* TOOLS_COMMON_H */
