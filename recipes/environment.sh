# Source this with HERE, the recipe's directory, and OUT, where it writes: what recipes that set themselves up share.
#   VENV    an existing environment to use instead of making one in $OUT/.venv
#   PYTHON  the interpreter to make one with: Python 3.11 or 3.12
# It makes OUT, and its name absolute.

export PYTHON=${PYTHON:-python3}
ROOT=$(cd "$HERE/../.." && pwd)
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

# Commands in the background. One that fails ends the script, and the others with it; of one that ended before it was
# waited for bash keeps the exit code, by its number.
trap 'kill $(jobs -pr) 2> /dev/null || true' EXIT
BACKGROUND=()
in_background() { "$@" & BACKGROUND+=($!); }
wait_for_room() { while [ "$(jobs -pr | wc -l)" -ge "$1" ]; do wait -n; done; }
wait_for_all() {
  local pid
  while [ -n "$(jobs -pr)" ]; do wait -n; done
  for pid in "${BACKGROUND[@]}"; do wait "$pid"; done
}

stage() { printf '\n== %s\n' "$*"; }

# use_environment EXTRAS [megatron] [beside] [tau]: of constraints/install.sh; first on PATH from then on.
use_environment() {
  if [ -z "${VENV:-}" ]; then
    VENV=$OUT/.venv
    # shellcheck source=/dev/null
    source "$ROOT/constraints/install.sh"
    install_pinned "$VENV" "$@"
  fi
  export PATH=$VENV/bin:$PATH VIRTUAL_ENV=$VENV
}
