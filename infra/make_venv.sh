#!/usr/bin/env bash
# Makes .venv where there is none, with PYTHON or the first Python found that pyproject.toml lists; refuses, before
# anything is downloaded, what is sure to fail later. Silent where all is well, so that `make` may ask it every time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

refuse() { # what, expected, found, what to do
  printf 'error: %s\n  expected:   %s\n  found:      %s\n  what to do: %s\n' "$@" >&2
  exit 2
}
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

fitting=$(sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml | xargs)
one_of="Python ${fitting// / or }"
fits() { [[ " $fitting " == *" $1 "* ]]; }

if ! asked=$(git rev-parse --verify HEAD 2>&1); then
  refuse "this folder is no git repository with a commit" "a clone of the project: DVC and lineage rest on its commits" \
    "$(head -n 1 <<<"$asked")" "git clone the project, or here: git init, git add --all, git commit --message start"
fi

wanted=${PYTHON:-}
if [[ -n $wanted ]]; then
  found=$(version "$wanted") || refuse "PYTHON does not start a Python" "$one_of" "$wanted" "say where one is: make PYTHON=..."
  fits "$found" || refuse "PYTHON is of a version that does not fit" "$one_of" "$wanted, which is Python $found" \
    "say where another is: make PYTHON=..."
fi

if [[ -e .venv/bin/python || -L .venv/bin/python ]]; then
  there=$(version .venv/bin/python) || refuse "the Python of .venv does not start" "$one_of" \
    "a link to $(readlink -f .venv/bin/python || readlink .venv/bin/python)" "rm -r .venv, and the same command again"
  fits "$there" || refuse "the Python of .venv does not fit" "$one_of" "Python $there" \
    "rm -r .venv, and the same command again"
  [[ -z $wanted || $there == "$found" ]] || refuse ".venv is of another Python than PYTHON" \
    "Python $found, of $wanted" "Python $there" "rm -r .venv for another one, or leave out PYTHON"
  [[ -e .venv/bin/pip ]] && exit 0 # else it was interrupted in between: venv makes the rest
fi

if [[ -z $wanted ]]; then
  # shellcheck disable=SC2086 # a word each
  for name in $(printf 'python%s ' $fitting) python3; do
    if found=$(version "$name") && fits "$found"; then wanted=$name && break; fi
  done
  [[ -n $wanted ]] || refuse "no Python that fits is on the path" "$one_of" \
    "$(python3 --version 2>&1 || true)" "install one, or say where it is: make PYTHON=..."
fi
"$wanted" -m venv .venv
