# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The console command: exit codes, messages, and that a dry run writes nothing."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import SINGLE, copy, make_pair, set_weights, snapshot, weights

import rejuv_plugin
from rejuv_plugin import checkpoint
from rejuv_plugin.cli import main
from rejuv_plugin.report.apply import unrelated

ROOT = Path(rejuv_plugin.__file__).parents[1]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rejuv(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return caught.value.code or 0


def apply(*more: str, base: str = "base", sft: str = "sft", output: str = "out") -> int:
    return rejuv("apply", "--base", base, "--sft", sft, "--output", output, *more)


def test_apply_writes_and_says_where(pair: Path, capsys: pytest.CaptureFixture) -> None:
    assert apply("--alpha", "0.4") == 0
    out, err = capsys.readouterr()
    manifest = json.loads((pair / "out" / "rejuvenation.json").read_text())
    assert "alpha 0.4" in out
    assert "out/rejuvenation.json" in out
    assert f"{manifest['parameters_fused']:,} parameters" in out
    assert f"{manifest['drift_from_base']['output']['relative_l2']:.3%}" in out
    assert f" GB in {manifest['seconds']} s" in out
    assert err.splitlines() == [f"rejuv: warning: {unrelated(manifest['drift_from_base']['sft']['relative_l2'])}"], (
        "these two have nothing to do with each other; a short job has no progress in a log"
    )


def test_a_base_that_sft_started_from_is_no_cause_for_a_warning(pair: Path, capsys: pytest.CaptureFixture) -> None:
    near = {name: tensor + 0.3 * tensor.roll(1) for name, tensor in weights(pair / "base").items()}
    set_weights(pair / "sft", near)
    assert apply("--alpha", "0.4") == 0
    assert capsys.readouterr().err == ""


def test_apply_json_prints_the_manifest(pair: Path, capsys: pytest.CaptureFixture) -> None:
    assert apply("--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((pair / "out" / "rejuvenation.json").read_text())


def test_a_dry_run_shows_the_plan_and_writes_nothing(pair: Path, capsys: pytest.CaptureFixture) -> None:
    before = snapshot(pair)
    assert apply("--dry-run") == 0
    assert "nothing was written" in capsys.readouterr().out
    assert apply("--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert snapshot(pair) == before
    assert apply("--json") == 0
    manifest = json.loads(capsys.readouterr().out)
    assert plan["tensors_fused"] == manifest["tensors"]["fused"] > 20
    assert plan["parameters_fused"] == manifest["parameters_fused"]
    assert plan["output_bytes"] == sum(file["size"] for file in manifest["outputs"].values())


def test_brackets_in_a_path_are_no_markup(pair: Path, capsys: pytest.CaptureFixture) -> None:
    for output in ("run[lr=1]", "o[/b]"):
        assert apply("--dry-run", output=output) == 0
        assert output in capsys.readouterr().out


def test_a_finished_output_is_said_to_have_been_there(pair: Path, capsys: pytest.CaptureFixture) -> None:
    assert apply() == 0
    assert "already" not in capsys.readouterr().out
    assert apply("--resume") == 0
    assert capsys.readouterr().out.startswith("Was there already, whole. Rejuvenated")


def test_weights_that_are_not_finite_are_said_to_be(pair: Path, capsys: pytest.CaptureFixture) -> None:
    tensors = weights(pair / "sft")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    set_weights(pair / "sft", tensors)
    assert apply() == 0
    assert "rejuv: warning: NaN or infinity in model.layers.1: " in capsys.readouterr().err


def test_what_the_system_refuses_is_one_line(
    pair: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/model.safetensors")

    monkeypatch.setattr(checkpoint, "apply", full)
    assert apply() == 1
    assert capsys.readouterr().err == "rejuv: OSError: [Errno 28] No space left on device: 'out/model.safetensors'\n"


def test_a_dry_run_reads_headers_alone(pair: Path, capsys: pytest.CaptureFixture) -> None:
    file = pair / "sft" / SINGLE
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    size = file.stat().st_size
    # A hole in place of the weights: the plan is the same, whatever the bytes.
    os.truncate(file, header)
    os.truncate(file, size)
    assert apply("--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["weight_bytes"] == size


@pytest.mark.parametrize("alpha", ["1.5", "-0.1", "nan", "inf"])
def test_alpha_out_of_range(pair: Path, capsys: pytest.CaptureFixture, alpha: str) -> None:
    before = snapshot(pair)
    assert apply("--alpha", alpha) == 2
    assert capsys.readouterr().err.startswith("rejuv: --alpha: expected a number in [0, 1], got ")
    assert snapshot(pair) == before


def test_options_of_the_engine(pair: Path, capsys: pytest.CaptureFixture) -> None:
    assert apply("--workers", "3", "--resume", "--exclude-tensors", "lm_head.*", "--json") == 0
    assert json.loads(capsys.readouterr().out)["tensors"]["left_out"] == ["lm_head.weight"]
    assert rejuv("verify", str(pair / "out")) == 0
    before = snapshot(pair)
    for option, value in (("--workers", "-1"), ("--grown-vocabulary", "maybe"), ("--only-tensors", "nothing")):
        assert apply(option, value, output="other") == 2
        assert capsys.readouterr().err.startswith(f"rejuv: {option}: expected ")
    assert snapshot(pair) == before


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry"])
@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ({"base": "./gone"}, "--base: expected a directory or a hub name, got './gone', which does not exist"),
        ({"base": "sft"}, "--base: expected the model that the SFT checkpoint started from"),
        ({"output": "sft/out"}, "--output: expected a place outside of --sft"),
        ({"output": "base"}, "--output: expected a place outside of --base"),
    ],
)
def test_bad_input_is_one_line(pair: Path, capsys: pytest.CaptureFixture, paths: dict, says: str, dry: tuple) -> None:
    before = snapshot(pair)
    assert apply(*dry, **paths) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"rejuv: {says}")
    assert "Fix: " in err
    assert err.count("\n") == 1
    assert out == ""
    assert snapshot(pair) == before


def test_an_unknown_option_is_bad_input(pair: Path) -> None:
    assert apply("--aplha", "0.5") == 2
    assert rejuv("apply", "--base", "base") == 2


def run_command(pair: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from rejuv_plugin.cli import main; main()", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=pair, env=environment, capture_output=True, text=True, timeout=120)


def test_exit_codes_of_a_process(pair: Path) -> None:
    copy(pair / "sft", pair / "twin")
    bad = run_command(pair, "apply", "--base", "twin", "--sft", "sft", "--output", "out")
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
    (pair / "sft" / "generation_config.json").unlink()
    (pair / "sft" / "generation_config.json").symlink_to("/proc/self/mem")
    failed = run_command(pair, "apply", "--base", "base", "--sft", "sft", "--output", "out")
    assert failed.returncode == 1
    assert "OSError" in failed.stderr
    assert not list(pair.glob("out*"))


def test_help_teaches_without_importing_torch(pair: Path) -> None:
    script = "import sys; from rejuv_plugin.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", script, "apply", "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    for part in ("Examples", "rejuv apply --base", "bit for bit", "0.40 to 0.60", "--dry-run"):
        assert part in shown.stdout


def test_fusion_waits_for_no_library_that_it_does_without(pair: Path) -> None:
    """Their imports would take a quarter of the time that the fusion of a small model takes."""
    script = "import sys; from rejuv_plugin.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", script, "apply", "--base", "base", "--sft", "sft", "--output", "out"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.split())
    assert "rejuv_plugin.ops.kernel" in imported
    assert not imported & {"torch", "numpy", "transformers", "pydantic", "typer", "rich"}


def test_lists_and_arguments(pair: Path, capsys: pytest.CaptureFixture) -> None:
    assert rejuv("report", "gone", "gone too", "--output", "report.html") == 2
    assert "gone" in capsys.readouterr().err
    for wrong in (["reset-set"], ["reset-set", "a", "b", "c"], ["calibrate", "--examples", "0"], ["aply"]):
        assert rejuv(*wrong) == 2
        said = capsys.readouterr().err
        assert said.startswith("rejuv: ")
        assert said.count("\n") == 1
        assert re.search(r"Fix: see rejuv[a-z -]* --help\.$", said.strip()), said


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert rejuv("--version") == 0
    assert capsys.readouterr().out == f"rejuv {rejuv_plugin.__version__}\n"


def test_ray_that_is_not_installed(pair: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(pair)
    monkeypatch.delitem(sys.modules, "rejuv_plugin.integrations.ray_shards", raising=False)
    monkeypatch.delattr("rejuv_plugin.integrations.ray_shards", raising=False)
    # What Python takes for a module that is not there.
    monkeypatch.setitem(sys.modules, "ray", None)
    assert apply("--ray") == 2
    assert capsys.readouterr().err.startswith("rejuv: --ray: expected ray, to spread files, got an environment without")
    assert snapshot(pair) == before
