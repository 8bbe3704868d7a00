/*
 * json.c
 *	  JSON records: the values of the columns, and what is malformed.
 */
#include "postgres.h"

#include "decoder_internal.h"

/* The message of a malformed record, with the place where it is. */
static void
bad_record(SeDecoder *decoder, int row)
{
	SeJsonStatus status = decoder->status[row];
	const char *text = se_json_error_text(status.error);
	const char *payload = decoder->batch.records[row].payload;

	switch (status.error)
	{
		case SE_JSON_EMPTY:
		case SE_JSON_FRAMED:
			se_decoder_bad_row(decoder, row, NULL, ERRCODE_INVALID_TEXT_REPRESENTATION,
							   "invalid JSON: %s", text);
			break;
		case SE_JSON_UTF8:
			se_decoder_bad_row(decoder, row, NULL, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
							   "invalid JSON: invalid byte sequence for encoding \"UTF8\" "
							   "at byte %d: 0x%02x", status.position + 1,
							   (unsigned char) payload[status.position]);
			break;
		default:
			se_decoder_bad_row(decoder, row, NULL, ERRCODE_INVALID_TEXT_REPRESENTATION,
							   "invalid JSON: %s at byte %d", text, status.position + 1);
			break;
	}
}

/* Find the columns' values in the batch's records and coerce them. */
void
se_json_decoder_run(SeDecoder *decoder)
{
	SeBatch    *batch = &decoder->batch;

	if (!se_json_run(decoder->json, batch->records, batch->nrecords, decoder->status))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while parsing JSON records.")));

	for (int row = 0; row < batch->nrecords; row++)
	{
		if (unlikely(decoder->status[row].error != SE_JSON_OK))
			bad_record(decoder, row);
	}
	for (int i = 0; i < decoder->ncolumns; i++)
	{
		if (decoder->columns[i].metadata == SE_META_NONE)
			se_coerce_column(decoder, i, se_json_values(decoder->json, decoder->columns[i].slot));
	}
}
