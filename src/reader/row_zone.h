/*
 * row_zone.h
 *	  Rows that have time zones of their own.
 */
#ifndef SE_ROW_ZONE_H
#define SE_ROW_ZONE_H

#include "reader.h"

/*
 * The row's time zone, NULL for that of the query; false, and the record has
 * failed for the query, if there is no such zone.
 */
extern bool se_zone_of_row(Reader *reader, ReaderQuery *query, const SeBatch *batch,
						   const SeRecord *record, int row, const pg_tz **zone);

/*
 * For queries whose slices are windows: take rows[0..n-1], which WHERE has let
 * pass, with row_watermark by row of the batch, into all their windows.
 */
extern void se_zoned_process(Reader *reader, ReaderQuery *query, SeBatch *batch,
							 const SeRecord *records, int *rows, int n,
							 const TimestampTz *row_watermark);

#endif							/* SE_ROW_ZONE_H */
