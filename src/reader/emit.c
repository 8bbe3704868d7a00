/*
 * emit.c
 *	  One result row of a group: finishing expressions, then the result table.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "emit.h"

/* Rows after which the memory of finished rows is given back. */
#define ROWS_PER_RESET 64

struct SeEmission
{
	ReaderQuery *query;
	SeResultSink *sink;
	TimestampTz now;
	MemoryContext context;
	MemoryContext row_context;
	int			rows;
	Datum	   *group_values;
	bool	   *group_nulls;
	Datum	   *values;
	bool	   *nulls;
};

SeEmission *
se_emission_begin(ReaderQuery *query, TimestampTz now, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	SeEmission *emission = palloc0(sizeof(SeEmission));
	int			ngroup = 2 + query->plan->nkeys + query->plan->naggs;
	int			nresult = query->plan->output_desc->natts + 5;

	emission->query = query;
	emission->now = now;
	emission->context = context;
	emission->row_context = AllocSetContextCreate(context, "stream_engine emitted rows",
												  ALLOCSET_DEFAULT_SIZES);
	emission->group_values = palloc(sizeof(Datum) * ngroup);
	emission->group_nulls = palloc0(sizeof(bool) * ngroup);
	emission->values = palloc(sizeof(Datum) * nresult);
	emission->nulls = palloc0(sizeof(bool) * nresult);
	MemoryContextSwitchTo(old);
	return emission;
}

/* The finished row in values and nulls; false if HAVING refuses it. */
static bool
finish(SeEmission *emission, SeMemtable *table, SeGroup *group, TimestampTz start, TimestampTz end)
{
	const SeQueryPlan *plan = emission->query->plan;
	MemoryContext old;
	bool		passes;

	if (++emission->rows % ROWS_PER_RESET == 0)
	{
		se_finish_reset(emission->query->finish);
		MemoryContextReset(emission->row_context);
		CHECK_FOR_INTERRUPTS();
	}
	old = MemoryContextSwitchTo(emission->row_context);
	emission->group_values[0] = TimestampTzGetDatum(start);
	emission->group_values[1] = TimestampTzGetDatum(end);
	for (int key = 0; key < plan->nkeys; key++)
		emission->group_values[2 + key] = se_group_key(table, group, key,
													   &emission->group_nulls[2 + key]);
	for (int agg = 0; agg < plan->naggs; agg++)
	{
		int			column = 2 + plan->nkeys + agg;

		emission->group_values[column] = se_group_result(table, group, agg,
														 &emission->group_nulls[column]);
	}
	passes = se_finish_row(emission->query->finish, emission->group_values, emission->group_nulls,
						   emission->values + 2, emission->nulls + 2);
	MemoryContextSwitchTo(old);
	return passes;
}

static SeResultSink *
sink_of(SeEmission *emission)
{
	if (emission->sink == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(emission->context);

		emission->sink = se_results_open(emission->query->def->result,
										 emission->query->plan->output_desc);
		se_results_set_keys(emission->sink, emission->query->plan);
		MemoryContextSwitchTo(old);
	}
	return emission->sink;
}

static void
set_engine_columns(SeEmission *emission, TimestampTz start, TimestampTz end, bool is_final,
				   int32 revision)
{
	int			noutput = emission->query->plan->output_desc->natts;

	emission->values[0] = TimestampTzGetDatum(start);
	emission->values[1] = TimestampTzGetDatum(end);
	emission->values[2 + noutput] = BoolGetDatum(is_final);
	emission->values[3 + noutput] = Int32GetDatum(revision);
	emission->values[4 + noutput] = TimestampTzGetDatum(emission->now);
}

void
se_emission_insert(SeEmission *emission, SeMemtable *table, SeGroup *group, TimestampTz start,
				   TimestampTz end, bool is_final, int32 revision)
{
	if (!finish(emission, table, group, start, end))
		return;
	set_engine_columns(emission, start, end, is_final, revision);
	se_results_insert(sink_of(emission), emission->values, emission->nulls);
}

void
se_emission_fresh(SeEmission *emission, SeMemtable *table, SeGroup *group, TimestampTz start,
				  TimestampTz end)
{
	se_emission_insert(emission, table, group, start, end, true, 0);
}

void
se_emission_fresh_open(SeEmission *emission, SeMemtable *table, SeGroup *group,
					   TimestampTz start, TimestampTz end)
{
	se_emission_insert(emission, table, group, start, end, false, 0);
}

/* The keys of a group in values and nulls, where no row has been made. */
static void
set_keys(SeEmission *emission, SeMemtable *table, SeGroup *group)
{
	const SeQueryPlan *plan = emission->query->plan;

	for (int key = 0; key < plan->nkeys; key++)
	{
		int			column = 2 + plan->keys[key].output - 1;

		emission->values[column] = se_group_key(table, group, key, &emission->nulls[column]);
	}
}

int64
se_emission_delete(SeEmission *emission, SeMemtable *table, SeGroup *group, TimestampTz start,
				   TimestampTz end)
{
	MemoryContext old = MemoryContextSwitchTo(emission->row_context);
	int64		revision;

	set_keys(emission, table, group);
	set_engine_columns(emission, start, end, true, 0);
	MemoryContextSwitchTo(old);
	revision = se_results_delete(sink_of(emission), emission->values, emission->nulls);
	MemoryContextReset(emission->row_context);
	return revision;
}

void
se_emission_rewrite(SeEmission *emission, SeMemtable *table, SeGroup *group, TimestampTz start,
					TimestampTz end, bool is_final, int32 revision)
{
	bool		passes = finish(emission, table, group, start, end);

	if (!passes)
	{
		(void) se_emission_delete(emission, table, group, start, end);
		return;
	}
	set_engine_columns(emission, start, end, is_final, revision);
	se_results_upsert(sink_of(emission), emission->values, emission->nulls, is_final);
}

void
se_emission_replace(SeEmission *emission, SeMemtable *table, SeGroup *group, TimestampTz start,
					TimestampTz end, bool is_final)
{
	se_emission_rewrite(emission, table, group, start, end, is_final, 0);
}

bool
se_emission_exists(SeEmission *emission, TimestampTz start, TimestampTz end)
{
	return se_results_exist(sink_of(emission), start, end);
}

void
se_emission_finalize(SeEmission *emission, TimestampTz start, TimestampTz end)
{
	se_results_finalize(sink_of(emission), start, end, emission->now);
}

void
se_emission_hide(SeEmission *emission, TimestampTz before, TimestampTz behind)
{
	se_results_hide(sink_of(emission), before, behind);
}

void
se_emission_withdraw(SeEmission *emission, TimestampTz start, TimestampTz end)
{
	se_results_withdraw(sink_of(emission), start, end);
}

void
se_emission_end(SeEmission *emission)
{
	if (emission->sink != NULL)
		emission->query->rows_out += se_results_close(emission->sink);
	se_finish_reset(emission->query->finish);
	MemoryContextDelete(emission->row_context);
}
