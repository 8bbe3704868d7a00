#!/usr/bin/env bash
#
# lint.sh
#	Formatting and house rules, over the files that git tracks or would track.
#
# usage: test/lint.sh [FILE...]     FILEs: C and C++ sources, formatting only
#
# NOTES
#	Prints one line per finding, FILE:LINE: RULE, and exits with status 1 if
#	there is any.
#
#	C formatting is compared with clang-format's opinion under .clang-format.
#	Not every difference counts: pgindent aligns declarations and comments in
#	columns that clang-format has no notion of, and where to break a long line is
#	the author's.  What counts: spaces between tokens (pointers to the right,
#	operators, keywords, commas), braces on lines of their own, the type of a
#	function on a line of its own.  Beside that: tabs for indentation, no blanks
#	at the end of a line, at most 100 columns where there is no message.
#
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v clang-format-14 >/dev/null; then
	echo "lint: clang-format-14 is missing: run test/setup.sh" >&2
	exit 2
fi

exec python3 - "$@" <<'PYTHON'
import difflib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

MAX_LINES = 1000
MAX_COLUMNS = 100
SOURCES = ('.c', '.h', '.cpp', '.pl', '.pm', '.py', '.sh', '.sql')

findings = []


def find(path, line, what):
    findings.append((path, line, what))


def project_files():
    """What git tracks or would track; without git, everything."""
    try:
        out = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
                             check=True, capture_output=True).stdout.decode()
        names = [n for n in out.split('\0') if n]
    except (OSError, subprocess.CalledProcessError):
        names = [os.path.relpath(os.path.join(d, f)) for d, _, fs in os.walk('.') for f in fs]
    return sorted(n for n in set(names) if os.path.isfile(n))


def text_of(path):
    with open(path, 'rb') as f:
        data = f.read()
    if b'\0' in data:
        return None
    return data.decode('utf-8', 'replace')


# --- C formatting ---------------------------------------------------------

def blanks_collapsed(line):
    """The line without indentation and with single blanks, comments' stars included."""
    return re.sub(r'\s+', ' ', line).strip()


def tokens_spaced(lines):
    """Lines as one string in which line breaks, and blanks where pgindent and
    clang-format think differently, do not count."""
    joined = ' '.join(line.removesuffix('\\').rstrip() for line in lines if line)
    return re.sub(r' *([(){}\[\];]|->|\.\.\.) *', r'\1', joined).replace(' :', ':').replace(' ,', ',')


def braces_alone(lines):
    """How many statements and types open their braces on a line of its own, and
    how many lines are an else."""
    opened = sum(line == '{' and re.search(r'\)$|^(else|do)$|^(typedef )?(struct|union|enum)\b', before) is not None
                 for before, line in zip(lines, lines[1:]))
    return opened + lines.count('else')


def check_c_format(path):
    formatted = subprocess.run(['clang-format-14', '--style=file:.clang-format', path], capture_output=True)
    if formatted.returncode != 0:
        return [(path, 1, 'clang-format: ' + formatted.stderr.decode().strip())]
    found = []
    text = text_of(path)
    ours_raw = text.split('\n')
    theirs_raw = formatted.stdout.decode('utf-8', 'replace').split('\n')
    ours = [blanks_collapsed(line) for line in ours_raw]
    theirs = [blanks_collapsed(line) for line in theirs_raw]

    for tag, a1, a2, b1, b2 in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if tag == 'equal':
            continue
        a, b = ours[a1:a2], theirs[b1:b2]
        hint = ' | '.join(line for line in b if line not in a)[:100]
        if tokens_spaced(a) != tokens_spaced(b):
            found.append((path, a1 + 1, 'spacing: clang-format has "%s"' % hint))
        elif braces_alone(b) > braces_alone(a):
            found.append((path, a1 + 1, 'brace: belongs on a line of its own'))
        elif any(re.match(r'[A-Za-z_]', line) and re.search(r'\w+\(', line)
                 for line in ours_raw[a1:a2]) and \
                any(re.match(r'(static |inline |const |struct )*\w+( \*+)?$', line)
                    for line in theirs_raw[b1:b2]):
            found.append((path, a1 + 1, 'function: its type belongs on a line of its own'))

    for number, line in enumerate(ours_raw, 1):
        if line != line.rstrip():
            found.append((path, number, 'blanks at the end of the line'))
        if re.match(r'\t*    ', line):
            found.append((path, number, 'indentation by blanks instead of tabs'))
        if re.search(r'^[^"/*]*\b(if|while|for|switch)\(', line):
            found.append((path, number, 'spacing: a keyword is followed by a blank'))
        width = len(line.expandtabs(4))
        # A message is not broken, so that it can be searched for; nor are data of a test.
        quoted = sum(len(literal) for literal in re.findall(r'"(?:[^"\\]|\\.)*"', line))
        if width > MAX_COLUMNS and quoted < 30:
            found.append((path, number, 'line of %d columns, at most %d' % (width, MAX_COLUMNS)))
    if not text.endswith('\n'):
        found.append((path, len(ours_raw), 'no newline at the end of the file'))
    return found


