/*-------------------------------------------------------------------------
 *
 * stat_workers.c
 *	  The worker slots as rows
 *
 * NOTES
 *	  Behind the view stream_engine.stat_workers, whose functions are executed as
 *	  the user who reads it.  So the function itself decides what to show: all to
 *	  those who may read all statistics, to others the workers of their own
 *	  database, and messages, which can hold data, to owners of what they are about.
 *
 * IDENTIFICATION
 *	  src/engine/stat_workers.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "engine/internal.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(se_worker_slots);

#define WORKER_SLOTS_COLS 19

static const char *
kind_name(SeSlotKind kind)
{
	switch (kind)
	{
		case SE_SLOT_FREE:
			return "free";
		case SE_SLOT_MANAGER:
			return "manager";
		case SE_SLOT_READER:
			return "reader";
		case SE_SLOT_LAUNCHER:
			return "launcher";
	}
	return "unknown";
}

static const char *
state_name(SeSlotState state)
{
	switch (state)
	{
		case SE_SLOT_STARTING:
			return "starting";
		case SE_SLOT_RUNNING:
			return "running";
		case SE_SLOT_EXITED:
			return "exited";
	}
	return "unknown";
}

/* A message of another database may be in another encoding. */
static void
make_printable(char *message, Oid database)
{
	char	   *p;

	if (database == MyDatabaseId && pg_verifymbstr(message, strlen(message), true))
		return;
	for (p = message; *p; p++)
	{
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	}
}

static void
put_time(Datum *value, bool *null, TimestampTz time)
{
	*value = TimestampTzGetDatum(time);
	*null = time == 0;
}

/*
 * worker_slots() returns setof record
 */
Datum
se_worker_slots(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		see_all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	SeSlotCopy *slots;
	int			n;
	int			i;

	se_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	slots = palloc(se_shared->nslots * sizeof(SeSlotCopy));
	n = se_slots_copy(slots, InvalidOid);

	for (i = 0; i < n; i++)
	{
		SeSlotCopy *slot = &slots[i];
		Datum		values[WORKER_SLOTS_COLS];
		bool		nulls[WORKER_SLOTS_COLS];
		int			c = 0;

		if (!see_all && slot->database != MyDatabaseId)
			continue;
		memset(nulls, 0, sizeof(nulls));
		make_printable(slot->message, slot->database);

		values[c++] = Int32GetDatum(slot->ref.index);
		values[c++] = Int64GetDatum(slot->ref.generation);
		values[c++] = CStringGetTextDatum(kind_name(slot->kind));
		values[c++] = CStringGetTextDatum(state_name(slot->state));
		nulls[c] = !OidIsValid(slot->database);
		values[c++] = ObjectIdGetDatum(slot->database);
		nulls[c] = slot->kind != SE_SLOT_READER;
		values[c++] = Int32GetDatum(slot->reader);
		nulls[c] = slot->pid == 0;
		values[c++] = Int32GetDatum((int32) slot->pid);
		values[c++] = CStringGetTextDatum(se_phase_name(slot->phase));
		put_time(&values[c], &nulls[c], slot->started);
		c++;
		values[c++] = Int64GetDatum(slot->records);
		values[c++] = Int64GetDatum(slot->bytes);
		values[c++] = Int64GetDatum(slot->commits);
		put_time(&values[c], &nulls[c], slot->last_commit);
		c++;
		put_time(&values[c], &nulls[c], slot->last_record);
		c++;
		nulls[c] = slot->message[0] == '\0' ||
			!(see_all || (slot->kind == SE_SLOT_READER && se_catalog_may_see_reader(slot->reader)));
		values[c++] = CStringGetTextDatum(slot->message);
		nulls[c] = slot->sqlstate == 0;
		values[c++] = CStringGetTextDatum(unpack_sql_state(slot->sqlstate));
		values[c++] = Int32GetDatum(slot->attempts);
		values[c++] = Int32GetDatum(slot->failures);
		nulls[c] = slot->state != SE_SLOT_EXITED || slot->kind == SE_SLOT_LAUNCHER;
		values[c++] = TimestampTzGetDatum(slot->retry_at);
		Assert(c == WORKER_SLOTS_COLS);

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
