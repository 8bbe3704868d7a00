#!/usr/bin/env bash
#
# json.sh
#	Builds and runs the tests of the JSON scanner, which need no server, with
#	AddressSanitizer and UndefinedBehaviorSanitizer.  Output is TAP.
#
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
src=$here/../../src
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags=(-O1 -g -Wall -Wextra "-I$src" -fsanitize=address,undefined -fno-sanitize-recover=all)
for file in json_path json_scalar; do
	"${CC:-gcc}" "${flags[@]}" -c "$src/source/$file.c" -o "$work/$file.o"
done
"${CXX:-g++}" -std=c++17 -fno-exceptions -fno-rtti "${flags[@]}" -c "$src/source/json_core.cpp" -o "$work/json_core.o"
"${CXX:-g++}" -std=c++17 "${flags[@]}" "$here/json_test.cpp" "$work"/*.o -lsimdjson -o "$work/json_test"
"$work/json_test"
