#!/usr/bin/env bash
#
# setup.sh
#	Installs what building and testing stream_engine needs and is missing.
#
# usage: test/setup.sh [--no-broker]
#
# NOTES
#	Debian packages come by apt, the jars of the test broker by Maven through
#	test/broker/fetch.sh.  Nothing is printed and nothing is touched when all of
#	it is there.  Without root's rights the missing packages are named together
#	with the command that installs them, and the exit status is 1.
#
#	Installing a server on Debian creates and starts a cluster.  A machine that
#	has no PostgreSQL 15 gets the program only: a setting that says so exists
#	while apt runs.
#
#	--no-broker leaves out the broker's needs (Java, Maven, jars): enough for
#	the build and for the tests that need no Kafka.
#
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
want_broker=1
for arg in "$@"; do
	case $arg in
		--no-broker) want_broker=0 ;;
		*)
			echo "usage: ${0##*/} [--no-broker]" >&2
			exit 2
			;;
	esac
done

say()
{
	printf 'setup: %s\n' "$*" >&2
}

# Packages whose presence only the package database can tell.
packages=(gcc g++ make postgresql-15 postgresql-server-dev-15 librdkafka-dev libsimdjson-dev
	libipc-run-perl kcat liblz4-dev python3 clang-format-14 util-linux openssl)

# Is a Java of version 17 or newer there, from whatever package?
have_java()
{
	local version

	command -v java >/dev/null || return 1
	version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
	[ "${version:-0}" -ge 17 ]
}

missing_packages()
{
	local installed p

	installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null |
		sed -n 's/^installed //p' || true)
	for p in "${packages[@]}"; do
		grep -qxF -- "$p" <<<"$installed" || echo "$p"
	done
	# These have several providers: the command decides.
	command -v pkg-config >/dev/null || echo pkg-config
	if [ $want_broker = 1 ]; then
		have_java || echo openjdk-17-jre-headless
		command -v mvn >/dev/null || echo maven
	fi
}

install_packages()
{
	local conf=/etc/postgresql-common/createcluster.d/stream_engine-setup.conf log made_dir=0 status=0

	log=$(mktemp)
	if [[ " $* " == *" postgresql-15 "* ]]; then
		[ -d "${conf%/*}" ] || made_dir=1
		mkdir -p "${conf%/*}"
		echo "create_main_cluster = false" >"$conf"
	fi
	say "installing $*"
	{
		apt-get -q update &&
			DEBIAN_FRONTEND=noninteractive apt-get -q -y \
				-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
				-o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
	} </dev/null >"$log" 2>&1 || status=$?
	rm -f "$conf"
	[ $made_dir = 0 ] || rmdir --ignore-fail-on-non-empty "${conf%/*}" 2>/dev/null || true
	if [ $status -ne 0 ]; then
		tail -n 30 "$log" >&2
		say "could not install: $*"
	fi
	rm -f "$log"
	return $status
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	say "this is not a Debian system: install by hand what ${packages[*]} stand for on it"
	exit 1
fi

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
	if [ "$(id -u)" -ne 0 ]; then
		say "missing: ${missing[*]}"
		say "run as root: $here/${0##*/}"
		say "or: sudo apt-get install --no-install-recommends ${missing[*]}"
		exit 1
	fi
	install_packages "${missing[@]}"
	mapfile -t missing < <(missing_packages)
	if [ ${#missing[@]} -gt 0 ]; then
		say "still missing: ${missing[*]}"
		exit 1
	fi
fi

if [ $want_broker = 1 ] && [ -x "$here/broker/fetch.sh" ]; then
	if ! out=$("$here/broker/fetch.sh" 2>&1); then
		printf '%s\n' "$out" >&2
		say "could not get the jars of the test broker"
		exit 1
	fi
fi
