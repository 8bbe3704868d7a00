#!/bin/bash
#
# bench.sh
#	  What the engine costs, as ratios to a raw consume of the same topic in the
#	  same run; and how soon results are visible.
#
# Usage: bench.sh [OPTION]...
#   --variant NAME[,NAME...]  8keys, 100k_sparse, 100k_dense, staging, latency, latency_20k
#                             (default: all but the last)
#   --rounds N                interleaved pairs of raw consume and job (7)
#   --events N                records of each topic, instead of each variant's own number
#   --windows N               of the latency variants (100)
#   --quick                   3 rounds, 1,000,000 events, 20 windows: a look, not a verdict
#   --json FILE               write the results
#   --compare FILE            compare with the results of another build
#   --judge                   exit status 3 if a bound is missed
#   --profile FOLDER          one more run of each variant under perf record, into FOLDER
#   --kafka HOST:PORT         use this broker; topics orders_8 and so on are made there and kept
#   -X PROPERTY=VALUE         of librdkafka in the raw consume
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
	esac
done

"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
invocation_folder=$PWD
se_init "$@"
arguments=()
bootstrap=
json=
compare=
profile=
set -- ${SE_ARGS[@]+"${SE_ARGS[@]}"}
while [ $# -gt 0 ]; do
	option=$1
	case $option in
		--quick)
			arguments+=(--rounds 3 --events 1000000 --windows 20)
			shift
			continue
			;;
		--judge)
			arguments+=(--judge)
			shift
			continue
			;;
		--variant | --rounds | --events | --windows | --json | --compare | --profile | --kafka | -X)
			[ $# -ge 2 ] || se_die "$option needs a value"
			;;
		*)
			usage >&2
			exit 2
			;;
	esac
	case $option in
		--variant)
			for name in ${2//,/ }; do
				case $name in
					8keys | 100k_sparse | 100k_dense | staging | latency | latency_20k) ;;
					*) se_die "no such variant: $name" ;;
				esac
			done
			arguments+=(--variants "$2")
			;;
		--rounds | --events | --windows)
			[[ $2 =~ ^[1-9][0-9]*$ ]] || se_die "$option: \"$2\" is not a positive number"
			arguments+=("$option" "$2")
			;;
		--json) json=$(cd "$invocation_folder" && realpath -m "$2") ;;
		--compare)
			compare=$(cd "$invocation_folder" && realpath -m "$2")
			[ -r "$compare" ] || se_die "cannot read $2"
			;;
		--profile) profile=$(cd "$invocation_folder" && realpath -m "$2") ;;
		--kafka) bootstrap=$2 ;;
		-X) arguments+=(--property "$2") ;;
	esac
	shift 2
done
if [ -n "$profile" ]; then
	command -v perf >/dev/null || se_die "--profile needs perf"
	mkdir -p "$profile"
	as_user mkdir -p "$SE_WORK/profile"
	arguments+=(--profile "$SE_WORK/profile")
fi

se_log "building"
se_build
(cd "$SE_SRC" && as_user make -s -C test/bench PG_CONFIG="$PG_CONFIG")

# Durable, as the product would run; checkpoints happen between the rounds.
se_cluster bench --fsync shared_buffers=1GB max_wal_size=20GB checkpoint_timeout=1h
se_start bench

if [ -z "$bootstrap" ]; then
	se_log "starting the broker"
	bootstrap=$(as_user "$SE_SRC/test/broker/kafka.sh" start "$SE_WORK/kafka" 0 | sed -n 's/^bootstrap=//p')
	se_at_exit 'as_user "$SE_SRC/test/broker/kafka.sh" stop "$SE_WORK/kafka"'
fi

# The comparison's file may be closed to the user who measures.
if [ -n "$compare" ]; then
	as_user tee "$SE_WORK/compare.json" <"$compare" >/dev/null
	arguments+=(--compare "$SE_WORK/compare.json" --compare-name "$compare")
fi
revision=$(git -C "$SE_SOURCE" describe --always --dirty 2>/dev/null || echo unknown)

status=0
as_user python3 "$SE_SRC/test/bench/bench.py" --bindir "$SE_BIN" --socket "$SE_WORK/bench.sock" \
	--data "$SE_WORK/bench" --tools "$SE_SRC/test/tools" --latency "$SE_SRC/test/bench/latency" \
	--bootstrap "$bootstrap" --revision "$revision" --json "$SE_WORK/bench.json" \
	${arguments[@]+"${arguments[@]}"} || status=$?

if [ -n "$json" ] && [ -f "$SE_WORK/bench.json" ]; then
	cp "$SE_WORK/bench.json" "$json"
fi
if [ -n "$profile" ]; then
	cp "$SE_WORK"/profile/* "$profile/" 2>/dev/null || true
	for data in "$profile"/*.perf; do
		[ -e "$data" ] || continue
		perf report -i "$data" --stdio --no-children -g none --percent-limit 0.5 >"${data%.perf}.txt" 2>/dev/null || true
	done
fi
exit $status
