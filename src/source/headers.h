/*
 * headers.h
 *	  Headers of a record as jsonb.
 */
#ifndef SE_HEADERS_H
#define SE_HEADERS_H

#include "postgres.h"

#include "columns.h"

/*
 * The value of se_record_headers: an object of name -> text or null,
 * palloc'd; empty when the record has no headers.
 */
extern Datum se_headers_of_record(const SeRecord *record);

#endif							/* SE_HEADERS_H */
