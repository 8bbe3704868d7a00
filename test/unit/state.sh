#!/usr/bin/env bash
#
# state.sh
#	The state of windows (src/state), in a server but without the rest of the
#	extension: whatever GROUP BY says about a table's rows, memtables that were
#	fed with the same rows in random parts, flushed at random moments and merged by
#	hash range must say too; damaged chunks are refused, never fatal.
#
# usage: test/unit/state.sh [--bench]
#
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
se_init "$@"

build=$SE_WORK/state_test
mkdir -p "$build/source"
se_copy_source
se_copy_server
cp -r "$SE_SOURCE/src/state" "$SE_SOURCE/src/compat" "$build/"
cp "$SE_SOURCE"/src/source/{vector.c,vector.h,columns.h} "$build/source/"
cp "$SE_SOURCE/test/unit/state_test.c" "$build/"
# what needs the rest of the engine
rm -f "$build"/state/{state_log,run_cache,segments}* "$build"/state/*.o "$build"/*/*.bc
cat >"$build/Makefile" <<'MAKE'
MODULE_big = state_test
OBJS = state_test.o source/vector.o $(patsubst %.c,%.o,$(sort $(wildcard state/*.c)))
PG_CPPFLAGS = -I$(srcdir) -I$(srcdir)/source
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -O2
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
MAKE
make -s -C "$build" PG_CONFIG="$PG_CONFIG" with_llvm=no >"$SE_WORK/state_build.log" 2>&1 || {
	cat "$SE_WORK/state_build.log" >&2
	exit 1
}
cat "$SE_WORK/state_build.log" >&2
chmod -R a+rX "$build"

se_cluster state shared_preload_libraries= max_parallel_workers_per_gather=0
se_start state
if [ "${SE_ARGS[0]:-}" = --bench ]; then
	se_psql state -v module="$build/state_test" -f "$SE_SRC/test/unit/state_functions.sql"
	se_psql state -f "$SE_SRC/test/unit/state_bench.sql"
	exit
fi
se_psql state -v module="$build/state_test" -f "$SE_SRC/test/unit/state_functions.sql"
se_psql state -f "$SE_SRC/test/unit/state_test.sql"
