#!/usr/bin/env bash
#
# fuzz.sh
#	Fuzzes the JSON scanner for SE_FUZZ_SECONDS (50; 600 with SE_LONG), and the
#	parser of paths for a fifth of that, with AddressSanitizer and
#	UndefinedBehaviorSanitizer.  Output is TAP.
#
# NOTES
#	Needs clang with libFuzzer.  A failing input is printed in base64.
#
#	These are the parsers that do without PostgreSQL.  Column lists, durations, starts and
#	options use its scanner, its input functions, its catalogs and its errors: without these
#	there would be little left to test, so test/t/195_option_fuzz.pl tries them on a server.
#
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
src=$here/../../src

clang=$(command -v clang++ || command -v clang++-14 || true)
if [ -z "$clang" ]; then
	echo "1..0 # SKIP no clang++"
	exit 0
fi
seconds=${SE_FUZZ_SECONDS:-$([ "${SE_LONG:-0}" = 0 ] && echo 50 || echo 600)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags=(-O1 -g "-I$src" -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
for file in json_path json_scalar; do
	"${clang/++/}" "${flags[@]}" -c "$src/source/$file.c" -o "$work/$file.o"
done
"$clang" -std=c++17 -fno-exceptions -fno-rtti "${flags[@]}" -c "$src/source/json_core.cpp" -o "$work/json_core.o"
"$clang" -std=c++17 "${flags[@]}" -c "$here/../fuzz/json_fuzz.cpp" -o "$work/json_fuzz.o"
"$clang" -std=c++17 "${flags[@]}" -c "$here/../fuzz/path_fuzz.cpp" -o "$work/path_fuzz.o"
"$clang" -fsanitize=fuzzer,address,undefined "$work"/{json_path,json_scalar,json_core,json_fuzz}.o -lsimdjson -o "$work/json_fuzz"
"$clang" -fsanitize=fuzzer,address,undefined "$work"/{json_path,path_fuzz}.o -o "$work/path_fuzz"

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

mkdir "$work/paths"
printf '$.a.b\n$["a"][0]\n$\n$.a[12]."x y"\n$[\x27it\x27]' >"$work/paths/1"
printf '$.a.b\n$.a.b\n$.a\n$["\\u00e9\\""]\n$[2147483648]\n$..a\n$.a[*]' >"$work/paths/2"
cat >"$work/path_dictionary" <<'WORDS'
"$."
"$[\""
"\"]"
"[0]"
"[2147483647]"
"\\u"
"\x0a$"
WORDS

# fuzz TARGET SECONDS CORPUS DICTIONARY WHAT: a line of TAP, with the input that has failed.
number=0
failed=0
fuzz()
{
	local log=$work/$1.log file

	number=$((number + 1))
	if "$work/$1" -max_total_time="$2" -timeout=20 -max_len=4096 -len_control=20 \
		-dict="$work/$4" -artifact_prefix="$work/failed-$1-" -print_final_stats=1 \
		"$work/$3" >"$log" 2>&1; then
		grep -E 'number_of_executed_units|Done ' "$log" | sed 's/^/# /'
		echo "ok $number - no input in $2 seconds breaks $5"
		return
	fi
	tail -40 "$log" | sed 's/^/# /'
	for file in "$work/failed-$1-"*; do
		[ ! -f "$file" ] || echo "# input: $(base64 -w0 "$file")"
	done
	echo "not ok $number - an input breaks $5"
	failed=1
}

echo 1..2
fuzz json_fuzz "$seconds" corpus dictionary "the JSON scanner"
fuzz path_fuzz $((seconds / 5)) paths path_dictionary "the parser of paths"
exit $failed
