/*
 * key_size.h
 *	  Whether a record's group key fits into the result table's index.
 */
#ifndef SE_KEY_SIZE_H
#define SE_KEY_SIZE_H

#include "query/query.h"

/* Whether any key of the query has values of any length. */
extern bool se_has_long_keys(const SeQueryPlan *plan);

/* Whether it is obvious that the evaluated keys of rows[0..n-1] can be indexed. */
extern bool se_keys_are_short(const SeQueryPlan *plan, const SeVector *keys, const int *rows,
							  int n);

/* Whether the evaluated key of a row can be indexed. */
extern bool se_key_fits(const SeQueryPlan *plan, const SeVector *keys, int row);

#endif							/* SE_KEY_SIZE_H */
