/*
 * kafka_options.c
 *	  Which of librdkafka's properties may be set, where and by whom.
 *
 * NOTES
 *	  librdkafka takes the view that filtering its properties is the
 *	  application's duty: some load code, run commands, read files or open
 *	  sockets, a few already while they are being set.  So this is an allow-list,
 *	  applied before librdkafka sees anything.  An option has the property's name
 *	  with underscores for dots.  Properties that are known and refused are
 *	  listed with the reason, which goes into the error's detail.
 *
 *	  Secrets are allowed on user mappings only, where others cannot read them,
 *	  and no message shows their values.  What names a file of the server needs
 *	  the rights of pg_read_server_files: the user's who sets it, and whenever it
 *	  is used those of the server's owner (options of the server) or of the user
 *	  who reads the stream (options of the user mapping).  Passwords, keys and
 *	  certificates in files are read by us each time a stream is opened, so
 *	  that a changed one is taken up at the next connection.
 *
 *	  GSSAPI makes librdkafka run kinit through a shell unless its refresh is
 *	  switched off, which is done always; who wants GSSAPI keeps the ticket
 *	  fresh outside.  Still only superusers may ask for it.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "kafka.h"
#include "options.h"

typedef enum PropertyKind
{
	PROPERTY_TEXT,
	PROPERTY_SECRET,			/* text that is never shown */
	PROPERTY_BROKERS,
	PROPERTY_INTEGER,
	PROPERTY_BOOL,
	PROPERTY_CHOICE,
	PROPERTY_LOCATION,			/* a file that librdkafka reads */
	PROPERTY_FILE				/* a file that we read; its content is the value */
} PropertyKind;

typedef struct Property
{
	const char *option;
	const char *name;			/* librdkafka's */
	int			place;
	PropertyKind kind;
	bool		superuser;		/* only superusers may set it */
	int64		low;			/* of PROPERTY_INTEGER */
	int64		high;
	const char *choices[6];		/* of PROPERTY_CHOICE */
} Property;

#define ON_BOTH (SE_ON_SERVER | SE_ON_TABLE)

#define TEXT(option, name, place) {option, name, place, PROPERTY_TEXT, false, 0, 0, {NULL}}
#define SECRET(option, name) {option, name, SE_ON_MAPPING, PROPERTY_SECRET, false, 0, 0, {NULL}}
#define NUMBER(option, name, place, low, high) \
	{option, name, place, PROPERTY_INTEGER, false, low, high, {NULL}}
#define BOOLEAN(option, name, privileged) \
	{option, name, SE_ON_SERVER, PROPERTY_BOOL, privileged, 0, 0, {NULL}}
#define LOCATION(option, name, place) \
	{option, name, place, PROPERTY_LOCATION, false, 0, 0, {NULL}}
#define CONTENT(option, name, place) {option, name, place, PROPERTY_FILE, false, 0, 0, {NULL}}

