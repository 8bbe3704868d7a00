#!/bin/bash
#
# bench.sh
#	  What the engine costs, as ratios to a raw consume of the same topic in the
#	  same run; how soon results are visible; and what it takes of memory and WAL.
#
# Usage: bench.sh [OPTION]...
#   --variants NAME[,NAME...] (default: all but hop_100k and latency_beside)
#   --list                    the variants, and the jobs that they are made of
#   --rounds N                interleaved rounds of raw consume and jobs (7)
#   --events N                records of each topic, instead of each topic's own number
#   --windows N               of the latency variants (100)
#   --quick                   2 rounds, 1,000,000 events, 15 windows: a look, not a verdict
#   --judge                   exit status 3 if a bound is missed
#   --json FILE               write the results
#   --compare TREE            measure the build of another source tree, too, in the same rounds
#   --compare FILE            compare with the results of an earlier run
#   --profile NAME[,NAME...]  instead: run variants or jobs once under perf record, print where
#                             the worker spent its time
#   --profile-folder FOLDER   keep what perf recorded
#   --broker-folder FOLDER    where our broker keeps its log: a file system of its own, or one in memory,
#                             keeps its writes away from the disk that commits wait for
#   --kafka HOST:PORT         use this broker; topics orders_8 and so on are made there and kept
#   -X PROPERTY=VALUE         of librdkafka in the raw consume
#   --setting NAME=VALUE      of the servers that are measured
#   --keep                    keep the work folder
#
# The method is described in test/bench/README.md.
#
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage()
{
	sed -n '/^# Usage/,/^# The method/{/^# The method/d; s/^# \{0,1\}//; p}' "${BASH_SOURCE[0]}"
}

for arg in "$@"; do
	case $arg in
		--help | -h)
			usage
			exit 0
			;;
		--list)
			PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "${BASH_SOURCE[0]}")/bench/bench.py" --list
			exit 0
			;;
	esac
done

"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
invocation_folder=$PWD
se_init "$@"
arguments=()
settings=()
bootstrap=
broker_folder=
json=
compare=
profile=
profile_folder=
set -- ${SE_ARGS[@]+"${SE_ARGS[@]}"}
while [ $# -gt 0 ]; do
	option=$1
	case $option in
		--quick)
			arguments+=(--rounds 2 --events 1000000 --windows 15)
			shift
			continue
			;;
		--judge)
			arguments+=(--judge)
			shift
			continue
			;;
		--variant | --variants | --rounds | --events | --windows | --json | --compare | --profile | \
			--profile-folder | --broker-folder | --kafka | --setting | -X)
			[ $# -ge 2 ] || se_die "$option needs a value"
			;;
		*)
			usage >&2
			exit 2
			;;
	esac
	case $option in
		--variant | --variants) arguments+=(--variants "$2") ;;
		--rounds | --events | --windows)
			[[ $2 =~ ^[1-9][0-9]*$ ]] || se_die "$option: \"$2\" is not a positive number"
			arguments+=("$option" "$2")
			;;
		--json) json=$(cd "$invocation_folder" && realpath -m "$2") ;;
		--compare)
			compare=$(cd "$invocation_folder" && realpath -m "$2")
			[ -r "$compare" ] || se_die "cannot read $2"
			[ ! -d "$compare" ] || [ -f "$compare/stream_engine.control" ] || se_die "$2 is not a source tree"
			;;
		--profile) profile=$2 ;;
		--profile-folder) profile_folder=$(cd "$invocation_folder" && realpath -m "$2") ;;
		--broker-folder)
			[ -d "$2" ] || se_die "there is no folder $2"
			broker_folder=$(mktemp -d "$(realpath "$2")/stream_engine_bench.XXXXXX")
			se_give "$broker_folder"
			se_at_exit 'rm -rf "$broker_folder"'
			;;
		--kafka) bootstrap=$2 ;;
		--setting)
			[[ $2 = ?*=* ]] || se_die "$option: \"$2\" is not NAME=VALUE"
			settings+=("$2")
			;;
		-X) arguments+=(--property "$2") ;;
	esac
	shift 2
done
if [ -n "$profile" ]; then
	command -v perf >/dev/null || se_die "--profile needs perf"
	as_user mkdir -p "$SE_WORK/profile"
	arguments+=(--profile "$profile" --profile-folder "$SE_WORK/profile")
fi

# start NAME: a cluster of the build in SE_BIN.  Durable, as the product would run;
# checkpoints happen between the rounds.
start()
{
	se_cluster "$1" --fsync shared_buffers=1GB max_wal_size=20GB checkpoint_timeout=1h \
		${settings[@]+"${settings[@]}"}
	se_start "$1"
	arguments+=(--build "$2" "$SE_BIN" "$SE_WORK/$1.sock" "$SE_WORK/$1")
}

se_log "building"
se_build
(cd "$SE_SRC" && as_user make -s -C test/bench PG_CONFIG="$PG_CONFIG")
start bench this
if [ -d "$compare" ]; then
	se_log "building $compare"
	our_source=$SE_SOURCE our_tree=$SE_TREE our_src=$SE_SRC our_root=$SE_ROOT our_bin=$SE_BIN
	SE_SOURCE=$compare
	SE_TREE=$our_tree/other
	SE_SRC=$SE_TREE/src
	SE_ROOT=$SE_TREE/root
	SE_BIN=$SE_ROOT${our_bin#"$our_root"}
	mkdir -p "$SE_TREE"
	se_give "$SE_TREE"
	se_build
	start other other
	SE_SOURCE=$our_source SE_TREE=$our_tree SE_SRC=$our_src SE_ROOT=$our_root SE_BIN=$our_bin
elif [ -n "$compare" ]; then
	# the file may be closed to the user who measures
	as_user tee "$SE_WORK/compare.json" <"$compare" >/dev/null
	arguments+=(--compare-file "$SE_WORK/compare.json" --compare-name "$compare")
fi

if [ -z "$bootstrap" ]; then
	se_log "starting the broker"
	broker=${broker_folder:-$SE_WORK}/kafka
	bootstrap=$(as_user "$SE_SRC/test/broker/kafka.sh" start "$broker" 0 | sed -n 's/^bootstrap=//p')
	se_at_exit 'as_user "$SE_SRC/test/broker/kafka.sh" stop "$broker"'
fi
revision=$(git -C "$SE_SOURCE" describe --always --dirty 2>/dev/null || echo unknown)

status=0
as_user env PYTHONDONTWRITEBYTECODE=1 python3 "$SE_SRC/test/bench/bench.py" --tools "$SE_SRC/test/tools" \
	--latency "$SE_SRC/test/bench/latency" --bootstrap "$bootstrap" --revision "$revision" \
	--json "$SE_WORK/bench.json" "${arguments[@]}" || status=$?

if [ -n "$json" ] && [ -f "$SE_WORK/bench.json" ]; then
	cp "$SE_WORK/bench.json" "$json"
fi
if [ -n "$profile_folder" ]; then
	mkdir -p "$profile_folder"
	cp "$SE_WORK"/profile/* "$profile_folder/" 2>/dev/null || true
fi
exit $status
