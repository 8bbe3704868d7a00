/*
 * decoder_internal.h
 *	  What the files of the decoder share.
 *
 * NOTES
 *	  decoder.c			makes a decoder, runs it, keeps the rows' errors
 *	  decoder_rules.c	defaults, NOT NULL, event time, CHECK
 *	  decoder_checks.c	CHECKs that compare columns with constants
 *	  json.c			JSON records: values of the columns, malformed records
 *	  coerce.c			values to column vectors, column by column
 *	  coerce_value.c	one value to a Datum of any type
 *	  metadata.c		columns that come from the record's envelope
 *
 *	  A run has two kinds of work.  The fast kind goes column by column, raises no
 *	  error and calls no function of a type.  What it cannot do is put
 *	  down as a task, a pair of row and column, and done by se_decoder_tasks, where
 *	  errors may be raised.
 */
#ifndef SE_DECODER_INTERNAL_H
#define SE_DECODER_INTERNAL_H

#include "postgres.h"

#include "executor/executor.h"
#include "utils/rel.h"

#include "decoder.h"
#include "json_core.h"

/* How values become Datums of a type; see coerce_value.c. */
typedef struct SeTypeCoercion
{
	Oid			type;			/* as declared, maybe a domain */
	Oid			base;			/* below all domains */
	int32		typmod;			/* that holds for base */
	bool		constrained;	/* a domain with constraints */
	bool		holds_time;		/* is or contains a date or time */
	void	   *domain_extra;	/* domain_check's cache */
	MemoryContext context;		/* that the caches live in */
	int			epoch_digits;	/* of option epoch: 0, 3, 6; -1 none */
	int16		typlen;			/* of type */
	bool		typbyval;
	char		typalign;
	FmgrInfo	input;			/* of base */
	Oid			ioparam;
	struct SeTypeCoercion *element; /* of a true array, else NULL */
} SeTypeCoercion;

typedef struct SeColumn
{
	AttrNumber	attnum;
	const char *name;
	const char *type_name;		/* of the base type, as in messages */
	SeMetadata	metadata;
	int			slot;			/* of the JSON scanner */
	bool		needed;			/* values are wanted, not only judged */
	bool		not_null;
	bool		fast;			/* coerce.c has a loop for the type */
	bool		has_default;
	bool		default_constant;
	ExprState  *default_expr;
	Datum		default_value;	/* when constant */
	bool		default_null;
	SeTypeCoercion coercion;
} SeColumn;

/* A column compared with a constant; what does a value that is less, ... pass? */
typedef struct SeComparison
{
	AttrNumber	attnum;
	bool		less;
	bool		equal;
	bool		greater;
	int64		integer;		/* the constant, as vectors hold it */
	SeDecimal	decimal;
} SeComparison;

typedef struct SeCheck
{
	const char *name;
	ExprState  *expr;
	int			ncomparisons;	/* which all must hold; see decoder_checks.c */
	SeComparison *comparisons;
} SeCheck;

/* Work on one row that may raise an error. */
typedef struct SeTask
{
	int16		row;
	int16		column;			/* index into SeDecoder.columns, not attnum; -1: none */
} SeTask;

typedef struct SeTaskList
{
	SeTask	   *tasks;
	int			ntasks;
	int			capacity;		/* tasks live in the batch's context */
} SeTaskList;

struct SeDecoder
{
	MemoryContext context;
	Oid			relid;
	const char *relname;
	const char *topic;			/* NULL if the table does not say */
	TupleDesc	desc;
	AttrNumber	event_time;
	int			ncolumns;		/* without dropped ones */
	SeColumn   *columns;
	bool		encode;			/* the server's encoding is not UTF-8 */
	MemoryContextCallback callback; /* frees the JSON scanner */
	SeJson	   *json;
	SeJsonStatus *status;		/* [SE_BATCH_MAX] */

	int			nchecks;
	SeCheck    *checks;
	bool		only_comparisons;	/* all checks are conjunctions of such */
	Bitmapset  *check_columns;	/* attnums */
	EState	   *estate;			/* of defaults and checks, NULL if none */
	TupleTableSlot *check_slot;

	SeTaskList	values;			/* values for the types' own functions */
	SeTaskList	defaults;

	SeRowError *row_errors;		/* [SE_BATCH_MAX] by row */
	SeBatch		batch;
};

/* ---- decoder.c ---- */

/*
 * Judge a row bad; the first judgement of a row stays.  "column" may be NULL.
 */
extern void se_decoder_bad_row(SeDecoder *decoder, int row, const SeColumn *column, int sqlstate,
							   const char *format,...) pg_attribute_printf(5, 6);

extern void se_decoder_add_task(SeDecoder *decoder, SeTaskList *list, int row, int column);

/*
 * Do "work" on each task whose row is still good.  An error that is the row's
 * fault makes it bad, any other is thrown.  With "pinned" the settings that the
 * input functions of the types look at have fixed values.
 */
typedef void (*SeTaskWork) (SeDecoder *decoder, const SeTask *task);
extern void se_decoder_tasks(SeDecoder *decoder, const SeTaskList *list, SeTaskWork work,
							 bool pinned);

/* What a server of another encoding can show of UTF-8 bytes, for messages. */
extern char *se_decoder_printable(SeDecoder *decoder, const char *data, int len);

/* ---- decoder_rules.c ---- */
extern void se_rules_create(SeDecoder *decoder, Relation stream);
extern void se_rules_run(SeDecoder *decoder);

/* Judge a row bad that violates a CHECK. */
extern void se_decoder_bad_check(SeDecoder *decoder, int row, const SeCheck *check);

/* ---- decoder_checks.c ---- */

/*
 * Fill check->comparisons if "expr" is a conjunction of nothing but comparisons
 * of columns with constants; else false.  Allocates in CurrentMemoryContext.
 */
extern bool se_checks_comparisons(const SeDecoder *decoder, Expr *expr, SeCheck *check);

/* Judge the batch by comparisons; raises no error. */
extern void se_checks_run(SeDecoder *decoder);

/* ---- json.c ---- */
extern void se_json_decoder_run(SeDecoder *decoder);

/* ---- coerce.c ---- */

/* Has coerce_column a loop for the column? */
extern bool se_coerce_is_fast(const SeColumn *column);

/*
 * Fill the column's vector from values[row]; what cannot be decided
 * becomes a task.
 */
extern void se_coerce_column(SeDecoder *decoder, int column, const SeJsonValue *values);

/* ---- coerce_value.c ---- */
extern void se_coercion_init(SeTypeCoercion *coercion, Oid type, int32 typmod, int epoch_digits,
							 MemoryContext context);

/*
 * A value, not missing, as Datum of coercion->type, in CurrentMemoryContext.
 * Raises errors, or where the type can, sets *error and returns 0.
 */
extern Datum se_coerce_value(SeTypeCoercion *coercion, const SeJsonValue *value, bool *isnull,
							 ErrorData **error);

/* ---- metadata.c ---- */
extern void se_metadata_check(const SeColumn *column);
extern void se_metadata_run(SeDecoder *decoder, int column);
extern void se_metadata_task(SeDecoder *decoder, const SeTask *task);

#endif							/* SE_DECODER_INTERNAL_H */
