/*
 * validator.c
 *	  Option validators of the foreign-data wrappers.
 *
 * NOTES
 *	  A validator sees all options of the object as they will be, so an ALTER
 *	  that leaves a privileged option in place needs its privilege, too.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "fmgr.h"

#include "options.h"

PG_FUNCTION_INFO_V1(se_kafka_fdw_validator);
PG_FUNCTION_INFO_V1(se_table_fdw_validator);

Datum
se_kafka_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));

	se_kafka_validate(options, se_option_place(PG_GETARG_OID(1)));
	PG_RETURN_VOID();
}

Datum
se_table_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));

	se_table_validate(options, se_option_place(PG_GETARG_OID(1)));
	PG_RETURN_VOID();
}