static const Property properties[] = {
	{"bootstrap_servers", "bootstrap.servers", SE_ON_SERVER, PROPERTY_BROKERS, false, 0, 0, {NULL}},
	{"security_protocol", "security.protocol", SE_ON_SERVER, PROPERTY_CHOICE, false, 0, 0,
	{"plaintext", "ssl", "sasl_plaintext", "sasl_ssl", NULL}},
	{"sasl_mechanism", "sasl.mechanism", SE_ON_SERVER, PROPERTY_CHOICE, false, 0, 0,
	{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", NULL}},
	{"sasl_kerberos_service_name", "sasl.kerberos.service.name", SE_ON_SERVER, PROPERTY_TEXT, true,
	0, 0, {NULL}},

	/* who logs in, and how to prove it */
	TEXT("sasl_username", "sasl.username", SE_ON_MAPPING),
	SECRET("sasl_password", "sasl.password"),
	CONTENT("sasl_password_file", "sasl.password", SE_ON_MAPPING),
	TEXT("ssl_certificate_pem", "ssl.certificate.pem", SE_ON_MAPPING),
	CONTENT("ssl_certificate_file", "ssl.certificate.pem", SE_ON_MAPPING),
	SECRET("ssl_key_pem", "ssl.key.pem"),
	CONTENT("ssl_key_file", "ssl.key.pem", SE_ON_MAPPING),
	SECRET("ssl_key_password", "ssl.key.password"),
	CONTENT("ssl_key_password_file", "ssl.key.password", SE_ON_MAPPING),
	LOCATION("ssl_keystore_location", "ssl.keystore.location", SE_ON_MAPPING),
	SECRET("ssl_keystore_password", "ssl.keystore.password"),
	CONTENT("ssl_keystore_password_file", "ssl.keystore.password", SE_ON_MAPPING),

	/* whom to trust */
	TEXT("ssl_ca_pem", "ssl.ca.pem", SE_ON_SERVER),
	LOCATION("ssl_ca_location", "ssl.ca.location", SE_ON_SERVER),
	LOCATION("ssl_crl_location", "ssl.crl.location", SE_ON_SERVER),
	TEXT("ssl_cipher_suites", "ssl.cipher.suites", SE_ON_SERVER),
	TEXT("ssl_curves_list", "ssl.curves.list", SE_ON_SERVER),
	TEXT("ssl_sigalgs_list", "ssl.sigalgs.list", SE_ON_SERVER),
	BOOLEAN("enable_ssl_certificate_verification", "enable.ssl.certificate.verification", true),
	{"ssl_endpoint_identification_algorithm", "ssl.endpoint.identification.algorithm",
		SE_ON_SERVER, PROPERTY_CHOICE, true, 0, 0, {"none", "https", NULL}},

	/* names that the brokers' logs and access lists see */
	TEXT("client_id", "client.id", ON_BOTH),
	TEXT("group_id", "group.id", ON_BOTH),

	/* fetching: speed, memory, latency */
	NUMBER("queued_min_messages", "queued.min.messages", ON_BOTH, 1, 10000000),
	NUMBER("queued_max_messages_kbytes", "queued.max.messages.kbytes", ON_BOTH, 1, 2097151),
	NUMBER("fetch_message_max_bytes", "fetch.message.max.bytes", ON_BOTH, 1, 1000000000),
	NUMBER("fetch_max_bytes", "fetch.max.bytes", ON_BOTH, 1000000, 2147483135),
	NUMBER("fetch_min_bytes", "fetch.min.bytes", ON_BOTH, 1, 100000000),
	NUMBER("fetch_wait_max_ms", "fetch.wait.max.ms", ON_BOTH, 0, 300000),
	NUMBER("fetch_error_backoff_ms", "fetch.error.backoff.ms", ON_BOTH, 0, 300000),
	NUMBER("fetch_queue_backoff_ms", "fetch.queue.backoff.ms", ON_BOTH, 0, 300000),
	BOOLEAN("check_crcs", "check.crcs", false),

	/* connections */
	NUMBER("socket_timeout_ms", "socket.timeout.ms", SE_ON_SERVER, 10, 300000),
	NUMBER("socket_connection_setup_timeout_ms", "socket.connection.setup.timeout.ms",
		   SE_ON_SERVER, 1000, 2147483647),
	NUMBER("socket_receive_buffer_bytes", "socket.receive.buffer.bytes", SE_ON_SERVER, 0,
		   100000000),
	BOOLEAN("socket_keepalive_enable", "socket.keepalive.enable", false),
	NUMBER("connections_max_idle_ms", "connections.max.idle.ms", SE_ON_SERVER, 0, 2147483647),
	NUMBER("reconnect_backoff_ms", "reconnect.backoff.ms", SE_ON_SERVER, 0, 3600000),
	NUMBER("reconnect_backoff_max_ms", "reconnect.backoff.max.ms", SE_ON_SERVER, 0, 3600000),
	NUMBER("topic_metadata_refresh_interval_ms", "topic.metadata.refresh.interval.ms",
		   SE_ON_SERVER, 1000, 3600000),
	NUMBER("broker_address_ttl", "broker.address.ttl", SE_ON_SERVER, 0, 86400000),
	{"broker_address_family", "broker.address.family", SE_ON_SERVER, PROPERTY_CHOICE, false, 0, 0,
	{"any", "v4", "v6", NULL}},
};

/* Properties that exist and are refused.  A name may end in "*". */
static const struct
{
	const char *option;
	const char *reason;
}			refused[] = {
	{"plugin_library_paths", "It loads code into the server."},
	{"ssl_engine_*", "It loads code into the server."},
	{"ssl_providers", "It loads code into the server."},
	{"sasl_kerberos_kinit_cmd", "It runs a command on the server."},
	{"sasl_kerberos_keytab", "It becomes part of a command that would run on the server."},
	{"sasl_kerberos_principal", "It becomes part of a command that would run on the server."},
	{"sasl_kerberos_min_time_before_relogin",
	"Renewing tickets would run a command on the server."},
	{"sasl_oauthbearer_*", "This build of librdkafka has only the unsecured form of it."},
	{"enable_sasl_oauthbearer_unsecure_jwt", "It is not a secure login."},
	{"test_mock_num_brokers", "It opens listening sockets inside the server."},
	{"offset_store_*", "Offsets are kept in the database; this would write files on the server."},
	{"metadata_broker_list", "It is another name of bootstrap_servers."},
	{"sasl_mechanisms", "It is another name of sasl_mechanism."},
	{"ssl_certificate_location", "Use ssl_certificate_file or ssl_certificate_pem."},
	{"ssl_key_location", "Use ssl_key_file or ssl_key_pem."},
	{"ssl_ca_certificate_stores", "It exists on another operating system only."},
	{"debug", "It would flood the server's log, and may show secrets."},
	{"log_*", "The engine owns it."},
	{"statistics_interval_ms", "The engine owns it."},
	{"enable_auto_*", "The engine owns it: offsets are committed in the database."},
	{"auto_commit_*", "The engine owns it: offsets are committed in the database."},
	{"auto_offset_reset", "The engine owns it: where to begin is the stream's option \"start\"."},
	{"isolation_level", "The engine owns it: only committed records are read."},
	{"enable_partition_eof", "The engine owns it."},
	{"allow_auto_create_topics", "The engine owns it: reading never creates a topic."},
	{"group_instance_id", "The engine assigns partitions itself."},
	{"group_protocol*", "The engine assigns partitions itself."},
	{"partition_assignment_strategy", "The engine assigns partitions itself."},
	{"session_timeout_ms", "The engine assigns partitions itself."},
	{"heartbeat_interval_ms", "The engine assigns partitions itself."},
	{"max_poll_interval_ms", "The engine assigns partitions itself."},
	{"client_rack", "Reading from followers is not safe with this librdkafka."},
	{"receive_message_max_bytes", "It follows from fetch_max_bytes."},
	{"max_partition_fetch_bytes", "It is another name of fetch_message_max_bytes."},
	{"consume_callback_*", "The engine owns it."},
	{"enable_random_seed", "The engine owns it."},
	{"internal_termination_signal", "The engine owns it."},
	{"enabled_events", "The engine owns it."},
	{"interceptors", "It is for programs that link librdkafka."},
	{"opaque", "It is for programs that link librdkafka."},
	{"default_topic_conf", "It is for programs that link librdkafka."},
	{"*_cb", "It is for programs that link librdkafka."},
	{"transactional_id", "Nothing is written to Kafka."},
	{"transaction_timeout_ms", "Nothing is written to Kafka."},
	{"enable_idempotence", "Nothing is written to Kafka."},
	{"acks", "Nothing is written to Kafka."},
	{"request_required_acks", "Nothing is written to Kafka."},
	{"linger_ms", "Nothing is written to Kafka."},
	{"batch_*", "Nothing is written to Kafka."},
	{"compression_*", "Nothing is written to Kafka."},
	{"message_timeout_ms", "Nothing is written to Kafka."},
	{"queue_buffering_*", "Nothing is written to Kafka."},
};

static const Property *
find_property(const char *option)
{
	for (int i = 0; i < lengthof(properties); i++)
	{
		if (strcmp(properties[i].option, option) == 0)
			return &properties[i];
	}
	return NULL;
}

static const char *
reason_refused(const char *option)
{
	for (int i = 0; i < lengthof(refused); i++)
	{
		const char *pattern = refused[i].option;
		size_t		length = strlen(pattern);

		if (pattern[0] == '*')
		{
			size_t		option_length = strlen(option);

			if (option_length >= length - 1 &&
				strcmp(option + option_length - (length - 1), pattern + 1) == 0)
				return refused[i].reason;
		}
		else if (pattern[length - 1] == '*')
		{
			if (strncmp(option, pattern, length - 1) == 0)
				return refused[i].reason;
		}
		else if (strcmp(option, pattern) == 0)
			return refused[i].reason;
	}
	return NULL;
}

/* "server", "user mapping", "server or foreign table", ... */
static const char *
places_of(const Property *property)
{
	if (property->place == ON_BOTH)
		return "server or the foreign table";
	return se_option_place_name(property->place);
}

/*
 * No such property, or not here: raise the error that says why.
 */
static void
refuse_option(const char *option, int place)
{
	const char *names[lengthof(properties) + 32];
	int			nnames = 0;
	char	   *underscored = pstrdup(option);
	const char *reason;

	for (char *c = underscored; *c; c++)
	{
		if (*c == '.')
			*c = '_';
	}

	reason = reason_refused(underscored);
	if (reason != NULL)
		se_invalid_option(option, place, reason, NULL);
	if (find_property(underscored) != NULL)
		se_invalid_option(option, place, "Options are written with underscores.", underscored);

	for (int i = 0; i < lengthof(properties); i++)
	{
		if (properties[i].place & place)
			names[nnames++] = properties[i].option;
	}
	nnames += se_stream_option_names(place, names + nnames, lengthof(names) - nnames);
	se_invalid_option(option, place, NULL, se_closest_name(underscored, names, nnames));
}

/*
 * host[:port][,...] with at least one host.  librdkafka only logs a warning
 * for an empty list, and then waits for ever.
 */
static void
check_brokers(const char *option, const char *value)
{
	const char *p = value;

	for (;;)
	{
		const char *end = p + strcspn(p, ",");
		const char *host = p;
		const char *port = NULL;

		while (host < end && isspace((unsigned char) *host))
			host++;
		for (const char *c = end; c > host; c--)
		{
			if (c[-1] == ':')
			{
				port = c;
				break;
			}
			if (!isdigit((unsigned char) c[-1]) && !isspace((unsigned char) c[-1]))
				break;
		}
		if (host == end || port == host + 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" must not be empty or hold an empty entry", option),
					 errhint("Write it as \"host:port\", or several of these with commas between.")));
		if (port != NULL)
		{
			long		number = strtol(port, NULL, 10);

			if (number < 1 || number > 65535)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("invalid port in option \"%s\": \"%s\"", option, value)));
		}
		if (*end == '\0')
			break;
		p = end + 1;
	}
}

