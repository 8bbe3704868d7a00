#!/bin/bash
#
# kafka.sh
#	  Run a real Kafka broker (KRaft, one node) for the tests, and administer it.
#
# Usage:
#   kafka.sh start DIR PORT [sasl_plain USER PASSWORD | scram USER PASSWORD |
#                            tls USER PASSWORD FOLDER | proxied PORT]
#   kafka.sh stop DIR            end it in good order
#   kafka.sh kill DIR            kill -9
#   kafka.sh restart DIR         stop it if it runs, start it on the same data and port
#   kafka.sh info DIR            what start printed
#   kafka.sh topic BOOTSTRAP NAME PARTITIONS [CONFIG=VALUE...]
#   kafka.sh alter-topic BOOTSTRAP NAME CONFIG=VALUE...
#   kafka.sh delete-topic BOOTSTRAP NAME
#   kafka.sh add-partitions BOOTSTRAP NAME TOTAL
#   kafka.sh delete-records BOOTSTRAP NAME PARTITION OFFSET
#   kafka.sh offsets BOOTSTRAP NAME    partition, low, high: one line each
#
# start puts data, configuration and log under DIR, returns when the broker
# answers and prints `bootstrap=127.0.0.1:PORT`.  PORT 0 chooses a free one.  The
# broker runs in the background, whoever started it stops it.  It listens on
# loopback only and runs as the calling user, root or not.
#
# With a security argument PORT asks for that login.  A second listener without
# login is for administration; start prints it as `admin=127.0.0.1:PORT`.  With
# tls the login is SASL_SSL with PLAIN, and `mutual=127.0.0.1:PORT` asks for a
# client's certificate instead; FOLDER has broker.pem, the broker's key and
# certificates, and ca.pem, what it trusts; both are read at each start.
# "proxied" has no login; clients are told the port of a proxy, and the second
# listener is not behind it.
#
# Environment: SE_KAFKA_LIB (folder of the jars, see fetch.sh), SE_KAFKA_HEAP
# (default 512m), SE_TOOLS (folder of the built test tools), JAVA_HOME.
#
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${SE_TOOLS:-$here/../tools}
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
start_timeout=90

fail()
{
	echo "kafka.sh: $*" >&2
	exit 1
}

usage()
{
	sed -n 's/^# \{0,1\}//; 3,22p' "${BASH_SOURCE[0]}" >&2
	exit 2
}

kadmin()
{
	if [ ! -x "$tools/kadmin" ]; then
		make -s -C "$tools" kadmin >&2 || fail "cannot build kadmin in $tools"
	fi
	"$tools/kadmin" "$@"
}

# The broker's process id, if it runs; a process that took over its number is not it.
running()
{
	local pid
	[ -r "$1/broker.pid" ] || return 1
	pid=$(cat "$1/broker.pid")
	[ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] || return 1
	tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF "$1/server.properties" || return 1
	echo "$pid"
}

# Wait until a process has ended, at most $2 seconds.
await_end()
{
	timeout "$2" tail --pid="$1" -s 0.05 -f /dev/null
}

launch()
{
	local dir=$1 jars pid
	jars=$("$here/fetch.sh" --where)
	# A session of its own, and none of the caller's pipes: the broker outlives
	# this script, and must not keep a reader of its output waiting.
	(
		for fd in /proc/self/fd/*; do
			fd=${fd##*/}
			[ "$fd" -gt 2 ] && eval "exec $fd>&-"
		done
		cd "$dir"
		exec setsid "$java" -Xms128m "-Xmx${SE_KAFKA_HEAP:-512m}" -XX:+UseSerialGC \
			-Djava.awt.headless=true -Djava.io.tmpdir="$dir/tmp" -XX:ErrorFile="$dir/hs_err.log" \
			-cp "$jars/*" kafka.Kafka "$dir/server.properties"
	) </dev/null >>"$dir/broker.log" 2>&1 &
	pid=$!
	echo "$pid" >"$dir/broker.pid"

	for ((second = 0; second < start_timeout; second++)); do
		if kadmin wait "$(sed -n 's/^admin=//p' "$dir/info")" 1 2>/dev/null; then
			cat "$dir/info"
			return 0
		fi
		if ! kill -0 "$pid" 2>/dev/null; then
			tail -n 20 "$dir/broker.log" >&2
			fail "the broker ended while starting; its log is $dir/broker.log"
		fi
	done
	kill -9 "$pid" 2>/dev/null
	fail "the broker did not answer within $start_timeout seconds; its log is $dir/broker.log"
}

