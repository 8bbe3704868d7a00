/*
 * first_window.c
 *	  The first complete window of a query that starts in the middle of its topic.
 *
 * NOTES
 *	  A window is complete if it starts no earlier than the first event time of every
 *	  partition plus watermark_delay.  A partition may be silent while those of the others
 *	  close, and begin later; then the first complete window becomes a later one.  What has
 *	  closed before has been judged by the earlier one, and stays as it was judged: rows that
 *	  have been written are corrected, and not left behind.  So the definition keeps, for each
 *	  such rise, which windows had been emitted: those between what complete_from was and
 *	  how far windows had closed.
 *
 *	  Rows of windows that were open by then, which are there where changes are emitted, go in
 *	  the commit that makes complete_from later.
 *
 *	  A record that such a window has missed, and that lies in no other one that is
 *	  emitted, is late.
 *
 *	  Of sessions more than that is known: a session that has taken in an emitted one is
 *	  complete wherever it begins, see session_emit.c.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "emit.h"
#include "reader.h"

/*
 * Whether a window of the slice is emitted, though it starts before the first complete one: any
 * of them, or with a watermark one that takes a record which is judged with that.
 */
bool
se_slice_has_emitted(const ReaderQuery *query, const OpenSlice *slice,
					 const TimestampTz *watermark)
{
	SeWindowIterator iterator;
	SeWindowBounds window;

	if (query->def->nemitted == 0)
		return false;
	se_window_iterate(&iterator, &query->plan->window, slice->start, slice->end, NULL);
	while (se_window_next(&iterator, &window))
	{
		if (watermark != NULL && se_query_refuses(query, window.end, *watermark))
			continue;
		if (se_query_completes(query->def, window.start, window.end))
			return true;
	}
	return false;
}

/*
 * Windows before "complete_from" are not emitted from here on.  Those that have been stay
 * complete: all that have closed, and start where that was enough until now.
 */
static void
raise_complete_from(ReaderQuery *query, TimestampTz complete_from)
{
	SeQueryDef *def = query->def;
	SeEmittedSpan *spans;

	/* those that have closed and wait to be emitted are told by query->closing */
	if ((def->has_emitted || query->closing.active) &&
		query->closed_through > def->complete_from &&
		(def->nemitted == 0 || query->closed_through > def->emitted[def->nemitted - 1].through))
	{
		spans = MemoryContextAlloc(query->context, sizeof(SeEmittedSpan) * (def->nemitted + 1));
		if (def->nemitted > 0)
			memcpy(spans, def->emitted, sizeof(SeEmittedSpan) * def->nemitted);
		spans[def->nemitted].from = def->complete_from;
		spans[def->nemitted].through = query->closed_through;
		def->emitted = spans;
		def->nemitted++;
	}
	def->complete_from = complete_from;
	query->hides = se_query_emits_changes(query) && !def->emit_partial;
}

/* Delete the rows that show open windows which are not emitted any more. */
void
se_hide_incomplete(ReaderQuery *query, SeEmission *emission)
{
	if (query->hides)
		se_emission_hide(emission, query->def->complete_from, query->closed_through);
	query->hides = false;
}

/* Take notice of partitions that have begun. */
void
se_set_complete_from(Reader *reader, ReaderQuery *query)
{
	TimestampTz complete_from = query->def->complete_from;

	/* the clock leaves nothing out: decided when the query was made, or when it joined */
	if (reader->stream->options.processing_time || query->begins != NULL)
		return;
	for (int i = 0; i < reader->npartitions; i++)
	{
		const ReaderPartition *partition = &reader->partitions[i];

		if (!partition->complete && partition->first_event_time != DT_NOEND)
			complete_from = Max(complete_from, partition->first_event_time +
								reader->stream->options.watermark_delay);
	}
	if (complete_from > query->def->complete_from)
		raise_complete_from(query, complete_from);
}
