/*
 * metadata.c
 *	  Columns that come from a record's envelope rather than its payload.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "decoder_internal.h"
#include "vector.h"

Datum		(*se_record_headers) (const SeRecord *record) = NULL;

SeMetadata
se_metadata_of_column(const char *name)
{
	static const struct
	{
		const char *name;
		SeMetadata	metadata;
	}			names[] = {
		{"_partition", SE_META_PARTITION},
		{"_offset", SE_META_OFFSET},
		{"_timestamp", SE_META_TIMESTAMP},
		{"_key", SE_META_KEY},
		{"_headers", SE_META_HEADERS},
		{"_topic", SE_META_TOPIC},
		{"_processing_time", SE_META_PROCESSING_TIME}
	};

	if (name[0] != '_')
		return SE_META_NONE;
	for (int i = 0; i < lengthof(names); i++)
	{
		if (strcmp(name, names[i].name) == 0)
			return names[i].metadata;
	}
	return SE_META_NONE;
}

/* Raise an error if the column's type is not that of the metadata. */
void
se_metadata_check(const SeColumn *column)
{
	Oid			type = column->coercion.type;
	bool		good = false;
	const char *wanted = "";

	switch (column->metadata)
	{
		case SE_META_NONE:
			return;
		case SE_META_PARTITION:
			good = type == INT4OID;
			wanted = "integer";
			break;
		case SE_META_OFFSET:
			good = type == INT8OID;
			wanted = "bigint";
			break;
		case SE_META_TIMESTAMP:
		case SE_META_PROCESSING_TIME:
			good = type == TIMESTAMPTZOID;
			wanted = "timestamp with time zone";
			break;
		case SE_META_KEY:
			good = type == BYTEAOID || type == TEXTOID;
			wanted = "bytea or text";
			break;
		case SE_META_HEADERS:
			good = type == JSONBOID;
			wanted = "jsonb";
			break;
		case SE_META_TOPIC:
			good = type == TEXTOID;
			wanted = "text";
			break;
	}
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("metadata column \"%s\" must be of type %s", column->name, wanted),
				 errdetail("The column is of type %s.", format_type_be(type)),
				 errhint("A field of that name in the records needs another column name and option \"path\".")));
}

/* A text key, whose bytes must be text of the server. */
static void
text_key(SeDecoder *decoder, SeVector *vector, int row, int column)
{
	const SeRecord *record = &decoder->batch.records[row];
	const SeColumn *c = &decoder->columns[column];

	if (decoder->encode)
	{
		se_decoder_add_task(decoder, &decoder->values, row, column);
		return;
	}
	if (!pg_verify_mbstr(GetDatabaseEncoding(), record->key, record->key_len, true))
	{
		se_decoder_bad_row(decoder, row, c, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
						   "record key is not valid in encoding \"%s\"",
						   GetDatabaseEncodingName());
		return;
	}
	vector->v.text[row].data = record->key;
	vector->v.text[row].len = record->key_len;
}

/* Fill a metadata column for the batch. */
void
se_metadata_run(SeDecoder *decoder, int column)
{
	SeColumn   *c = &decoder->columns[column];
	SeVector   *vector = &decoder->batch.columns[c->attnum - 1];
	TimestampTz now = c->metadata == SE_META_PROCESSING_TIME ? GetCurrentTimestamp() : 0;

	for (int row = 0; row < decoder->batch.nrecords; row++)
	{
		const SeRecord *record = &decoder->batch.records[row];

		if (decoder->batch.verdict[row] != SE_RECORD_OK)
			continue;
		vector->null[row] = false;
		switch (c->metadata)
		{
			case SE_META_PARTITION:
				vector->v.i64[row] = record->partition;
				break;
			case SE_META_OFFSET:
				vector->v.i64[row] = record->offset;
				break;
			case SE_META_TIMESTAMP:
				if (record->timestamp == SE_NO_TIMESTAMP)
					se_vector_set(vector, row, TIMESTAMPTZOID, (Datum) 0, true);
				else
					vector->v.i64[row] = record->timestamp;
				break;
			case SE_META_KEY:
				if (record->key == NULL)
					se_vector_set(vector, row, c->coercion.type, (Datum) 0, true);
				else if (vector->rep == SE_REP_TEXT)
					text_key(decoder, vector, row, column);
				else if (c->needed)
				{
					bytea	   *key = MemoryContextAlloc(decoder->batch.context,
														 record->key_len + VARHDRSZ);

					SET_VARSIZE(key, record->key_len + VARHDRSZ);
					memcpy(VARDATA(key), record->key, record->key_len);
					vector->v.datum[row] = PointerGetDatum(key);
				}
				break;
			case SE_META_HEADERS:
				if (se_record_headers == NULL)
					se_vector_set(vector, row, JSONBOID, (Datum) 0, true);
				else
					se_decoder_add_task(decoder, &decoder->values, row, column);
				break;
			case SE_META_TOPIC:
				if (decoder->topic == NULL)
					se_vector_set(vector, row, TEXTOID, (Datum) 0, true);
				else
				{
					vector->v.text[row].data = decoder->topic;
					vector->v.text[row].len = strlen(decoder->topic);
				}
				break;
			case SE_META_PROCESSING_TIME:
				vector->v.i64[row] = now;
				break;
			case SE_META_NONE:
				break;
		}
	}
}

/* What may raise an error: headers, and keys in another encoding. */
void
se_metadata_task(SeDecoder *decoder, const SeTask *task)
{
	SeColumn   *column = &decoder->columns[task->column];
	SeVector   *vector = &decoder->batch.columns[column->attnum - 1];
	const SeRecord *record = &decoder->batch.records[task->row];

	if (column->metadata == SE_META_HEADERS)
		vector->v.datum[task->row] = se_record_headers(record);
	else
	{
		char	   *key = pnstrdup(record->key, record->key_len);

		if (strlen(key) != record->key_len)
			ereport(ERROR,
					(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
					 errmsg("record key contains a zero byte")));
		key = pg_any_to_server(key, record->key_len, PG_UTF8);
		vector->v.text[task->row].data = key;
		vector->v.text[task->row].len = strlen(key);
	}
}
