#!/usr/bin/env bash
# Runs a chain of O2Physics tasks, in the folder prepared for it. What it reads there, and nothing else:
#   stages.txt  one stage per line, words separated by blanks; no quoting, since every word is plain
# What it leaves there:
#   statuses.txt     "<number> <exit status> <program>" of every stage, as each ends
#   missing.txt      programs that are not installed; no stage was started then
#   environment.txt  which O2Physics was loaded
# Usage: run-chain.sh [VERSION]. With a version, O2Physics is loaded with alienv if its programs are not there yet.
set -euo pipefail

mapfile -t stages < stages.txt

missing=()
for line in "${stages[@]}"; do
  program=${line%% *}
  type -P "$program" > /dev/null || missing+=("$program")
done
if (( ${#missing[@]} )) && [[ -n ${1:-} ]] && type -P alienv > /dev/null; then
  exec alienv setenv "O2Physics/$1" -c bash "$0"
fi
if (( ${#missing[@]} )); then
  printf '%s\n' "${missing[@]}" > missing.txt
  echo "not installed: ${missing[*]}" >&2
  exit 127
fi
printf '%s\n' "O2PHYSICS_ROOT=${O2PHYSICS_ROOT:-}" "LOADEDMODULES=${LOADEDMODULES:-}" > environment.txt

# Runs one stage and notes how it ended: the statuses of a pipe are known to its own shell only.
stage() {
  local number=$1 status=0 words
  read -ra words <<< "${stages[number]}"
  "${words[@]}" || status=$?
  printf '%d %d %s\n' "$number" "$status" "${words[0]}" >> statuses.txt
  return "$status"
}

# Pipes a stage and all that follow it.
chain() {
  local number=$1
  if (( number + 1 < ${#stages[@]} )); then
    stage "$number" | chain "$((number + 1))"
  else
    stage "$number"
  fi
}

chain 0
