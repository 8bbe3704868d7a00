/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Everything that differs between PostgreSQL 15, 16, 17 and 18
 *
 * NOTES
 *	  Small macros and inline functions only.  Each has the meaning of the
 *	  newest server's name, prefixed with "se_" or "SE_", so that it can be
 *	  dropped when the oldest server is.
 *
 * IDENTIFICATION
 *	  src/compat/compat.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef SE_COMPAT_H
#define SE_COMPAT_H

/* 17: intervals may be infinite */
#if PG_VERSION_NUM >= 170000
#define SE_INTERVAL_NOT_FINITE(i)	INTERVAL_NOT_FINITE(i)
#else
#define SE_INTERVAL_NOT_FINITE(i)	((void) (i), false)
#endif

/* 16: make_range() can report errors softly */
#if PG_VERSION_NUM >= 160000
#define se_make_range(typcache, lower, upper, empty) \
	make_range(typcache, lower, upper, empty, NULL)
#else
#define se_make_range(typcache, lower, upper, empty) \
	make_range(typcache, lower, upper, empty)
#endif

#endif							/* SE_COMPAT_H */
