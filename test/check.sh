#!/usr/bin/env bash
#
# check.sh
#	Runs the tests: all of them, or the named groups and files.
#
# usage: test/check.sh [--long] [--keep] [--list] [NAME...]
#
#	NAME is a group,
#	  lint      formatting and house rules                 test/lint.sh
#	  unit      programs that test C code without a server  test/unit/*.sh
#	  regress   SQL against expected output                 sql/*.sql
#	  tap       servers, crashes, brokers                   test/t/*.pl
#	or a part of one: the name of a file, with or without its ending, or a word
#	in the names of files of test/t ("faults" runs test/t/*fault*.pl).
#
#	--long    the long forms of randomised tests (SE_LONG=1)
#	--keep    keep the work folder with all logs and say where it is
#	--list    print the files that would run, run nothing
#
# NOTES
#	The unit that is counted is the test file.  The last line of the output is
#	"N passed, N failed"; the exit status is 0 iff some passed and none failed.
#	A file that skips itself is counted as passed, and says so.
#
#	The build has failpoints, which the crash tests need; SE_FAILPOINTS=0 tests
#	the build that users get.  See lib.sh for SE_TREE, which makes repeated runs
#	quick.  A file that runs for more than SE_TEST_TIMEOUT seconds (900; 7200
#	with --long) is killed and has failed.  SE_TAP_JOBS (2) files of test/t run
#	at a time; they share one Kafka broker, which the first that wants it starts
#	in SE_BROKER_DIR.
#
set -euo pipefail
export SE_FAILPOINTS=${SE_FAILPOINTS:-1}
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

passed=0
failed=0
failures=()
# kill -9 of workers and servers, as the files have counted them
kills=0

# What to run, as paths relative to the source.
run_lint=0
run_unit=()
run_regress=()
run_tap=()

# Budgets in seconds; together they stay well within an hour on two cores.
declare -A budget=([lint]=60 [unit]=300 [regress]=300 [tap]=2400)

usage()
{
	sed -n 's/^# \{0,1\}usage: /usage: /p' "${BASH_SOURCE[0]}" >&2
	exit 2
}

# count STATUS NAME [REMARK]: one test file is over.
count()
{
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
		printf 'ok     %s%s\n' "$2" "${3:+ ($3)}"
	else
		failed=$((failed + 1))
		failures+=("$2")
		printf 'FAILED %s%s\n' "$2" "${3:+ ($3)}"
	fi
}

# show_end TITLE LINES FILE: the end of a log, indented.
show_end()
{
	[ -s "$3" ] || return 0
	printf '  --- %s\n' "$1"
	tail -n "$2" "$3" | sed 's/^/  | /'
}

begin_group()
{
	group=$1
	group_start=$SECONDS
	group_passed=$passed
	group_failed=$failed
	printf '== %s: %s\n' "$1" "$2"
}

end_group()
{
	local took=$((SECONDS - group_start))

	printf '== %s: %d passed, %d failed in %d s (budget %d s%s)\n' "$group" \
		$((passed - group_passed)) $((failed - group_failed)) $took "${budget[$group]}" \
		"$([ $took -le "${budget[$group]}" ] || echo ', EXCEEDED')"
}

# ---------------------------------------------------------------------------
# What to run
# ---------------------------------------------------------------------------

# find_files GLOB: the files of the source that match, sorted.
find_files()
(
	cd "$SE_SOURCE"
	compgen -G "$1" | LC_ALL=C sort || true
)

