# Source this with HERE, the recipe's directory, and OUT, where it writes: what recipes that set themselves up share.
#   VENV    an existing environment to use instead of making one in $OUT/.venv
#   PYTHON  the interpreter to make one with: Python 3.11 or 3.12
# It makes OUT, and its name absolute.

export PYTHON=${PYTHON:-python3}
ROOT=$(cd "$HERE/../.." && pwd)
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

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