/* Files and what only superusers may set: "role" is who sets or uses it. */
static void
check_privilege(const Property *property, const char *value, Oid role)
{
	if ((property->kind == PROPERTY_FILE || property->kind == PROPERTY_LOCATION) &&
		!has_privs_of_role(role, ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for option \"%s\"", property->option),
				 errdetail("Only roles with privileges of the \"pg_read_server_files\" role may "
						   "name files of the server.")));
	if (property->superuser && !superuser_arg(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for option \"%s\"", property->option),
				 errdetail("Only superusers may set it.")));
	if (strcmp(property->name, "sasl.mechanism") == 0 && strcmp(value, "GSSAPI") == 0 &&
		!superuser_arg(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for option \"%s\"", property->option),
				 errdetail("Only superusers may use the mechanism GSSAPI.")));
}

static void
check_value(const Property *property, const char *value)
{
	switch (property->kind)
	{
		case PROPERTY_INTEGER:
			(void) se_option_integer(property->option, value, property->low, property->high);
			break;
		case PROPERTY_BOOL:
			if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"%s\" must be \"true\" or \"false\"", property->option)));
			break;
		case PROPERTY_CHOICE:
			{
				StringInfoData list;

				initStringInfo(&list);
				for (int i = 0; property->choices[i] != NULL; i++)
				{
					if (strcmp(value, property->choices[i]) == 0)
						return;
					appendStringInfo(&list, "%s\"%s\"", i == 0 ? "" : ", ", property->choices[i]);
				}
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("invalid value for option \"%s\": \"%s\"", property->option, value),
						 errhint("Valid values are: %s.", list.data)));
			}
			break;
		case PROPERTY_BROKERS:
			check_brokers(property->option, value);
			break;
		case PROPERTY_LOCATION:
		case PROPERTY_FILE:
			if (!is_absolute_path(value))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"%s\" must be an absolute path", property->option)));
			break;
		case PROPERTY_TEXT:
		case PROPERTY_SECRET:
			if (value[0] == '\0')
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"%s\" must not be empty", property->option)));
			break;
	}
}