# --- House rules ----------------------------------------------------------

# Paths of a developer's machine; the words are put together here so that this
# file does not find itself.
MACHINE_PATH = re.compile(r'(^|[^A-Za-z0-9_.$}-])/(' + 'wo' + 'rk|ro' + r'ot|home/\w+)/')
MARK = re.compile(r'\b(' + '|'.join(('TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'HA' + 'CK')) + r')\b')


def check_house_rules(path):
    text = text_of(path)
    if text is None:
        return
    lines = text.splitlines()
    if path.endswith(SOURCES) and len(lines) > MAX_LINES:
        find(path, len(lines), 'file of %d lines, at most %d: split it by subject' % (len(lines), MAX_LINES))
    for number, line in enumerate(lines, 1):
        if MACHINE_PATH.search(line):
            find(path, number, 'path of a machine')
        if MARK.search(line):
            find(path, number, 'left-over mark')


# --- SQL ------------------------------------------------------------------

CREATE = re.compile(
    r'^\s*CREATE\s+(?:OR\s+REPLACE\s+)?(?:UNLOGGED\s+)?'
    r'(FUNCTION|PROCEDURE|VIEW|TABLE|AGGREGATE|TYPE|DOMAIN|FOREIGN\s+DATA\s+WRAPPER|EVENT\s+TRIGGER|OPERATOR\s+CLASS)'
    r'\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w@".]+)', re.I | re.M)
COMMENT = re.compile(
    r'^\s*COMMENT\s+ON\s+(FUNCTION|PROCEDURE|VIEW|TABLE|AGGREGATE|TYPE|DOMAIN|FOREIGN\s+DATA\s+WRAPPER|EVENT\s+TRIGGER|OPERATOR\s+CLASS)'
    r'\s+([\w@".]+)', re.I | re.M)


def blank_out(match):
    return re.sub(r'[^\n]', ' ', match.group(0))


def object_of(match):
    """Kind and name without the schema, as psql would print them."""
    kind = re.sub(r'\s+', ' ', match.group(1)).upper()
    return kind, match.group(2).split('.')[-1].strip('"').lower()


def check_sql_comments(paths):
    """Every object of the extension's scripts is described by a COMMENT."""
    created, commented = {}, set()
    for path in paths:
        # Comments and bodies of functions create nothing of the extension's.
        text = re.sub(r'--[^\n]*', blank_out, text_of(path))
        text = re.sub(r'/\*.*?\*/', blank_out, text, flags=re.S)
        text = re.sub(r'(\$\w*\$).*?\1', blank_out, text, flags=re.S)
        for match in CREATE.finditer(text):
            line = text.count('\n', 0, match.start(1)) + 1
            created.setdefault(object_of(match), (path, line))
        commented.update(object_of(match) for match in COMMENT.finditer(text))
    for (kind, name), (path, line) in created.items():
        if (kind, name) not in commented:
            find(path, line, '%s %s has no COMMENT' % (kind.lower(), name))


# --- Main -----------------------------------------------------------------

def is_c(path):
    return path.endswith(('.c', '.h', '.cpp'))


arguments = sys.argv[1:]
files = arguments or project_files()

with ThreadPoolExecutor(os.cpu_count()) as pool:
    for found in pool.map(check_c_format, [f for f in files if is_c(f)]):
        findings.extend(found)
if not arguments:
    for name in files:
        check_house_rules(name)
    check_sql_comments([f for f in files
                        if re.match(r'(src/[^/]+/[^/]+|[^/]+--[^/]+)\.sql$', f)])

for name, line, what in sorted(findings):
    print('%s:%d: %s' % (name, line, what))
if findings:
    print('%d findings in %d files' % (len(findings), len({f[0] for f in findings})))
sys.exit(1 if findings else 0)
PYTHON
