#!/bin/bash
#
# demo.sh
#	  The main job, from a Kafka topic to a result table, with two kill -9 in the
#	  middle, before your eyes.
#
# Usage: demo.sh [--kafka HOST:PORT] [--seconds N] [--keep]
#   --kafka HOST:PORT  use this broker (a topic is made there and deleted at the end);
#                      default: a mock broker of this run
#   --seconds N        how long orders are produced (40)
#   --keep             leave server and mock broker running and print how to reach them
#
# Builds the extension, starts a private cluster in a temporary folder, produces
# orders with disorder, late, bad and future ones into three partitions, and shows
# watermark, windows filling and windows closing.  A third of the way the worker is
# killed, at two thirds the whole server.  At the end three judges speak: verify(),
# which re-reads the topic; the accounting identities; and a Python program that
# computes the windows from a copy of the orders and shares no code with the engine.
# Exit status 0: all three agree.
#
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage()
{
	sed -n '/^# Usage/,/^#$/{/^#$/d; s/^# \{0,1\}//; p}' "${BASH_SOURCE[0]}"
}

for arg in "$@"; do
	case $arg in
		--keep) SE_KEEP_RUNNING=1 ;;
		--help | -h)
			usage
			exit 0
			;;
	esac
done

bootstrap=
seconds=40
query=sales
rate=600			# orders per second of the clock
speed=10			# seconds of event time per second of the clock
width=30			# seconds of event time in a window
delay=5				# of the watermark, in seconds of event time

"$(dirname "${BASH_SOURCE[0]}")/setup.sh" --no-broker
se_init "$@"
set -- ${SE_ARGS[@]+"${SE_ARGS[@]}"}
while [ $# -gt 0 ]; do
	case $1 in
		--kafka | --seconds) [ $# -ge 2 ] || se_die "$1 needs a value" ;;
		*)
			usage >&2
			exit 2
			;;
	esac
	case $1 in
		--kafka) bootstrap=$2 ;;
		--seconds)
			[[ $2 =~ ^[0-9]+$ ]] && [ "$2" -ge 20 ] && [ "$2" -le 120 ] || se_die "--seconds takes 20 to 120"
			seconds=$2
			;;
	esac
	shift 2
done

tools=$SE_SRC/test/tools
demo=$SE_SRC/test/demo
if [ -t 1 ]; then
	clear_screen=$'\033[H\033[2J'
	frame_pause=1
else
	clear_screen=
	frame_pause=4
fi
event_line=

# What happened, above the frames of a terminal, or between those of a log.
announce()
{
	event_line="  >>> $*"
	[ -n "$clear_screen" ] || printf '\n%s\n' "$event_line"
}

# Seconds since production began.
elapsed()
{
	echo $((SECONDS - began))
}

frame()
{
	local lines

	lines=$(se_psql demo -v query=$query -v live=${query}_live -f "$demo/view.sql" 2>/dev/null) ||
		lines="  the server is recovering"
	printf '%s\n  %s   %s s   orders in %s s windows, event time runs %s times as fast as the clock\n%s\n\n%s\n' \
		"$clear_screen" "$topic -> $query" "$(elapsed)" $width $speed "$event_line" "$lines"
}

# Frames until a moment, or until production has ended.
show_until()
{
	while [ "$(elapsed)" -lt "$1" ] && kill -0 "$producer" 2>/dev/null; do
		frame
		se_wait_until $frame_pause false || true
	done
}

server_answers()
{
	se_psql demo -c 'SELECT 1' >/dev/null 2>&1
}

worker_pid()
{
	se_psql demo -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'stream_engine reader' LIMIT 1" 2>/dev/null
}

worker_runs()
{
	[ -n "$(worker_pid)" ]
}

# ---------------------------------------------------------------------------
# Server, broker, stream, query
# ---------------------------------------------------------------------------

se_log "building (the log is $SE_WORK/build.log)"
se_build
se_log "starting a private server and a broker"
se_cluster demo --fsync
se_start demo

topic=orders
if [ -z "$bootstrap" ]; then
	as_user mkfifo "$SE_WORK/mockd.in"
	as_user touch "$SE_WORK/mockd.out"
	# Opened for reading and writing, the pipe never ends: with --keep the broker outlives this script.
	as_user bash -c 'exec "$1" <>"$2" >"$3" 2>"$3.err"' mockd "$tools/mockd" "$SE_WORK/mockd.in" "$SE_WORK/mockd.out" 2>/dev/null &
	disown
	se_wait_until 20 grep -q '^bootstrap=' "$SE_WORK/mockd.out" || se_die "the mock broker did not start"
	bootstrap=$(sed -n 's/^bootstrap=//p' "$SE_WORK/mockd.out")
	echo "create $topic 3" >"$SE_WORK/mockd.in"
	se_wait_until 20 grep -q '^ok' "$SE_WORK/mockd.out" || se_die "the mock broker made no topic"

	# The mock does not wake a waiting fetch: its wait is the latency.
	server_options=", fetch_wait_max_ms '50'"
else
	topic=orders_demo_$$
	as_user "$tools/kadmin" create "$bootstrap" "$topic" 3
	if [ "${SE_KEEP_RUNNING:-0}" != 1 ]; then
		se_at_exit 'as_user "$tools/kadmin" delete "$bootstrap" "$topic"'
	fi
	server_options=
fi

se_psql demo -v bootstrap="$bootstrap" -v topic="$topic" -v delay="$delay seconds" \
	-v name=$query -v width="$width seconds" >/dev/null <<SQL