# A value in double quotes, as JAAS wants it.
quote_jaas()
{
	local value=${1//\\/\\\\}
	printf '"%s"' "${value//\"/\\\"}"
}

# A value of a line of a properties file, in which the backslash escapes.
quote_property()
{
	printf '%s' "${1//\\/\\\\}"
}

# login_plain USER PASSWORD: the settings of a listener that asks for them.
login_plain()
{
	cat <<-PROPERTIES
		listener.name.login.sasl.enabled.mechanisms=PLAIN
		listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required $(quote_property "user_$1=$(quote_jaas "$2");")
	PROPERTIES
}

start()
{
	local dir port security=${3:-} user=${4:-} password=${5:-}
	local admin controller mutual= listeners advertised= map extra= scram=() jars
	[ $# -ge 2 ] || usage

	[[ $2 =~ ^[0-9]+$ ]] || fail "\"$2\" is not a port"
	mkdir -p "$1"
	dir=$(cd "$1" && pwd)
	port=$2
	running "$dir" >/dev/null && fail "a broker is already running in $dir"
	if [ -e "$dir/server.properties" ]; then
		fail "$dir holds a broker already; use restart"
	fi
	mkdir -p "$dir/data" "$dir/tmp"

	read -r -d '' controller admin mutual free < <(kadmin freeport 4) || true
	[ "$port" = 0 ] && port=${free%%[[:space:]]*}

	case $security in
		"")
			admin=$port
			listeners=PLAINTEXT://127.0.0.1:$port
			map=PLAINTEXT:PLAINTEXT
			;;
		proxied)
			[ $# -eq 4 ] || usage
			listeners=PLAINTEXT://127.0.0.1:$admin,PROXIED://127.0.0.1:$port
			advertised=PLAINTEXT://127.0.0.1:$admin,PROXIED://127.0.0.1:$user
			map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT
			;;
		tls)
			[ $# -eq 6 ] || usage
			listeners=PLAINTEXT://127.0.0.1:$admin,LOGIN://127.0.0.1:$port,MUTUAL://127.0.0.1:$mutual
			map=PLAINTEXT:PLAINTEXT,LOGIN:SASL_SSL,MUTUAL:SSL
			extra="ssl.keystore.type=PEM
ssl.keystore.location=$6/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$6/ca.pem
listener.name.mutual.ssl.client.auth=required
$(login_plain "$user" "$password")"
			;;
		sasl_plain | scram)
			[ $# -eq 5 ] || usage
			listeners=PLAINTEXT://127.0.0.1:$admin,LOGIN://127.0.0.1:$port
			map=PLAINTEXT:PLAINTEXT,LOGIN:SASL_PLAINTEXT
			if [ "$security" = sasl_plain ]; then
				extra=$(login_plain "$user" "$password")
			else
				extra="listener.name.login.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.login.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.login.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
				scram=(--add-scram "SCRAM-SHA-256=[name=$(quote_jaas "$user"),password=$(quote_jaas "$password")]"
					--add-scram "SCRAM-SHA-512=[name=$(quote_jaas "$user"),password=$(quote_jaas "$password")]")
			fi
			;;
		*)
			usage
			;;
	esac
	# Retention is off: the generated orders carry old timestamps.
	(
		umask 077
		cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=$listeners,CONTROLLER://127.0.0.1:$controller
advertised.listeners=${advertised:-$listeners}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,$map
log.dirs=$dir/data
log.retention.ms=-1
log.retention.bytes=-1
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.backoff.ms=500
log.segment.delete.delay.ms=1000
log.retention.check.interval.ms=1000
num.network.threads=2
num.io.threads=2
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
$extra
PROPERTIES
	)
	{
		echo "bootstrap=127.0.0.1:$port"
		echo "admin=127.0.0.1:$admin"
		[ "$security" != tls ] || echo "mutual=127.0.0.1:$mutual"
	} >"$dir/info"

	jars=$("$here/fetch.sh" --where)
	"$java" -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*" \
		kafka.tools.StorageTool format -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | tr -d =)" \
		-c "$dir/server.properties" ${scram[@]+"${scram[@]}"} >"$dir/format.log" 2>&1 </dev/null ||
		{ cat "$dir/format.log" >&2; fail "cannot format $dir"; }
	launch "$dir"
}

stop()
{
	local pid
	pid=$(running "$1") || return 0
	kill "$pid" 2>/dev/null || true
	await_end "$pid" 30 || { kill -9 "$pid" 2>/dev/null; await_end "$pid" 10; } || fail "process $pid does not end"
	rm -f "$1/broker.pid"
}

[ $# -ge 2 ] || usage
command=$1
shift
case $command in
	stop | kill | restart | info)
		[ -d "$1" ] || fail "$1 is not a folder"
		dir=$(cd "$1" && pwd)
		;;
esac
case $command in
	start) start "$@" ;;
	stop) stop "$dir" ;;
	kill)
		pid=$(running "$dir") || exit 0
		kill -9 "$pid"
		await_end "$pid" 10
		rm -f "$dir/broker.pid"
		;;
	restart)
		[ -e "$dir/server.properties" ] || fail "$dir holds no broker; use start"
		stop "$dir"
		launch "$dir"
		;;
	info) cat "$dir/info" ;;
	topic) kadmin create "$@" ;;
	alter-topic) kadmin alter "$@" ;;
	delete-topic) kadmin delete "$@" ;;
	add-partitions | delete-records | offsets) kadmin "$command" "$@" ;;
	*) usage ;;
esac
