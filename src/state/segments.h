/*
 * segments.h
 *	  The ring of segments that the state log lives in.
 */
#ifndef SE_SEGMENTS_H
#define SE_SEGMENTS_H

#include "postgres.h"

#include "utils/snapshot.h"

#define SE_SEGMENTS 4

/*
 * The number of the segment to append to, as of now.  The caller has locked all segments,
 * in any mode, and reads them with "snapshot"; with "check", raises "snapshot too old"
 * when one has been emptied that the snapshot may want to see.
 */
extern int	se_segments_current(Oid schema, Snapshot snapshot, bool check);

#endif							/* SE_SEGMENTS_H */
