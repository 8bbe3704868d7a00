#!/bin/bash
#
# fetch.sh
#	  Fetch the jars of the Kafka broker that the tests run.
#
# Usage: fetch.sh [--where]
#
# Maven resolves pom.xml into a cache folder, once; later calls return at once.
# Prints nothing on success.  --where prints the folder and fetches nothing; it
# fails if the jars are not there.
#
# The folder is $SE_KAFKA_LIB if that is set.  Else it is
# ${XDG_CACHE_HOME:-$HOME/.cache}/stream_engine/kafka-4.1.1, except for root:
# root's home is closed to the unprivileged user who runs servers and tests, so
# root fetches into /var/cache/stream_engine/kafka-4.1.1, where a user without
# jars of his own finds them.
#
set -euo pipefail

version=4.1.1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
shared=/var/cache/stream_engine/kafka-$version
own=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/stream_engine/kafka-$version

# A folder is complete when the marker that is written last is there.
complete()
{
	[ -r "$1/.complete" ] && cmp -s "$here/pom.xml" "$1/.complete"
}

if [ -n "${SE_KAFKA_LIB:-}" ]; then
	candidates=("$SE_KAFKA_LIB")
elif [ "$(id -u)" = 0 ]; then
	candidates=("$shared")
else
	candidates=("$own" "$shared")
fi

for folder in "${candidates[@]}"; do
	if complete "$folder"; then
		[ "${1:-}" = --where ] && echo "$folder"
		exit 0
	fi
done

if [ "${1:-}" = --where ]; then
	echo "fetch.sh: the jars of Kafka $version are not in ${candidates[*]}; run test/broker/fetch.sh" >&2
	exit 1
fi

if ! command -v mvn >/dev/null; then
	echo "fetch.sh: Maven (mvn) is needed to fetch the jars of Kafka $version" >&2
	exit 1
fi

target=${candidates[0]}
umask 022
mkdir -p "$(dirname "$target")"
scratch=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# Resolved beside the target and moved there whole: a broken download leaves no half a folder.
if ! mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies \
	-DoutputDirectory="$scratch/lib" -DincludeScope=runtime >"$scratch/log" 2>&1; then
	echo "fetch.sh: Maven could not resolve the jars of Kafka $version:" >&2
	tail -n 20 "$scratch/log" >&2
	exit 1
fi
cp "$here/pom.xml" "$scratch/lib/.complete"
chmod -R a+rX "$scratch/lib"
rm -rf "$target"
mv "$scratch/lib" "$target"
