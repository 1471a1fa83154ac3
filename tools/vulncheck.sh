#!/usr/bin/env bash
# Looks for known vulnerabilities in what the programs call: tools/vulncheck.sh GOVULNCHECK. It fails if there are any.
# Without a way to the database it says so and looks for nothing.
set -uo pipefail
cd "$(dirname "$0")/.."
govulncheck=$1
code=0
for module in proto pkg router wsnode integration; do
  echo "== $module"
  out=$(cd "$module" && GOWORK=off timeout 120 "$govulncheck" ./... 2>&1)
  got=$?
  printf '%s\n' "$out"
  case $got in
    0) ;;
    3) code=1 ;; # vulnerabilities
    *)
      if grep -qE 'vuln\.go\.dev|dial tcp|no such host|fetching vulnerabilities' <<<"$out" || [ $got = 124 ]; then
        echo "the vulnerability database cannot be reached from here: nothing was looked for"
        exit 0
      fi
      code=1
      ;;
  esac
done
exit $code