CREATE EXTENSION stream_engine;
CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka
	OPTIONS (bootstrap_servers :'bootstrap'$server_options);
SELECT stream_engine.create_stream('orders', server => 'kafka', topic => :'topic',
	columns => \$\$ order_id bigint, user_id bigint PATH '\$.user.id', category text,
		amount numeric CHECK (amount >= 0), event_time timestamptz PATH '\$.ts' \$\$,
	event_time => 'event_time', watermark_delay => :'delay');
SELECT format('SELECT category, sum(amount) AS total, count(*) AS orders, min(amount) AS low,'
	' max(amount) AS high, avg(amount) AS mean FROM orders GROUP BY tumble(event_time, %L), category', :'width') AS text \gset
SELECT stream_engine.create_query(:'name', :'text');
SQL

# ---------------------------------------------------------------------------
# Orders, and two accidents
# ---------------------------------------------------------------------------

began=$SECONDS
as_user "$tools/orders" --count $((seconds * rate)) --partitions 3 --throttle $rate --rate $((rate / speed)) \
	--start 2025-01-01T09:00:00Z --disorder 4 --late 0.005 --late-by $((2 * width)) --bad 0.003 --future 0.001 \
	--end-marker $((4 * width)) --brokers "$bootstrap" --topic "$topic" --file "$SE_WORK/orders.tsv" \
	--summary "$SE_WORK/orders.json" 2>"$SE_WORK/orders.err" &
producer=$!

announce "orders are coming: out of order, some late, some broken, some from the future"
show_until $((seconds / 3))

se_wait_until 30 worker_runs || se_die "no worker is running; the server's log is $SE_WORK/demo.log"
pid=$(worker_pid)
kill -9 "$pid"
announce "kill -9 of the worker (process $pid): the server recovers, a new worker goes on where the last commit ended"
se_wait_until 60 server_answers || se_die "the server did not recover; its log is $SE_WORK/demo.log"
show_until $((2 * seconds / 3))

announce "kill -9 of the server"
frame
se_kill9 demo
se_start demo
announce "killed the server (kill -9) and started it again"
show_until $((2 * seconds))

wait "$producer" || se_die "the orders were not produced: $(cat "$SE_WORK/orders.err")"
se_psql demo -c "CALL stream_engine.wait('$query', '60 seconds')" >/dev/null
announce "all orders are committed"
frame

# ---------------------------------------------------------------------------
# The verdict
# ---------------------------------------------------------------------------

verdict=0

judge()
{
	if [ "$2" = 0 ]; then
		printf '  agrees     %s\n' "$1"
	else
		printf '  DISAGREES  %s\n' "$1"
		verdict=1
	fi
}

printf '\n  The verdict, after %s:\n\n' "$(python3 -c '
import json, sys
s = json.load(open(sys.argv[1]))
print("{records:,} records ({late} late, {bad} bad, {future} from the future), two kill -9".format(**s))' "$SE_WORK/orders.json")"

differing=$(se_psql demo -c "SELECT count(*) FROM stream_engine.verify('$query')")
judge "verify(): $differing rows differ from a batch read of the topic" "$differing"

while IFS='|' read -r what left right; do
	judge "$what: $left = $right" "$([ "$left" = "$right" ] && echo 0 || echo 1)"
done < <(se_psql demo -v query=$query -f "$demo/verdict.sql")

se_psql demo -c "SET TimeZone = 'UTC'" -c "COPY (SELECT partition, \"offset\" FROM stream_engine.late_events
	WHERE query::text = '$query' ORDER BY 1, 2) TO STDOUT (FORMAT csv)" >"$SE_WORK/late.csv"
se_psql demo -c "SET TimeZone = 'UTC'" -c "COPY (SELECT window_start, category, total, orders, low, high, mean
	FROM $query ORDER BY window_start, category COLLATE \"C\") TO STDOUT (FORMAT csv)" >"$SE_WORK/result.csv"
status=0
python3 "$tools/orders_oracle.py" "$SE_WORK/orders.tsv" --size $width --delay $delay --late "$SE_WORK/late.csv" \
	>"$SE_WORK/oracle.csv" 2>"$SE_WORK/oracle.err" || status=1
sed 1d "$SE_WORK/oracle.csv" | cmp -s - "$SE_WORK/result.csv" || status=1
judge "an independent program: $(wc -l <"$SE_WORK/result.csv") result rows, $(wc -l <"$SE_WORK/late.csv") late orders" "$status"
echo

if [ $verdict != 0 ]; then
	head -n 5 "$SE_WORK/oracle.err" >&2
	SE_KEEP=1
fi
if [ "${SE_KEEP_RUNNING:-0}" = 1 ]; then
	end_it=$(printf '%q ' "$SE_BIN/pg_ctl" -D "$SE_WORK/demo" -m fast stop)
	if [ "$(id -u)" -eq 0 ]; then
		end_it="runuser -u $SE_USER -- $end_it"
	fi
	if [ -p "$SE_WORK/mockd.in" ]; then
		end_it+="; echo quit >$SE_WORK/mockd.in"
	fi
	printf '  The server is running, over topic %s of the broker at %s:\n\n    %s\n\n  To end it: %s\n\n' \
		"$topic" "$bootstrap" "$(printf '%q ' "$SE_BIN/psql" -h "$SE_WORK/demo.sock" -U postgres postgres)" \
		"$end_it; rm -rf $SE_WORK"
fi
exit $verdict
