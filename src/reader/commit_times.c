/*
 * commit_times.c
 *	  Where the time of a commit went, for the server's log.
 *
 * NOTES
 *	  When results come late the question is who was slow: the source, the disk, a
 *	  trigger of the result table, or the machine, which had no processor for us.  At
 *	  log_min_messages = debug1 each commit answers it by a line: how long its steps
 *	  took, and how long it is since the commit before, with the processor time that
 *	  the worker, without librdkafka's threads, had in between.
 *
 *	  The clocks are read whatever the setting is: ten times a commit, which costs less
 *	  than a microsecond.
 */
#include "postgres.h"

#include <time.h>

#include "portability/instr_time.h"

#include "reader.h"

static const char *const step_names[] = {
	[SE_STEP_READING] = "reading",
	[SE_STEP_LOCKS] = "locks",
	[SE_STEP_SIDE] = "late and bad records",
	[SE_STEP_WINDOWS] = "windows",
	[SE_STEP_STATE] = "state",
	[SE_STEP_PROGRESS] = "progress",
	[SE_STEP_COMMIT] = "commit"
};

/* Milliseconds since the last line, by step; and when the step under way began. */
static double times[lengthof(step_names)];
static instr_time step_began;

/* Of the worker's own thread, in milliseconds. */
static double
cpu_time(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0)
		return 0;
	return t.tv_sec * 1000.0 + t.tv_nsec / 1000000.0;
}

/* What was done since the last call was "step". */
void
se_commit_step(SeCommitStep step)
{
	instr_time	now;
	instr_time	took;

	INSTR_TIME_SET_CURRENT(now);
	took = now;
	if (!INSTR_TIME_IS_ZERO(step_began))
	{
		INSTR_TIME_SUBTRACT(took, step_began);
		times[step] += INSTR_TIME_GET_MILLISEC(took);
	}
	step_began = now;
}

/* Behind a commit of so many records. */
void
se_commit_tell(const Reader *reader, int64 nrecords)
{
	static double cpu_before = 0;
	double		cpu = cpu_time();
	double		total = 0;

	for (int i = 0; i < lengthof(times); i++)
		if (i != SE_STEP_READING)
			total += times[i];
	if (message_level_is_interesting(DEBUG1))
	{
		StringInfoData steps;

		initStringInfo(&steps);
		for (int i = 0; i < lengthof(times); i++)
			if (i != SE_STEP_READING)
				appendStringInfo(&steps, "%s%s %.1f", steps.len > 0 ? ", " : "", step_names[i],
								 times[i]);
		ereport(DEBUG1,
				(errmsg_internal("stream %s: commit of " INT64_FORMAT " records took %.1f ms (%s);"
								 " before it %.1f ms; in both %.1f ms of processor time",
								 reader->stream->name, nrecords, total, steps.data,
								 times[SE_STEP_READING], cpu - cpu_before)));
		pfree(steps.data);
	}
	cpu_before = cpu;
	memset(times, 0, sizeof(times));
}
