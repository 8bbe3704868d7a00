#!/usr/bin/env bash
#
# run.sh
#	Random workloads against the simulator, many side by side on one server.
#
# usage: test/oracle/run.sh [--long] [--kinds K1,K2] [--seeds N] [--first-seed S]
#	[--kills N] [--with EXTRA] [--side-by-side N] [--keep]
#
#	--kinds K1,K2     kinds of workloads; see enabled_kinds below
#	--seeds N         workloads of each kind (SE_ORACLE_SEEDS, or 40; with --long 300)
#	--first-seed S    the first seed (1)
#	--kills N         workloads of each kind that run while processes are killed,
#	                  on a server of their own (a tenth of the seeds)
#	--with EXTRA      what generate.py calls EXTRAS
#	--side-by-side N  workloads at a time (6)
#
# NOTES
#	Each workload has a database of its own.  The last line of the output is
#	"N passed, N failed"; each failure shows its kind and seed, and the command that
#	runs it again.  SE_BIN names the programs of a server tree with the
#	extension in it; without it the extension is built.
#
set -euo pipefail
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

enabled_kinds=tumble,hop,cumulate,session,session_late,session_changes,session_retries,global,triggers,lateness,changes,watermarks,replays,zones,processing

usage()
{
	sed -n 's/^# \{0,1\}usage: /usage: /p' "${BASH_SOURCE[0]}" >&2
	exit 2
}

long=${SE_LONG:-0}
kinds=$enabled_kinds
seeds=
first=1
kills=
side=6
extras=(--with longkeys --with starts)
server_bin=${SE_BIN:-}

se_init "$@"
set -- "${SE_ARGS[@]}"
while [ $# -gt 0 ]; do
	case $1 in
		--long) long=1 ;;
		--kinds | --seeds | --first-seed | --kills | --side-by-side | --with)
			[ $# -ge 2 ] || usage
			case $1 in
				--kinds) kinds=$2 ;;
				--seeds) seeds=$2 ;;
				--first-seed) first=$2 ;;
				--kills) kills=$2 ;;
				--side-by-side) side=$2 ;;
				--with) extras+=(--with "$2") ;;
			esac
			shift
			;;
		*) usage ;;
	esac
	shift
done
seeds=${seeds:-${SE_ORACLE_SEEDS:-$([ "$long" = 1 ] && echo 300 || echo 40)}}
kills=${kills:-$(((seeds + 9) / 10))}

if [ -n "$server_bin" ]; then
	SE_BIN=$server_bin
	SE_SRC=$SE_SOURCE
else
	se_build
fi
mkdir -p "$SE_WORK/workloads"
cp "$SE_SOURCE"/test/oracle/*.py "$SE_SOURCE/test/oracle/template.sql" "$SE_WORK/workloads/"

# list_workloads COUNT: kinds mixed, so that all of a slow kind do not come last.
list_workloads()
{
	local seed kind

	for ((seed = first; seed < first + $1; seed++)); do
		for kind in ${kinds//,/ }; do
			echo "$kind:$seed"
		done
	done
}

# run_workloads CLUSTER SIDE COUNT OPTIONS...
run_workloads()
{
	local cluster=$1 at_a_time=$2 count=$3

	shift 3
	[ "$count" -gt 0 ] || return 0
	se_cluster "$cluster" max_connections=300 max_worker_processes=300 stream_engine.max_workers=200 \
		stream_engine.commit_interval=20ms stream_engine.retry_interval=20ms shared_buffers=128MB autovacuum=off
	se_start "$cluster"
	se_psql "$cluster" -c 'CREATE DATABASE oracle_template'
	as_user "$SE_BIN/psql" -Xq -v ON_ERROR_STOP=1 -h "$SE_WORK/$cluster.sock" -U postgres -d oracle_template \
		-f "$SE_WORK/workloads/template.sql"
	if [ "$cluster" = server ]; then
		(
			cd "$SE_WORK/workloads"
			as_user env PGHOST="$SE_WORK/$cluster.sock" PYTHONDONTWRITEBYTECODE=1 python3 check_calendars.py "$first" 300
		) 2>&1 | tee -a "$SE_WORK/workloads/log" || true
	fi
	# A database and its processes for each workload, so single ones at a time.
	(
		cd "$SE_WORK/workloads"
		list_workloads "$count" | as_user env PGHOST="$SE_WORK/$cluster.sock" PYTHONDONTWRITEBYTECODE=1 \
			xargs -P "$at_a_time" -n 1 python3 workload.py "$@" "${extras[@]}"
	) 2>&1 | tee -a "$SE_WORK/workloads/log" || true
	if grep -E 'PANIC|TRAP|was terminated by signal (11|6|8|7)' "$SE_WORK/$cluster.log"; then
		echo "FAILED server $cluster: see above" | tee -a "$SE_WORK/workloads/log"
	fi
	se_stop "$cluster"
}

: >"$SE_WORK/workloads/log"
start=$SECONDS
run_workloads server "$side" "$seeds"
run_workloads kills 3 "$kills" --kills

passed=$(grep -c '^ok ' "$SE_WORK/workloads/log" || true)
failed=$(grep -c '^FAILED ' "$SE_WORK/workloads/log" || true)
n_kinds=$(tr ',' '\n' <<<"$kinds" | grep -c .)
expected=$(((seeds + kills) * n_kinds + (seeds > 0)))
[ $((passed + failed)) -ge $expected ] || {
	echo "FAILED: $((expected - passed - failed)) runs did not end"
	failed=$((failed + 1))
}
grep '^FAILED' "$SE_WORK/workloads/log" || true
echo "kinds $kinds, seeds $first to $((first + seeds - 1)), $((SECONDS - start)) s"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
