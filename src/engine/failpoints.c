/*-------------------------------------------------------------------------
 *
 * failpoints.c
 *	  Failures on request, at named places of the code
 *
 * NOTES
 *	  A list "name=action[,name=action...]" makes the process that passes
 *	  SE_FAILPOINT("name") fail there:
 *
 *		error		an ERROR with ERRCODE_INTERNAL_ERROR
 *		oom			an ERROR with ERRCODE_OUT_OF_MEMORY
 *		full		an ERROR with ERRCODE_DISK_FULL
 *		exit		leave with code 1, as after a FATAL
 *		kill		SIGKILL to itself: the server restarts all its processes
 *		panic		a PANIC: the same, by the server's own hand
 *		postmaster	SIGKILL to the postmaster, and go on until that is noticed
 *		sleep:MS	wait on the latch for that many milliseconds
 *
 *	  With "@N" behind the action only the N-th passing is hit, counted in each
 *	  process from the moment in which it learns of the list.  Without it every
 *	  passing is.
 *
 *	  Only builds with SE_FAILPOINTS have the setting; in others the macro is
 *	  empty.
 *
 * IDENTIFICATION
 *	  src/engine/failpoints.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifdef SE_FAILPOINTS

#include <signal.h>
#include <unistd.h>

#include "compat/compat.h"
#include "engine/engine.h"
#include "engine/failpoints.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define MAX_FAILPOINTS 16

typedef enum FailAction
{
	FAIL_ERROR,
	FAIL_OOM,
	FAIL_FULL,
	FAIL_EXIT,
	FAIL_KILL,
	FAIL_PANIC,
	FAIL_POSTMASTER,
	FAIL_SLEEP
} FailAction;

typedef struct Failpoint
{
	char		name[NAMEDATALEN];
	FailAction	action;
	int			sleep_ms;
	int			passing;		/* 0: every one */
} Failpoint;

typedef struct FailpointList
{
	int			n;
	Failpoint	points[MAX_FAILPOINTS];
} FailpointList;

static const FailpointList *active = NULL;
static int	passings[MAX_FAILPOINTS];

/* Parses a number at *p up to "limit" and moves *p behind it; -1 if there is none. */
static int
parse_number(char **p, long limit)
{
	char	   *end;
	long		value;

	errno = 0;
	value = strtol(*p, &end, 10);
	if (end == *p || errno != 0 || value < 0 || value > limit)
		return -1;
	*p = end;
	return (int) value;
}

/* Parses one "name=action[:ms][@n]"; false if it is none. */
static bool
parse_failpoint(char *item, Failpoint *point)
{
	static const struct
	{
		const char *name;
		FailAction	action;
	}			actions[] =
	{
		{"error", FAIL_ERROR},
		{"oom", FAIL_OOM},
		{"full", FAIL_FULL},
		{"exit", FAIL_EXIT},
		{"kill", FAIL_KILL},
		{"panic", FAIL_PANIC},
		{"postmaster", FAIL_POSTMASTER},
		{"sleep:", FAIL_SLEEP},
	};
	char	   *equals = strchr(item, '=');
	char	   *rest;
	int			i;

	if (equals == NULL || equals == item || equals - item >= NAMEDATALEN)
		return false;
	memset(point, 0, sizeof(*point));
	memcpy(point->name, item, equals - item);
	rest = equals + 1;

	for (i = 0; i < lengthof(actions); i++)
	{
		size_t		len = strlen(actions[i].name);

		if (strncmp(rest, actions[i].name, len) == 0)
		{
			point->action = actions[i].action;
			rest += len;
			break;
		}
	}
	if (i == lengthof(actions))
		return false;

	if (point->action == FAIL_SLEEP)
	{
		point->sleep_ms = parse_number(&rest, 3600 * 1000L);
		if (point->sleep_ms < 0)
			return false;
	}
	if (*rest == '@')
	{
		rest++;
		point->passing = parse_number(&rest, INT_MAX);
		if (point->passing < 1)
			return false;
	}
	return *rest == '\0';
}

bool
se_failpoints_check(char **newval, void **extra, GucSource source)
{
	FailpointList *list;
	char	   *copy;
	char	   *item;
	char	   *save = NULL;

	list = se_guc_malloc(sizeof(FailpointList));
	if (list == NULL)
		return false;
	list->n = 0;

	copy = pstrdup(*newval);
	for (item = strtok_r(copy, ", ", &save); item != NULL; item = strtok_r(NULL, ", ", &save))
	{
		if (list->n == MAX_FAILPOINTS)
		{
			GUC_check_errdetail("There can be at most %d failpoints.", MAX_FAILPOINTS);
			break;
		}
		if (!parse_failpoint(item, &list->points[list->n]))
		{
			GUC_check_errdetail("\"%s\" is not of the form name=action.", item);
			GUC_check_errhint("Actions are error, oom, full, exit, kill, panic, postmaster and sleep:MS, with @N for the N-th passing only.");
			break;
		}
		list->n++;
	}
	pfree(copy);

	/* on failure too: the caller frees it only when it is accepted */
	if (item != NULL)
	{
		se_guc_free(list);
		return false;
	}
	*extra = list;
	return true;
}

void
se_failpoints_assign(const char *newval, void *extra)
{
	active = (const FailpointList *) extra;
	memset(passings, 0, sizeof(passings));
}

/* Waits on the latch until "ms" have passed. */
static void
failpoint_sleep(int ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	for (;;)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	/* whoever set the latch may have meant work */
	SetLatch(MyLatch);
}

void
se_failpoint(const char *name)
{
	int			i;

	if (active == NULL)
		return;
	for (i = 0; i < active->n; i++)
	{
		const Failpoint *point = &active->points[i];

		if (strcmp(point->name, name) != 0)
			continue;
		passings[i]++;
		if (point->passing != 0 && point->passing != passings[i])
			continue;

		/* those that end a process without a word */
		if (point->action == FAIL_EXIT || point->action == FAIL_KILL ||
			point->action == FAIL_POSTMASTER)
			ereport(LOG, (errmsg("failpoint \"%s\" reached", name)));

		switch (point->action)
		{
			case FAIL_ERROR:
				ereport(ERROR,
						(errcode(ERRCODE_INTERNAL_ERROR),
						 errmsg("failpoint \"%s\" reached", name)));
				break;
			case FAIL_OOM:
				ereport(ERROR,
						(errcode(ERRCODE_OUT_OF_MEMORY),
						 errmsg("out of memory"),
						 errdetail("Failpoint \"%s\" was reached.", name)));
				break;
			case FAIL_FULL:
				ereport(ERROR,
						(errcode(ERRCODE_DISK_FULL),
						 errmsg("no space left on device"),
						 errdetail("Failpoint \"%s\" was reached.", name)));
				break;
			case FAIL_EXIT:
				proc_exit(1);
				break;
			case FAIL_KILL:
				kill(getpid(), SIGKILL);
				break;
			case FAIL_PANIC:
				ereport(PANIC, (errmsg("failpoint \"%s\" reached", name)));
				break;
			case FAIL_POSTMASTER:
				kill(PostmasterPid, SIGKILL);
				break;
			case FAIL_SLEEP:
				elog(LOG, "failpoint \"%s\" sleeps", name);
				failpoint_sleep(point->sleep_ms);
				break;
		}
		/* the list may have been replaced while we slept */
		return;
	}
}

#endif							/* SE_FAILPOINTS */
