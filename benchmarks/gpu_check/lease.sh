# Shell functions for a GPU machine that is at hand for minutes, in several calls: source it in the project's root.
#
#   OUT=results; . benchmarks/gpu_check/lease.sh
#   take .gpu/1                                 # a transfer of pack.py
#   check machine ceilings                      # steps of check.py, here and now
#   behind graphs                               # a step beside others; its results are joined by `keep`
#   start "DRAEM edge" aws_cookies              # a cell of gpu_proof.toml, beside others and beyond this call
#   pause; check ort torch; go_on               # nothing else runs while something is timed
#   wait_for 60                                 # at most so many seconds, for what runs behind and for the cells
#   keep                                        # results, and logs of the cells, into $OUT: small files only
check_folder=benchmarks/gpu_check
work=${EDGEAD_GPU_FOLDER:-$HOME/edgead_gpu}
extras=$work/extras
mkdir -p "$work" "$extras"
ln -sfn "$extras" benchmarks/data

say() { echo "== $(cut -d. -f1 /proc/uptime) s: $*"; }

take() {
  say "take $1"
  bash $check_folder/take.sh "$1"
}

run_check() {  # FOLDER STEP …
  python3 $check_folder/check.py --out "$@" --data "$extras/mvtec_hazelnut_reduced" \
    --weights "$extras/weights/squeezenet1_1_imagenet.pth" --limit "${LIMIT:-150}" ${CHECK_OPTIONS:-}
}

check() {
  say "check $*"
  run_check "$work/results" "$@"
}

behind() {
  say "behind: $*"
  run_check "$work/results-$1" "$@" >"$work/$1.log" 2>&1 &
  echo $! >>"$work/jobs"
}

start() {  # LABEL CATEGORY …
  local label=$1 words=() category
  shift
  for category in "$@"; do words+=(--category "$category"); done
  say "start $label: $*"
  setsid python3 $check_folder/cells.py "${SWEEP:-benchmarks/gpu_proof.toml}" --out "$work/cells" --label "$label" "${words[@]}" \
    --workers "${WORKERS:-3}" --wait "$work/pieces/ort.tar.xz.done" >>"$work/cells.log" 2>&1 &
  echo $! >>"$work/jobs"
  echo $! >>"$work/groups"
}

signal_cells() {
  local group
  for group in $(cat "$work/groups" 2>/dev/null); do kill "-$1" -- "-$group" 2>/dev/null; done
}

pause() { signal_cells STOP; }

go_on() { signal_cells CONT; }

wait_for() {
  local job left
  say "wait for at most $1 s"
  for _ in $(seq "$1"); do
    left=0
    for job in $(cat "$work/jobs" 2>/dev/null); do kill -0 "$job" 2>/dev/null && left=1; done
    [ $left = 0 ] && break
    sleep 1
  done
  say "waited"
}

keep() {
  python3 - "$work" "$OUT" <<'E2'
import json, sys
from pathlib import Path

work, out = map(Path, sys.argv[1:])
found = sorted(work.glob("results*/gpu_check.json"))
if found:
    whole = json.loads(found[0].read_text())
    for path in found[1:]:
        whole["steps"].update(json.loads(path.read_text())["steps"])
    (out / "gpu_check.json").write_text(json.dumps(whole, indent=1))
E2
  cat "$work"/results*/gpu_check.log >"$OUT/gpu_check.log" 2>/dev/null
  cat "$work"/*.log "$work"/cells/*.log 2>/dev/null
  find "$work/cells" \( -name '*.log' -o -name log.txt -o -name '*.jsonl' -o -name results.json -o -name '*-[0-9].json' \) \
    -print0 2>/dev/null | tar czPf "$OUT/cells.tgz" --transform "s,$work/,," --null -T -
  ls -la "$OUT"
  say "kept"
}