/* At most one option for each of librdkafka's properties. */
static void
check_conflicts(List *options)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		const Property *property = find_property(lfirst_node(DefElem, cell)->defname);
		ListCell   *other;

		if (property == NULL)
			continue;
		for_each_cell(other, options, lnext(options, cell))
		{
			const Property *second = find_property(lfirst_node(DefElem, other)->defname);

			if (second != NULL && strcmp(property->name, second->name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_SYNTAX_ERROR),
						 errmsg("options \"%s\" and \"%s\" exclude each other", property->option,
								second->option)));
		}
	}
}

/*
 * se_kafka_validate
 *		All options of a server, user mapping, foreign table or column.
 */
void
se_kafka_validate(List *options, int place)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		const char *option = def->defname;
		char	   *value = defGetString(def);
		const Property *property = find_property(option);

		if (property == NULL)
		{
			if (!se_stream_option_check(option, value, place))
				refuse_option(option, place);
			continue;
		}
		if ((property->place & place) == 0)
			se_invalid_option(option, place,
							  psprintf(property->place == SE_ON_MAPPING ?
									   "This option belongs on the %s, where others cannot read it." :
									   "This option belongs on the %s.", places_of(property)), NULL);
		check_value(property, value);
		check_privilege(property, value, GetUserId());
	}
	check_conflicts(options);

	if (place == SE_ON_SERVER && se_option_value(options, "bootstrap_servers") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"bootstrap_servers\" is required for a server of "
						"stream_engine_kafka"),
				 errhint("Write it as OPTIONS (bootstrap_servers 'host:port').")));
	if (place == SE_ON_TABLE && se_option_value(options, "topic") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"topic\" is required for a foreign table of "
						"stream_engine_kafka")));
}

