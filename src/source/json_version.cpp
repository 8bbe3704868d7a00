/*
 * json_version.cpp
 *	  The version of simdjson that the library was built with.
 */
#include "simdjson.h"

#define SE_TEXT(x) #x
#define SE_TEXT_OF(x) SE_TEXT(x)

extern "C" const char *
se_json_version(void)
{
	return SE_TEXT_OF(SIMDJSON_VERSION);
}
