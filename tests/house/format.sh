#!/usr/bin/env bash
# Every file of ours is formatted by clang-format 14.
set -euo pipefail
cd "$1"
mapfile -t files < <(find common server agent client tests proto/predella \
  \( -name '*.h' -o -name '*.cc' -o -name '*.proto' \) | sort)
[ ${#files[@]} -gt 20 ] || { echo "only ${#files[@]} files found"; exit 1; }
clang-format-14 --dry-run -Werror "${files[@]}"
echo "${#files[@]} files formatted"
