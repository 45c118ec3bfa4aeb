#!/usr/bin/env bash
# Measure what only a GPU can show, in at most eight minutes on one H100.
#
#   tools/gpu_check.sh [--tiny] [--dry-run] [OUTPUT]
#
# Every section is a process of its own with a time limit: one that fails prints one line, and the
# next goes on. OUTPUT (default: gpu_check) gets a file for each and one for all, named after the card.
# --tiny goes through every section at tiny sizes, without a GPU where there is none; --dry-run prints
# the commands and runs nothing.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
options=()
run=()
output=gpu_check
for argument in "$@"; do
    case $argument in
        --tiny) options+=(--tiny) ;;
        --dry-run) run=(echo) ;;
        -*)
            echo "error: unknown option $argument" >&2
            exit 2
            ;;
        *) output=$argument ;;
    esac
done
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

# Sections and their limits in seconds, 460 together.
sections=(versions:30 student-phase:130 kernels:100 iteration:140 flash-attention:60)
failed=0
for entry in "${sections[@]}"; do
    section=${entry%%:*}
    limit=${entry##*:}
    echo "== $section"
    "${run[@]}" timeout "$limit" "$python" "$root/tools/gpu_check.py" \
        --section "$section" --output "$output" "${options[@]}"
    code=$?
    if ((code != 0)); then
        echo "FAILED: $section (exit code $code; 124 is its limit of $limit s)"
        failed=1
    fi
done
echo "== summary"
"${run[@]}" "$python" "$root/tools/gpu_check.py" --summary --output "$output" "${options[@]}" || failed=1
exit "$failed"
