#!/usr/bin/env bash
# Runs every fuzz target for so many seconds, two at a time, one worker each: tools/fuzz.sh SECONDS
# What a target finds is left in its testdata/fuzz, as go test does.
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
one() {
  local dir=$1 target=$2 out
  if out=$("${GO:-go}" test -run '^$' -fuzz "^$target\$" -fuzztime "${seconds}s" -parallel 1 "./$dir" 2>&1); then
    printf 'ok      %-34s %-42s %s\n' "$dir" "$target" "$(grep -oE 'execs: [0-9]+' <<<"$out" | tail -1)"
    return 0
  fi
  printf 'FAILED  %s %s\n%s\n' "$dir" "$target" "$out"
  return 1
}
export -f one
export seconds
grep -rn --include='*_test.go' --exclude-dir=.work '^func Fuzz' proto pkg router wsnode integration |
  sed -E 's#^(.*)/[^/]*_test\.go:[0-9]+:func (Fuzz[A-Za-z0-9_]*).*#\1 \2#' | sort |
  xargs -P 2 -L 1 bash -c 'one "$@"' one
