# lib.sh
#	Shell library of check.sh, demo.sh and bench.sh: a work folder, a private
#	server tree with the extension in it, private clusters, an orderly exit.
#
# usage:
#	set -euo pipefail
#	. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
#	se_init "$@"                 # takes --keep out of the arguments: see SE_ARGS
#	se_build                     # SE_BIN: bin folder of the private server tree
#	se_cluster main work_mem=8MB # initdb, not started; --fsync for a durable one
#	se_start main
#	se_psql main -c 'SELECT 1'
#
# NOTES
#	The machine stays as it was.  The build goes into a private copy of the
#	server tree (a PostgreSQL server finds its libraries relative to its own
#	program file), clusters listen on a Unix socket inside the work folder only,
#	and at exit, also by INT, TERM or HUP, clusters are stopped, processes that
#	were started in the work folder are killed and the folder is removed.
#
#	initdb and postgres refuse root, and the source may lie in a folder that
#	only root can read.  So everything is built and run from a copy of the
#	source, as SE_USER: ourselves, or, when we are root, postgres, or nobody
#	where there is no postgres.
#
#	Environment, all optional:
#	  PG_CONFIG          the server to build for
#	  SE_WORK            the work folder; one that exists is used and not removed
#	  SE_KEEP=1          keep the work folder and say where it is
#	  SE_KEEP_RUNNING=1  as SE_KEEP, and leave clusters and programs running
#	  SE_TREE            source copy and server tree stay here and are brought up
#	                     to date by later calls: seconds instead of a minute
#	  SE_FAILPOINTS=1    build with failpoints
#	  SE_JOBS            parallel jobs of make (default: processors)
#	Set for callers:
#	  SE_SOURCE  the source tree    SE_SRC  its copy, owned by SE_USER
#	  SE_ROOT    the private root   SE_BIN  the server's programs in it
#	  SE_USER    who runs servers   SE_ARGS the arguments that are left
#
# shellcheck shell=bash

SE_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
SE_ARGS=()
SE_CLUSTERS=()
SE_EXIT_COMMANDS=()

se_log()
{
	printf '%s\n' "$*" >&2
}

se_die()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# ---------------------------------------------------------------------------
# Work folder, user, exit
# ---------------------------------------------------------------------------

# The pg_config to build with: the caller's, else version 15's, else the PATH's.
se_find_pg_config()
{
	local candidate

	for candidate in "${PG_CONFIG:-}" /usr/lib/postgresql/15/bin/pg_config pg_config; do
		if [ -n "$candidate" ] && command -v "$candidate" >/dev/null; then
			command -v "$candidate"
			return
		fi
	done
	se_die "no pg_config found: run test/setup.sh, or set PG_CONFIG"
}