/*
 * The content of a file, without the line end that editors leave.
 */
static char *
file_content(const Property *property, const char *path)
{
	FILE	   *file;
	struct stat status;
	StringInfoData content;
	char		buffer[4096];
	size_t		n;

	file = AllocateFile(path, PG_BINARY_R);
	if (file == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open the file of option \"%s\": %m", property->option)));
	if (fstat(fileno(file), &status) != 0 || !S_ISREG(status.st_mode) ||
		status.st_size > 1024 * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("the file of option \"%s\" is not a regular file of at most 1 MB",
						property->option)));

	initStringInfo(&content);
	while ((n = fread(buffer, 1, sizeof(buffer), file)) > 0)
		appendBinaryStringInfo(&content, buffer, n);
	if (ferror(file))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read the file of option \"%s\": %m", property->option)));
	FreeFile(file);

	while (content.len > 0 &&
		   (content.data[content.len - 1] == '\n' || content.data[content.len - 1] == '\r'))
		content.data[--content.len] = '\0';
	if (content.len == 0 || strlen(content.data) != content.len)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the file of option \"%s\" is empty or holds zero bytes",
						property->option)));
	return content.data;
}

static List *
add_setting(List *settings, const char *name, const char *value, const char *option, bool secret)
{
	SeKafkaSetting *setting;
	ListCell   *cell;

	/* a later one replaces an earlier one: the table's the server's */
	foreach(cell, settings)
	{
		setting = lfirst(cell);
		if (strcmp(setting->name, name) == 0)
		{
			setting->value = value;
			setting->option = option;
			setting->secret = secret;
			return settings;
		}
	}
	setting = palloc(sizeof(SeKafkaSetting));
	setting->name = name;
	setting->value = value;
	setting->option = option;
	setting->secret = secret;
	return lappend(settings, setting);
}

static List *
add_options(List *settings, List *options, int place, Oid role)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		char	   *value = defGetString(def);
		const Property *property = find_property(def->defname);

		if (property == NULL || (property->place & place) == 0)
			continue;			/* an option of the stream, checked elsewhere */
		check_value(property, value);
		check_privilege(property, value, role);
		if (property->kind == PROPERTY_FILE)
			value = file_content(property, value);
		settings = add_setting(settings, property->name, value, property->option,
							   property->kind == PROPERTY_SECRET ||
							   property->kind == PROPERTY_FILE);
	}
	return settings;
}

/*
 * se_kafka_settings
 */
