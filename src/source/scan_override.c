/*
 * scan_override.c
 *	  What verify() puts in the place of "all that is in the topic".
 *
 * NOTES
 *	  Overrides form a stack.  An entry carries the subtransaction that pushed it,
 *	  so that what an error left there goes with that subtransaction.  The
 *	  overrides themselves are the caller's memory and are not touched after
 *	  their pop.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "scan.h"
#include "source.h"

typedef struct OverrideEntry
{
	struct OverrideEntry *below;
	SubTransactionId pusher;
	SeScanOverride *override;
} OverrideEntry;

static OverrideEntry *overrides = NULL;

static void
pop_overrides_of(SubTransactionId subid, bool all)
{
	while (overrides != NULL && (all || overrides->pusher == subid))
	{
		OverrideEntry *entry = overrides;

		overrides = entry->below;
		pfree(entry);
	}
}

static void
overrides_at_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			pop_overrides_of(InvalidSubTransactionId, true);
			break;
		default:
			break;
	}
}

static void
overrides_at_subend(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		pop_overrides_of(subid, false);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (OverrideEntry *entry = overrides; entry != NULL; entry = entry->below)
		{
			if (entry->pusher == subid)
				entry->pusher = parent;
		}
	}
}

/*
 * se_scan_override_push
 */
void
se_scan_override_push(SeScanOverride *override)
{
	static bool registered = false;
	OverrideEntry *entry;

	if (!registered)
	{
		RegisterXactCallback(overrides_at_end, NULL);
		RegisterSubXactCallback(overrides_at_subend, NULL);
		registered = true;
	}
	entry = MemoryContextAlloc(TopMemoryContext, sizeof(OverrideEntry));
	entry->below = overrides;
	entry->pusher = GetCurrentSubTransactionId();
	entry->override = override;
	overrides = entry;
}

/*
 * se_scan_override_pop
 */
void
se_scan_override_pop(SeScanOverride *override)
{
	OverrideEntry *entry = overrides;

	if (entry == NULL || entry->override != override)
		elog(ERROR, "scan overrides are not popped in order");
	overrides = entry->below;
	pfree(entry);
}

/*
 * se_scan_override_find
 */
SeScanOverride *
se_scan_override_find(Oid relid)
{
	for (OverrideEntry *entry = overrides; entry != NULL; entry = entry->below)
	{
		if (entry->override->relid == relid)
			return entry->override;
	}
	return NULL;
}

/*
 * se_scan_override_count
 */
void
se_scan_override_count(SeScanOverride *override, int64 nread, int64 nbad)
{
	for (OverrideEntry *entry = overrides; entry != NULL; entry = entry->below)
	{
		if (entry->override == override)
		{
			override->nread += nread;
			override->nbad += nbad;
			return;
		}
	}
}

static int
compare_exclusion(const void *a, const void *b)
{
	const SeScanExclusion *x = a;
	const SeScanExclusion *y = b;

	if (x->partition != y->partition)
		return x->partition < y->partition ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return 0;
}

/*
 * se_scan_override_excludes
 */
bool
se_scan_override_excludes(const SeScanOverride *override, const SeRecord *record)
{
	SeScanExclusion key;

	if (override == NULL || override->nexcluded == 0)
		return false;
	key.partition = record->partition;
	key.offset = record->offset;
	return bsearch(&key, override->excluded, override->nexcluded, sizeof(SeScanExclusion),
				   compare_exclusion) != NULL;
}