# Sets everything up; --keep among the arguments means SE_KEEP=1, the others are
# left in SE_ARGS.  Installs the exit trap: callers add to it by se_at_exit.
se_init()
{
	local arg

	for arg in "$@"; do
		case $arg in
			--keep) SE_KEEP=1 ;;
			*) SE_ARGS+=("$arg") ;;
		esac
	done
	[ "${SE_KEEP_RUNNING:-0}" = 1 ] && SE_KEEP=1

	# A make or a psql session around us must not reach into what we run.
	unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES CDPATH
	unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGDATA PGOPTIONS PGSERVICE PGPASSWORD
	umask 022

	PG_CONFIG=$(se_find_pg_config)
	if [ "$(id -u)" -ne 0 ]; then
		SE_USER=$(id -un)
	elif id -u postgres >/dev/null 2>&1; then
		SE_USER=postgres
	else
		SE_USER=nobody
	fi

	SE_CREATED_WORK=0
	if [ -z "${SE_WORK:-}" ]; then
		SE_WORK=$(mktemp -d "${TMPDIR:-/tmp}/se.XXXXXX")
		SE_CREATED_WORK=1
	elif [ ! -d "$SE_WORK" ]; then
		mkdir -p "$SE_WORK"
		SE_CREATED_WORK=1
	fi
	SE_WORK=$(cd "$SE_WORK" && pwd -P)

	trap se_cleanup EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM

	# A Unix socket's path holds 107 bytes.
	[ ${#SE_WORK} -le 70 ] || se_die "the path of the work folder is too long for a socket: $SE_WORK"

	SE_TREE=${SE_TREE:-$SE_WORK/tree}
	mkdir -p "$SE_TREE" "$SE_WORK/home"
	SE_TREE=$(cd "$SE_TREE" && pwd -P)
	se_give "$SE_WORK" "$SE_WORK/home" "$SE_TREE"
	as_user test -w "$SE_WORK" -a -w "$SE_TREE" ||
		se_die "user $SE_USER cannot reach $SE_WORK or $SE_TREE: set TMPDIR, SE_WORK or SE_TREE to folders that it can"

	SE_SRC=$SE_TREE/src
	SE_ROOT=$SE_TREE/root
	SE_BIN=$SE_ROOT$("$PG_CONFIG" --bindir)
	export PG_CONFIG SE_WORK SE_TREE SE_SRC SE_ROOT SE_BIN SE_USER
}

# Gives files to the unprivileged user.
se_give()
{
	if [ "$(id -u)" -eq 0 ]; then
		chown -h "$SE_USER" "$@"
	fi
}

# as_user COMMAND...: runs a command as SE_USER with the private server's
# programs first in the PATH.  It replaces the subshell, so that the process id
# of a command in the background is the command's own.  The command starts in
# the current folder, or in the work folder if that is closed to the user.
as_user()
(
	local as=()

	if [ "$(id -u)" -eq 0 ]; then
		as=(setpriv --reuid="$SE_USER" --regid="$(id -g "$SE_USER")" --init-groups)
		case $PWD/ in
			"$SE_WORK"/* | "${SE_TREE:-$SE_WORK}"/*) ;;
			*) cd "$SE_WORK" ;;
		esac
	fi
	exec "${as[@]}" env HOME="$SE_WORK/home" USER="$SE_USER" LOGNAME="$SE_USER" LC_ALL=C.UTF-8 \
		TMPDIR="$SE_WORK" PATH="${SE_BIN:+$SE_BIN:}$PATH" SE_WORK_OWNER="$SE_WORK" "$@"
)

# se_at_exit COMMAND: a shell command to run first at exit, last come first served.
se_at_exit()
{
	SE_EXIT_COMMANDS=("$1" "${SE_EXIT_COMMANDS[@]}")
}

# SE_LAST_COMMAND runs last of all: for a line that must end the output.

# Process ids of what runs in a folder or was started by as_user for it; a
# postmaster and its children stand in their data folder.
se_processes_of()
{
	local dir=$1 pid cwd

	for pid in /proc/[0-9]*; do
		pid=${pid#/proc/}
		[ "$pid" != $$ ] && [ "$pid" != "$BASHPID" ] || continue
		cwd=$(readlink "/proc/$pid/cwd" 2>/dev/null) || continue
		if [[ $cwd/ == "$dir"/* ]] ||
			{ grep -qzxF "SE_WORK_OWNER=$dir" "/proc/$pid/environ"; } 2>/dev/null; then
			echo "$pid"
		fi
	done
}

# The exit trap.  Runs whatever is left to do even if a part of it fails.
se_cleanup()
{
	local status=$? command cluster

	trap '' INT TERM HUP
	trap - EXIT
	set +e
	disown -a
	for command in "${SE_EXIT_COMMANDS[@]}"; do
		eval "$command"
	done
	if [ "${SE_KEEP_RUNNING:-0}" != 1 ]; then
		for cluster in "${SE_CLUSTERS[@]}"; do
			se_stop "$cluster" immediate
		done
		[ "$SE_CREATED_WORK" = 0 ] || se_end_processes_of "$SE_WORK"
	fi
	if [ "${SE_KEEP:-0}" = 1 ]; then
		se_log "kept: $SE_WORK"
	elif [ "$SE_CREATED_WORK" = 1 ]; then
		cd /
		rm -rf "$SE_WORK"
	fi
	[ -z "${SE_LAST_COMMAND:-}" ] || eval "$SE_LAST_COMMAND"
	exit $status
}

# se_end_processes_of DIR: ends what se_processes_of finds.  Servers shut down at
# once but in order, since a killed one leaves shared memory segments behind;
# what is still there after a while is killed.
se_end_processes_of()
{
	se_wait_until 15 se_nothing_runs_after "$1" se_ask_to_end ||
		se_wait_until 15 se_nothing_runs_after "$1" se_kill ||
		se_log "still running: $(se_processes_of "$1" | tr '\n' ' ')"
}

# se_nothing_runs_after DIR HOW: does HOW to each process, until there is none.
# Each poll looks anew: a process may have started another meanwhile.
se_nothing_runs_after()
{
	local pid pids

	mapfile -t pids < <(se_processes_of "$1")
	for pid in "${pids[@]}"; do
		"$2" "$pid"
	done
	[ ${#pids[@]} -eq 0 ]
}

se_ask_to_end()
{
	local name parent

	name=$(cat "/proc/$1/comm" 2>/dev/null) || return 0
	if [ "$name" = postgres ]; then
		# The children of a postmaster are its own business.
		parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null)
		[ "$(cat "/proc/${parent:-0}/comm" 2>/dev/null)" = postgres ] || kill -QUIT "$1" 2>/dev/null
	else
		kill -TERM "$1" 2>/dev/null
	fi
}

se_kill()
{
	kill -KILL "$1" 2>/dev/null
}

se_nothing_runs_in()
{
	[ -z "$(se_processes_of "$1")" ]
}

# se_wait_until SECONDS COMMAND...: polls until the command succeeds; fails when
# the time is over.
se_wait_until()
{
	local end=$((SECONDS + $1)) nap

	shift
	# A descriptor that never becomes readable: read with a limit is a nap
	# without a process.
	exec {nap}<> <(:)
	until "$@"; do
		if [ $SECONDS -ge $end ]; then
			exec {nap}>&-
			return 1
		fi
		read -rt 0.1 -u "$nap" || true
	done
	exec {nap}>&-
}

# Prints a TCP port of the loopback address that is free, its successor too
# (a Kafka broker needs two).  Ports lie below the range from which the kernel
# takes those of outgoing connections.
se_free_port()
{
	perl -MIO::Socket::INET -e '
		for (1 .. 1000) {
			my $port = 20000 + int(rand(6000)) * 2;
			my @s = grep { defined } map {
				IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $port + $_, Listen => 1)
			} 0, 1;
			if (@s == 2) { print "$port\n"; exit 0; }
		}
		exit 1' || se_die "no free port found"
}

# ---------------------------------------------------------------------------
# Build
# ---------------------------------------------------------------------------

# Names of the source's files, NUL-terminated, relative to it: what git tracks
# or would track; without git all that does not look like a product.
se_source_files()
{
	local file

	cd "$SE_SOURCE"
	if git rev-parse --is-inside-work-tree >/dev/null 2>&1 &&
		[ "$(git rev-parse --show-toplevel)" = "$SE_SOURCE" ]; then
		git ls-files -z --cached --others --exclude-standard
	else
		find . \( -name .git -o -name tmp_check -o -name results \) -prune -o \
			\( -type f -o -type l \) \
			! -name '*.o' ! -name '*.so' ! -name '*.bc' ! -name '*.d' -printf '%P\0'
	fi |
		while IFS= read -rd '' file; do
			[ ! -e "$file" ] || printf '%s\0' "$file"
		done
}

# Brings the copy up to date; files that left the source leave the copy.
se_copy_source()
{
	local list=$SE_TREE/files

	[ "$SE_SOURCE" != "$SE_SRC" ] || return 0
	mkdir -p "$SE_SRC"
	(se_source_files) | sort -z >"$list.new"
	if [ -f "$list" ]; then
		(cd "$SE_SRC" && comm -z -23 "$list" "$list.new" | xargs -0r rm -f --)
	fi
	(cd "$SE_SOURCE" && xargs -0r cp -ud --preserve=mode,timestamps --parents -t "$SE_SRC" -- <"$list.new")
	mv "$list.new" "$list"
	[ "$(id -u)" -ne 0 ] || chown -Rh "$SE_USER" "$SE_SRC"
}

# Copies the server's programs, libraries and shared files under SE_ROOT, with
# the folders in which its programs look for libraries relative to themselves.
se_copy_server()
{
	local what dir bindir

	bindir=$("$PG_CONFIG" --bindir)
	{
		for what in bindir pkglibdir sharedir; do
			"$PG_CONFIG" --$what
		done
		readelf -d "$bindir/psql" 2>/dev/null | sed -n 's/.*R[UN]*PATH.*\[\(.*\)\]/\1/p' | tr : '\n' |
			sed -n "s|^\$ORIGIN|$bindir|p"
	} | while IFS= read -r dir; do
		dir=$(realpath -ms "$dir")
		[ -d "$dir" ] || continue
		mkdir -p "$SE_ROOT$dir"
		cp -udr --preserve=mode,timestamps "$dir/." "$SE_ROOT$dir/"
	done
	[ "$(id -u)" -ne 0 ] || chown -Rh "$SE_USER" "$SE_ROOT"
}

# Prints those of the server's compiler flags that our compiler knows, when it does
# not know them all: a server may have been built by a newer one.
se_known_cflags()
{
	local flag known=()

	read -ra known <<<"$("$PG_CONFIG" --cflags)"
	! se_compiler_takes "${known[@]}" || return 0
	known=()
	for flag in $("$PG_CONFIG" --cflags); do
		! se_compiler_takes "$flag" || known+=("$flag")
	done
	printf '%s ' "${known[@]}"
}

se_compiler_takes()
{
	"${CC:-gcc}" -Werror "$@" -x c -c /dev/null -o /dev/null 2>/dev/null
}

# Prints what the objects depend on besides the source: another server or other
# flags want a clean build.
se_build_stamp()
{
	"$PG_CONFIG" --version --cflags
	echo "failpoints=${SE_FAILPOINTS:-0}"
}

# Prints the folder above src/test of the server's build support, where pg_regress
# and the Perl modules of the tests are; that of version 15, which can drive newer
# servers, when this server has come without them.
se_test_pgxs()
{
	local candidate dir

	for candidate in "$PG_CONFIG" /usr/lib/postgresql/15/bin/pg_config; do
		dir=$(dirname "$("$candidate" --pgxs)")/../..
		if [ -x "$dir/src/test/regress/pg_regress" ] &&
			[ -f "$dir/src/test/perl/PostgreSQL/Test/Cluster.pm" ]; then
			printf '%s\n' "$dir"
			return
		fi
	done
	se_die "no server has brought pg_regress and the Perl modules of the tests: run test/setup.sh"
}

# Copies source and server, builds, installs.  Fails loudly; compiler warnings
# are shown.  The log is SE_WORK/build.log.
se_build()
{
	local lock status=0

	exec {lock}>"$SE_TREE/lock"
	flock "$lock"
	se_build_locked {lock}>&- || status=$?
	exec {lock}>&-
	return $status
}

se_build_locked()
{
	local log=$SE_WORK/build.log make=() cflags status=0

	se_copy_source
	se_copy_server
	make=(make -s -j "${SE_JOBS:-$(nproc)}" PG_CONFIG="$PG_CONFIG")
	[ "${SE_FAILPOINTS:-0}" != 1 ] || make+=(FAILPOINTS=1)
	cflags=$(se_known_cflags)
	[ -z "$cflags" ] || make+=(CFLAGS="$cflags" CXXFLAGS='-O2 -g -fPIC')

	se_build_stamp >"$SE_TREE/stamp.new"
	: >"$log"
	if [ -f "$SE_TREE/stamp" ] && ! cmp -s "$SE_TREE/stamp" "$SE_TREE/stamp.new"; then
		(cd "$SE_SRC" && as_user make -s PG_CONFIG="$PG_CONFIG" clean) >>"$log" 2>&1 || true
	fi
	mv "$SE_TREE/stamp.new" "$SE_TREE/stamp"

	(
		cd "$SE_SRC"
		as_user "${make[@]}" &&
			as_user "${make[@]}" -j 1 install DESTDIR="$SE_ROOT" &&
			if [ -f test/tools/Makefile ]; then as_user make -s -C test/tools; fi
	) </dev/null >>"$log" 2>&1 || status=$?
	if [ $status -eq 0 ]; then
		grep 'warning:' "$log" >&2 || true
	else
		tail -n 40 "$log" >&2
		se_log "the build failed"
	fi
	return $status
}

# ---------------------------------------------------------------------------
# Clusters
# ---------------------------------------------------------------------------

# se_cluster NAME [--fsync] [SETTING=VALUE...]: makes a cluster in SE_WORK/NAME
# with the settings of test/regress.conf and the given ones.  Its socket is
# SE_WORK/NAME.sock/.s.PGSQL.5432, its log SE_WORK/NAME.log; the superuser is
# postgres.
se_cluster()
{
	local name=$1 data=$SE_WORK/$1 arg fsync=off

	shift
	as_user mkdir -p "$data.sock"
	as_user "$SE_BIN/initdb" -D "$data" -U postgres -A trust --no-sync --encoding=UTF8 --locale=C.UTF-8 \
		>"$data.log" 2>&1 || {
		tail -n 20 "$data.log" >&2
		se_die "initdb of cluster $name failed"
	}
	[ "$(id -u)" -ne 0 ] || chown "$SE_USER" "$data.log"
	{
		cat "$SE_SRC/test/regress.conf"
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$data.sock'"
		echo "port = 5432"
		for arg in "$@"; do
			case $arg in
				--fsync) fsync=on ;;
				*=*) printf "%s = '%s'\n" "${arg%%=*}" "$(sed "s/'/''/g" <<<"${arg#*=}")" ;;
				*) se_die "se_cluster: not a setting: $arg" ;;
			esac
		done
		echo "fsync = $fsync"
	} >>"$data/postgresql.conf"
	SE_CLUSTERS+=("$name")
}

# se_start NAME: starts a cluster and waits until it accepts connections.
se_start()
{
	local data=$SE_WORK/$1

	as_user "$SE_BIN/pg_ctl" -D "$data" -l "$data.log" -w -t 120 start </dev/null >"$data.ctl" 2>&1 || {
		cat "$data.ctl" >&2
		tail -n 40 "$data.log" >&2
		se_die "cluster $1 did not start"
	}
}

# se_stop NAME [MODE]: stops a cluster if it runs; fast unless told otherwise.
# One that does not stop is killed.
se_stop()
{
	local data=$SE_WORK/$1 mode=${2:-fast}

	[ -f "$data/postmaster.pid" ] || return 0
	as_user "$SE_BIN/pg_ctl" -D "$data" -w -t 60 -m "$mode" stop </dev/null >"$data.ctl" 2>&1 || se_kill9 "$1"
}

# se_kill9 NAME: kill -9 of the postmaster; returns when the last of its
# children is gone, so that the cluster can be started again.
se_kill9()
{
	local data=$SE_WORK/$1 pid

	pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 0
	kill -9 "$pid" 2>/dev/null || true
	se_wait_until 60 se_nothing_runs_in "$data" ||
		se_die "processes of cluster $1 outlive its postmaster: $(se_processes_of "$data" | tr '\n' ' ')"
	# The lock files still name the process.  Until process 1 has collected it a
	# start would refuse; in some containers process 1 never does.
	se_wait_until 10 se_is_collected "$pid" || rm -f "$data/postmaster.pid" "$data.sock"/.s.*.lock
}

se_is_collected()
{
	[ ! -e "/proc/$1" ]
}

# se_psql NAME ARGUMENTS...: psql on a cluster, plain output, stops at errors.
se_psql()
{
	local name=$1

	shift
	as_user "$SE_BIN/psql" -XAtq -v ON_ERROR_STOP=1 -h "$SE_WORK/$name.sock" -p 5432 -U postgres -d postgres "$@"
}