# choose NAME: adds a group, a file or the files with a word in their names.
choose()
{
	local name=$1 base word found=()

	case $name in
		all)
			choose lint && choose unit && choose regress && choose tap
			return
			;;
		lint)
			run_lint=1
			return
			;;
		unit) mapfile -t -O ${#run_unit[@]} run_unit < <(find_files 'test/unit/*.sh') ;;
		regress) mapfile -t -O ${#run_regress[@]} run_regress < <(find_files 'sql/*.sql') ;;
		tap) mapfile -t -O ${#run_tap[@]} run_tap < <(find_files 'test/t/*.pl') ;;
		*)
			base=${name##*/}
			base=${base%.*}
			word=${base%s}
			mapfile -t found < <(find_files "sql/$base.sql")
			run_regress+=("${found[@]}")
			[ ${#found[@]} -eq 0 ] || return 0
			mapfile -t found < <(find_files "test/unit/$base.sh")
			run_unit+=("${found[@]}")
			[ ${#found[@]} -eq 0 ] || return 0
			mapfile -t found < <(find_files "test/t/$base.pl")
			[ ${#found[@]} -gt 0 ] || mapfile -t found < <(find_files "test/t/*$word*.pl")
			run_tap+=("${found[@]}")
			[ ${#found[@]} -gt 0 ] || {
				echo "check: no test group or file is called \"$name\"" >&2
				return 1
			}
			;;
	esac
}

# ---------------------------------------------------------------------------
# Groups
# ---------------------------------------------------------------------------

run_lint_group()
{
	local status=0

	begin_group lint "formatting and house rules"
	"$SE_SOURCE/test/lint.sh" >"$SE_WORK/lint.log" 2>&1 || status=$?
	[ $status -eq 0 ] || show_end "findings" 200 "$SE_WORK/lint.log"
	count $status lint
	end_group
}

# A unit test prints TAP or just exits; "not ok" fails it whatever it exits with.
run_unit_group()
{
	local file name log status start

	begin_group unit "${#run_unit[@]} files"
	as_user mkdir -p "$SE_WORK/unit"
	for file in "${run_unit[@]}"; do
		name=$(basename "$file" .sh)
		log=$SE_WORK/unit/$name.log
		status=0
		start=$SECONDS
		(
			cd "$SE_SRC/test/unit"
			as_user timeout -k 10 "$SE_TEST_TIMEOUT" bash "./$name.sh"
		) </dev/null >"$log" 2>&1 || status=$?
		[ $status -ne 0 ] || ! grep -q '^not ok' "$log" || status=1
		count $status "unit/$name" "$((SECONDS - start)) s"
		[ $status -eq 0 ] || show_end "$name, exit status $status" 60 "$log"
	done
	end_group
}

# The output of pg_regress differs between versions: a test has passed if its
# line says so in either form, and nothing passes that is not mentioned.
regress_passed()
{
	grep -qE "^(test)?[[:space:]]+$1[[:space:]]+\.\.\. ok\b|^ok [0-9]+[[:space:]]+[-+] $1\b" "$2"
}

run_regress_group()
{
	local out=$SE_WORK/regress names=() args=() name status=0 failed_before=$failed

	begin_group regress "${#run_regress[@]} files"
	for name in "${run_regress[@]}"; do
		names+=("$(basename "$name" .sql)")
	done
	if [ $regress_all = 1 ] && [ -f "$SE_SRC/test/schedule" ]; then
		args=(--schedule="$SE_SRC/test/schedule")
		for name in "${names[@]}"; do
			grep -qE "^test:(.*[[:space:]])?$name([[:space:]]|\$)" "$SE_SRC/test/schedule" || {
				echo "  sql/$name.sql is missing in test/schedule"
				args+=("$name")
			}
		done
	else
		args=("${names[@]}")
	fi

	as_user mkdir -p "$out"
	se_cluster regress_cluster
	se_start regress_cluster
	as_user env PGUSER=postgres timeout -k 10 "$SE_TEST_TIMEOUT" "$SE_PGXS/src/test/regress/pg_regress" \
		--inputdir="$SE_SRC" --outputdir="$out" --bindir="$SE_BIN" --host="$SE_WORK/regress_cluster.sock" --port=5432 \
		--dbname=contrib_regression --load-extension=stream_engine --dlpath="$SE_ROOT$("$PG_CONFIG" --pkglibdir)" \
		"${args[@]}" </dev/null >"$out/log" 2>&1 || status=$?
	for name in "${names[@]}"; do
		if regress_passed "$name" "$out/log"; then
			count 0 "regress/$name"
		else
			count 1 "regress/$name"
		fi
	done
	if [ $status -ne 0 ]; then
		# Every file passed, and pg_regress is unhappy all the same.
		[ "$failed" -gt "$failed_before" ] || count 1 "regress, exit status $status"
		if [ -s "$out/regression.diffs" ]; then
			show_end "regression.diffs" 300 "$out/regression.diffs"
		else
			show_end "pg_regress" 40 "$out/log"
		fi
		grep -E 'PANIC|FATAL|TRAP|was terminated by signal' "$SE_WORK/regress_cluster.log" |
			grep -vE 'the database system is|terminating' >"$out/server_errors" || true
		show_end "server log: crashes" 20 "$out/server_errors"
	fi
	se_stop regress_cluster
	end_group
}

# Runs one file of test/t; its folder holds the log of prove, and the logs and
# data of the servers that it started.
run_tap_file()
{
	local name=$1 dir=$SE_WORK/tap/$1

	cd "$dir"
	exec timeout -k 30 "$SE_TEST_TIMEOUT" \
		env PERL5LIB="$SE_SRC/test/perl:$SE_PGXS/src/test/perl" PG_REGRESS="$SE_PGXS/src/test/regress/pg_regress" \
		TESTDIR="$dir" TESTDATADIR="$dir/tmp_check" TESTLOGDIR="$dir/tmp_check/log" \
		PG_TEST_PORT_DIR="$SE_WORK/portlock" PG_TEST_NOCLEAN="${SE_KEEP:+1}" \
		prove --norc --nocolor -v "$SE_SRC/test/t/$name.pl" >"$dir/prove.log" 2>&1
}

end_tap_file()
{
	local status=$1 name=$2 took=$3 dir=$SE_WORK/tap/$2 log remark tap_kills

	log=$dir/prove.log
	remark="$took s"
	if [ "$status" -eq 0 ]; then
		remark+=$(sed -n 's/^Files=.*Tests=\([0-9]*\).*/, \1 tests/p' "$log")
		remark+=$(sed -n 's/^\(.*skipped: .*\)/, \1/p' "$log" | head -n 1)
		tap_kills=$(sed -n 's/^# kills: \([0-9]*\)$/\1/p' "$log" | head -n 1)
		[ -z "$tap_kills" ] || remark+=", $tap_kills kills"
		kills=$((kills + ${tap_kills:-0}))
	elif [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
		remark+=", killed: time is over"
	fi
	count "$status" "tap/$name" "$remark"
	if [ "$status" -ne 0 ]; then
		grep -nE '^not ok|^# +(Failed|at )|Bail out' "$log" >"$dir/not_ok" || true
		show_end "failures" 40 "$dir/not_ok"
		show_end "prove" 40 "$log"
		for log in "$dir"/tmp_check/log/regress_log_* "$dir"/tmp_check/log/*.log; do
			[ ! -f "$log" ] || show_end "${log##*/}" 40 "$log"
		done
	fi
	# Whatever the file left running must not disturb the others.
	se_end_processes_of "$dir"
	[ "$status" -ne 0 ] || [ "${SE_KEEP:-0}" = 1 ] || rm -rf "$dir/tmp_check"
}

run_tap_group()
{
	local file name status took ended running=0

	begin_group tap "${#run_tap[@]} files, ${SE_TAP_JOBS:-2} at a time"
	as_user mkdir -p "$SE_WORK/tap" "$SE_WORK/portlock"
	export SE_BROKER_DIR=$SE_WORK/broker
	se_at_exit stop_broker
	export -f run_tap_file
	# A file that ends says so here: bash's "wait -n" misses jobs that ended while
	# it was busy.
	mkfifo "$SE_WORK/ended"
	exec {ended}<>"$SE_WORK/ended"
	for file in "${run_tap[@]}" ''; do
		# The empty name at the end waits for all that still run.
		while [ $running -gt 0 ] && { [ -z "$file" ] || [ $running -ge "${SE_TAP_JOBS:-2}" ]; }; do
			read -r name status took <&"$ended"
			end_tap_file "$status" "$name" "$took"
			running=$((running - 1))
		done
		[ -n "$file" ] || break
		name=$(basename "$file" .pl)
		as_user mkdir -p "$SE_WORK/tap/$name"
		(
			start=$SECONDS
			status=0
			as_user bash -c "run_tap_file $name" </dev/null {ended}>&- || status=$?
			echo "$name $status $((SECONDS - start))" >&"$ended"
		) &
		running=$((running + 1))
	done
	exec {ended}>&-
	[ $kills -eq 0 ] || printf '== tap: kill -9 of workers and servers: %d\n' $kills
	end_group
}

# The broker that the files of test/t share, if any of them started it.
stop_broker()
{
	if [ -d "$SE_WORK/broker" ]; then
		as_user "$SE_SRC/test/broker/kafka.sh" stop "$SE_WORK/broker" >/dev/null 2>&1 || true
	fi
}

# ---------------------------------------------------------------------------
# Main
# ---------------------------------------------------------------------------

list=0
names=()
for arg in "$@"; do
	case $arg in
		--long) export SE_LONG=1 ;;
		--keep) SE_KEEP=1 ;;
		--list) list=1 ;;
		-*) usage ;;
		*) names+=("$arg") ;;
	esac
done
[ ${#names[@]} -gt 0 ] || names=(all)

regress_all=0
for name in "${names[@]}"; do
	choose "$name" || exit 2
	case $name in all | regress) regress_all=1 ;; esac
done
mapfile -t run_unit < <(printf '%s\n' "${run_unit[@]}" | grep . | LC_ALL=C sort -u)
mapfile -t run_regress < <(printf '%s\n' "${run_regress[@]}" | grep . | LC_ALL=C sort -u)
mapfile -t run_tap < <(printf '%s\n' "${run_tap[@]}" | grep . | LC_ALL=C sort -u)

if [ $list = 1 ]; then
	[ $run_lint = 0 ] || echo test/lint.sh
	printf '%s\n' "${run_unit[@]}" "${run_regress[@]}" "${run_tap[@]}" | grep . || true
	exit 0
fi

export SE_TEST_TIMEOUT=${SE_TEST_TIMEOUT:-$([ "${SE_LONG:-0}" = 1 ] && echo 7200 || echo 900)}

# Ends the output on every way out.  A run that is cut short must not look like
# one that passed.
verdict()
{
	[ $finished = 1 ] || count 1 "check.sh itself, cut short"
	[ ${#failures[@]} -eq 0 ] || printf 'failed: %s\n' "${failures[*]}"
	printf '%d passed, %d failed\n' "$passed" "$failed"
}

"$SE_SOURCE/test/setup.sh" || exit 1
finished=0
SE_LAST_COMMAND=verdict
se_init
SE_PGXS=$(se_test_pgxs)
export SE_PGXS

[ $run_lint = 0 ] || run_lint_group

if [ $((${#run_unit[@]} + ${#run_regress[@]} + ${#run_tap[@]})) -gt 0 ]; then
	start=$SECONDS
	if se_build; then
		echo "== built in $((SECONDS - start)) s"
		[ ${#run_unit[@]} -eq 0 ] || run_unit_group
		[ ${#run_regress[@]} -eq 0 ] || run_regress_group
		[ ${#run_tap[@]} -eq 0 ] || run_tap_group
	else
		count 1 build
	fi
fi

finished=1
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
