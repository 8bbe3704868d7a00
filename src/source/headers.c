/*
 * headers.c
 *	  Headers of a record as jsonb.
 *
 * NOTES
 *	  Kafka's header values are bytes.  What is text (UTF-8 that the database can
 *	  hold) is shown as such, anything else as the hexadecimal form of bytea.
 */
#include "postgres.h"

#include <librdkafka/rdkafka.h>

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "headers.h"
#include "source.h"

/*
 * Bytes as a jsonb string in the server's encoding, never failing.
 */
static void
string_value(JsonbValue *value, const char *bytes, size_t size)
{
	char	   *hex;

	value->type = jbvString;
	if (size < 0x01000000 && pg_verify_mbstr(PG_UTF8, bytes, size, true))
	{
		if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		{
			value->val.string.val = (char *) bytes;
			value->val.string.len = size;
			return;
		}
		else
		{
			Oid			conversion = FindDefaultConversionProc(PG_UTF8, GetDatabaseEncoding());
			int			space = size * MAX_CONVERSION_GROWTH + 1;
			char	   *converted = palloc(space);

			if (OidIsValid(conversion) &&
				pg_do_encoding_conversion_buf(conversion, PG_UTF8, GetDatabaseEncoding(),
											  (unsigned char *) bytes, size,
											  (unsigned char *) converted, space, true) == size)
			{
				value->val.string.val = converted;
				value->val.string.len = strlen(converted);
				return;
			}
		}
	}
	hex = palloc(size * 2 + 3);
	strcpy(hex, "\\x");
	hex_encode(bytes, size, hex + 2);
	value->val.string.val = hex;
	value->val.string.len = size * 2 + 2;
}

/*
 * se_headers_of_record
 */
Datum
se_headers_of_record(const SeRecord *record)
{
	JsonbParseState *state = NULL;
	JsonbValue *object;
	rd_kafka_headers_t *headers;

	if (record->flags & SE_RECORD_JSONB_HEADERS)
		return record->handle ? PointerGetDatum(record->handle) :
			DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (record->handle != NULL &&
		rd_kafka_message_headers((rd_kafka_message_t *) record->handle, &headers) ==
		RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		const char *name;
		const void *bytes;
		size_t		size;

		for (size_t i = 0;
			 rd_kafka_header_get_all(headers, i, &name, &bytes, &size) ==
			 RD_KAFKA_RESP_ERR_NO_ERROR;
			 i++)
		{
			JsonbValue	value;

			string_value(&value, name, strlen(name));
			pushJsonbValue(&state, WJB_KEY, &value);
			if (bytes == NULL)
				value.type = jbvNull;
			else
				string_value(&value, bytes, size);
			pushJsonbValue(&state, WJB_VALUE, &value);
		}
	}
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(object));
}
