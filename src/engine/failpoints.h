/*
 * failpoints.h
 *	  Hooks of the setting stream_engine.failpoints.
 */
#ifndef SE_FAILPOINTS_H
#define SE_FAILPOINTS_H

#include "postgres.h"

#include "utils/guc.h"

#ifdef SE_FAILPOINTS
extern bool se_failpoints_check(char **newval, void **extra, GucSource source);
extern void se_failpoints_assign(const char *newval, void *extra);
#endif

#endif							/* SE_FAILPOINTS_H */