List *
se_kafka_settings(Oid relid, Oid userid, const char **mechanism)
{
	ForeignTable *table = GetForeignTable(relid);
	ForeignServer *server = GetForeignServer(table->serverid);
	List	   *mapping = se_user_mapping_options(userid, server->serverid);
	List	   *settings = NIL;
	const char *protocol;

	/* defaults that options may change */
	settings = add_setting(settings, "client.id", "stream_engine", NULL, false);
	settings = add_setting(settings, "group.id", "stream_engine", NULL, false);

	/*
	 * A short queue stays in the processor's caches and takes little memory.  The number
	 * counts over all partitions.  When a limit of it is reached, librdkafka before 2.2
	 * would look again after up to a second, but is woken (kafka_fetch.c).
	 */
	settings = add_setting(settings, "queued.min.messages", "100000", NULL, false);
	settings = add_setting(settings, "queued.max.messages.kbytes", "65536", NULL, false);
	if (rd_kafka_version() >= 0x02020000)
		settings = add_setting(settings, "fetch.queue.backoff.ms", "10", NULL, false);
	settings = add_setting(settings, "fetch.message.max.bytes", "1048576", NULL, false);
	settings = add_setting(settings, "fetch.max.bytes", "16777216", NULL, false);
	settings = add_setting(settings, "fetch.wait.max.ms", "100", NULL, false);
	settings = add_setting(settings, "fetch.error.backoff.ms", "100", NULL, false);
	settings = add_setting(settings, "socket.timeout.ms", "30000", NULL, false);
	settings = add_setting(settings, "socket.keepalive.enable", "true", NULL, false);
	settings = add_setting(settings, "reconnect.backoff.ms", "100", NULL, false);
	settings = add_setting(settings, "reconnect.backoff.max.ms", "1000", NULL, false);
	settings = add_setting(settings, "topic.metadata.refresh.interval.ms", "60000", NULL, false);

	protocol = se_option_value(server->options, "security_protocol");
	*mechanism = NULL;
	if (protocol != NULL && strncmp(protocol, "sasl", 4) == 0)
	{
		*mechanism = se_option_value(server->options, "sasl_mechanism");
		if (*mechanism == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
					 errmsg("server \"%s\" needs the option \"sasl_mechanism\"",
							server->servername),
					 errdetail("Its security_protocol is \"%s\".", protocol)));
		if (strcmp(*mechanism, "GSSAPI") != 0 &&
			(se_option_value(mapping, "sasl_username") == NULL ||
			 (se_option_value(mapping, "sasl_password") == NULL &&
			  se_option_value(mapping, "sasl_password_file") == NULL)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
					 errmsg("no user name and password for server \"%s\" and user \"%s\"",
							server->servername, GetUserNameFromId(userid, true)),
					 errhint("Give a user mapping the options sasl_username and sasl_password or "
							 "sasl_password_file.")));
	}

	settings = add_options(settings, server->options, SE_ON_SERVER, server->owner);
	settings = add_options(settings, table->options, SE_ON_TABLE, userid);
	settings = add_options(settings, mapping, SE_ON_MAPPING, userid);

	/* what the engine relies on: last, so that nothing can undo it */
	settings = add_setting(settings, "enable.auto.commit", "false", NULL, false);
	settings = add_setting(settings, "enable.auto.offset.store", "false", NULL, false);
	settings = add_setting(settings, "auto.offset.reset", "error", NULL, false);
	settings = add_setting(settings, "enable.partition.eof", "true", NULL, false);
	settings = add_setting(settings, "isolation.level", "read_committed", NULL, false);
	settings = add_setting(settings, "allow.auto.create.topics", "false", NULL, false);
	settings = add_setting(settings, "log.queue", "true", NULL, false);
	/* what a partition's leader answers in place of records is told in no other way */
	settings = add_setting(settings, "debug", "topic", NULL, false);
	settings = add_setting(settings, "topic.metadata.propagation.max.ms", "5000", NULL, false);
	settings = add_setting(settings, "log.connection.close", "false", NULL, false);
	if (*mechanism != NULL && strcmp(*mechanism, "GSSAPI") == 0)
		settings = add_setting(settings, "sasl.kerberos.min.time.before.relogin", "0", NULL, false);
	return settings;
}
