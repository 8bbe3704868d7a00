#!/usr/bin/env bash
#
# fuzz.sh
#	Fuzzes the JSON scanner for SE_FUZZ_SECONDS (60; 600 with SE_LONG) with
#	AddressSanitizer and UndefinedBehaviorSanitizer.  Output is TAP.
#
# NOTES
#	Needs clang with libFuzzer.  A failing input is printed in base64.
#
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
src=$here/../../src

clang=$(command -v clang++ || command -v clang++-14 || true)
if [ -z "$clang" ]; then
	echo "1..0 # SKIP no clang++"
	exit 0
fi
seconds=${SE_FUZZ_SECONDS:-$([ "${SE_LONG:-0}" = 0 ] && echo 60 || echo 600)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags=(-O1 -g "-I$src" -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
for file in json_path json_scalar; do
	"${clang/++/}" "${flags[@]}" -c "$src/source/$file.c" -o "$work/$file.o"
done
"$clang" -std=c++17 -fno-exceptions -fno-rtti "${flags[@]}" -c "$src/source/json_core.cpp" -o "$work/json_core.o"
"$clang" -std=c++17 "${flags[@]}" -c "$here/../fuzz/json_fuzz.cpp" -o "$work/json_fuzz.o"
"$clang" -fsanitize=fuzzer,address,undefined "$work"/*.o -lsimdjson -o "$work/json_fuzz"

mkdir "$work/corpus"
printf '{"a":{"b":1.50e1},"a":[1,-2.5],"long member name":{"x":"2024-02-29T10:00:00.5+01:00"}}' >"$work/corpus/1"
printf '{"a":"\\u00e9\\ud83d\\ude00\\n\303\251"}\036{"a":tru\036{"a":[[],{},null,true,false]}' >"$work/corpus/2"
printf '{"a":123456789012345678901.5e-3}\036{"a\036{"a":"\303\036{"\\u0061":0} x' >"$work/corpus/3"
printf '{"a":"x\\\036"}\036{}\\\036"\036[1]\036 \n' >"$work/corpus/4"
printf '{"a":{"b":1,"c":"x"},"z":0.5}\036{"a":{"b":"y","c":12},"z":-1}\036{"a":{"b":1},"z":1}\036{"a":{"b":null,"c":1,"b":3},"z":true}' >"$work/corpus/5"
printf '{"a":12.25,"long member name":{"x":1}}\036{"a":0.5,"long member name":{"x":[1]}}\036{"a":01,"long member name":{"x":2}}\036{"a" : 7 , "long member name":{"x":2} }\036{"a":7,"long member name":{"x":2}}}' >"$work/corpus/6"
cat >"$work/dictionary" <<'WORDS'
"{\"a\":"
"\"long member name\":{\"x\":"
"\\\\u00"
"\\\\ud83d\\\\ude00"
"e-18"
"true"
"false"
"null"
"\x1e"
"\xe2\x82\xac"
"2024-02-29T10:00:00"
WORDS

echo 1..1
if "$work/json_fuzz" -max_total_time="$seconds" -timeout=20 -max_len=4096 -len_control=20 \
	-dict="$work/dictionary" -artifact_prefix="$work/failed-" -print_final_stats=1 \
	"$work/corpus" >"$work/log" 2>&1; then
	grep -E 'number_of_executed_units|Done ' "$work/log" | sed 's/^/# /'
	echo "ok 1 - no input in $seconds seconds breaks the JSON scanner"
else
	tail -40 "$work/log" | sed 's/^/# /'
	for file in "$work"/failed-*; do
		[ ! -f "$file" ] || echo "# input: $(base64 -w0 "$file")"
	done
	echo "not ok 1 - an input breaks the JSON scanner"
	exit 1
fi
