# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv diagnose`` from options to metrics.json."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from checkpoints import copy, edit_json, set_weights, snapshot, weights

from rejuv_plugin.checkpoint import progress
from rejuv_plugin.cli import main
from rejuv_plugin.diagnose import hessian, sharpness
from rejuv_plugin.diagnose.signals import NAMES


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("diagnose")
    base = tiny.save_base(root / "base")
    tiny.save_sft(root / "sft1", base)
    tiny.save_sft(root / "sft2", base, seed=2, scale=0.05)
    rows = [{"prompt": f"{a}+{a}=", "response": str(2 * a)} for a in range(5, 17)]
    (root / "calibration.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny.save_data(root / "data", train=6)
    return root


def options(inputs: Path, output: Path, *more: str) -> list[str]:
    fixed = ["--base", f"{inputs}/base", "--calibration", f"{inputs}/calibration.jsonl", "--output", str(output)]
    return ["diagnose", *fixed, "--device", "cpu", *more]


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(stopped.value.code or 0)


def metrics_of(output: Path) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    return json.loads((output / "metrics.json").read_text(), parse_constant=refuse)


def test_a_ladder_with_answers(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answered = ["--prompts", f"{inputs}/data/train.parquet", "--reward", f"{inputs}/data/reward.py:compute_score"]
    answered += ["--count", "4", "--group", "3", "--max-response", "5", "--pass-score", "0.1"]
    ladder = ["--sft", f"{inputs}/sft1", "--sft", f"{inputs}/sft2"]
    assert run(options(inputs, tmp_path / "out", *ladder, *answered)) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("sft1", "sft2", "pass@k"))
    metrics = metrics_of(tmp_path / "out")
    assert (metrics["format"], metrics["what"]) == (1, "diagnosis")
    assert metrics["calibration"]["examples"] == 12
    assert (metrics["prompts"]["count"], metrics["prompts"]["group"]) == (4, 3)
    base, first, second = metrics["checkpoints"]
    assert [row["role"] for row in (base, first, second)] == ["base", "sft", "sft"]
    assert [row["name"] for row in (base, first, second)] == ["base", "sft1", "sft2"]
    assert base["verdict"] is None
    assert first["verdict"]["level"] in ("ready", "at_risk", "over_trained", "too_weak")
    assert [signal["name"] for signal in metrics["signals"]] == list(NAMES)
    for row in (base, first, second):
        assert list(row["numbers"]) == list(NAMES)
        assert all(len(values) == 2 for values in row["layers"].values())
    measured = {name for name, found in second["numbers"].items() if found["value"] is not None}
    assert set(NAMES) - measured == {"hessian_top"}, "not asked for"
    assert {"drift", "update_cosine"} & {n for n, f in base["numbers"].items() if f["value"] is not None} == set()
    assert first["numbers"]["drift"]["value"] < second["numbers"]["drift"]["value"]
    for name in ("entropy", "entropy_sampled", "nll", "pass_at_1"):
        low, high = second["numbers"][name]["interval"]
        assert low <= second["numbers"][name]["value"] <= high
    # Once more: the same but for the time.
    assert run(options(inputs, tmp_path / "again", *ladder, *answered)) == 0
    assert metrics_of(tmp_path / "again")["checkpoints"] == metrics["checkpoints"]


def test_what_is_left_out_is_null(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = options(inputs, tmp_path / "out", "--sft", f"{inputs}/sft1", "--signals", "likelihood", "--hessian")
    assert run([*arguments, "--examples", "2"]) == 0
    metrics = metrics_of(tmp_path / "out")
    assert metrics["prompts"] is None
    row = metrics["checkpoints"][1]
    measured = {name for name, found in row["numbers"].items() if found["value"] is not None}
    likelihood = {"entropy", "entropy_ratio", "top1_mass", "entropy_gap", "nll", "nll_rise", "calibration_error"}
    assert measured == {*likelihood, "hessian_top"}
    assert row["layers"] == row["modules"] == {}
    assert row["verdict"]["level"] != "too_weak"
    assert " - " in capsys.readouterr().out


def test_what_does_not_fit_is_null_and_the_rest_is_measured(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a GPU that is full after some passes along the gradient, or in a Hessian-vector product."""
    loss, passes = sharpness._loss, []

    def fills_up(*arguments: Any) -> float:
        passes.append(1)
        return loss(*arguments) if len(passes) % 5 else full()

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB")

    monkeypatch.setattr(sharpness, "_loss", fills_up)
    monkeypatch.setattr(hessian, "_hessian_times", full)
    arguments = options(inputs, tmp_path / "out", "--sft", f"{inputs}/sft1", "--hessian")
    assert run([*arguments, "--signals", "likelihood,drift,sharpness", "--examples", "2"]) == 0
    shown = capsys.readouterr().out
    for row in metrics_of(tmp_path / "out")["checkpoints"]:
        assert list(row["not_measured"]) == ["sharpness_sam", "critical_sharpness", "hessian_top"]
        assert all(row["numbers"][name] == {"value": None, "interval": None} for name in row["not_measured"])
        assert "Tried to allocate 7.00 GiB" in row["not_measured"]["hessian_top"]
        assert "leave sharpness out of --signals" in row["not_measured"]["critical_sharpness"]
        assert row["numbers"]["nll"]["value"] > 0
        assert f"{row['name']}: sharpness_sam was not measured: the GPU had no room" in shown
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<p>Not measured of sft1: <code>critical_sharpness</code>. The GPU had no room for it" in page


def test_a_log_shows_that_each_part_moves(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_WITHOUT_TERMINAL", 0.0)
    answered = ["--prompts", f"{inputs}/data/train.parquet", "--reward", f"{inputs}/data/reward.py:compute_score"]
    answered += ["--count", "2", "--group", "2", "--max-response", "5", "--examples", "2", "--hessian"]
    assert run(options(inputs, tmp_path / "out", "--sft", f"{inputs}/sft1", *answered)) == 0
    shown = capsys.readouterr().err
    for name in ("base (1 of 2)", "sft1 (2 of 2)"):
        assert f"rejuv: {name}: scores: 1 of 4" in shown
        assert f"rejuv: {name}: sharpness: 5 of 36" in shown
        assert f"rejuv: {name}: Hessian, until it converges: 5 of 193" in shown


def test_names_that_are_not_their_own(inputs: Path, tmp_path: Path) -> None:
    twins = [copy(inputs / name, tmp_path / name / "hf") for name in ("sft1", "sft2")]
    ladder = [word for path in twins for word in ("--sft", str(path))]
    assert run(options(inputs, tmp_path / "out", *ladder, "--signals", "drift")) == 0
    rows = metrics_of(tmp_path / "out")["checkpoints"]
    assert [row["name"] for row in rows] == ["base", *map(str, twins)]
    assert rows[1]["verdict"]["level"] == "unknown"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--sft", "nowhere"], "--sft: expected"),
        (["--sft", "{}/base"], "--base: expected the model that the SFT checkpoint started from"),
        (["--sft", "{}/sft1", "--sft", "{}/sft1"], "--sft: expected each checkpoint once"),
        (["--sft", "{}/sft1", "--signals", "entropy"], "--signals: expected likelihood or neurons"),
        (["--sft", "{}/sft1", "--signals", "drift", "--hessian"], "--signals: expected likelihood, with hessian"),
        (["--sft", "{}/sft1", "--signals", ""], "--signals: expected some of likelihood, neurons"),
        (["--sft", "{}/sft1", "--signals", " , "], "--signals: expected some of likelihood, neurons"),
        (["--sft", "{}/sft1", "--signals", "answers"], "--prompts: expected prompts to answer, with answers among"),
        (["--sft", "{}/sft1", "--signals", "drift,answers"], "--prompts: expected prompts to answer, with answers"),
        (
            ["--sft", "{}/sft1", "--signals", "drift", "--prompts", "{}/data/none.parquet"],
            "--signals: expected answers, with prompts",
        ),
        (["--sft", "{}/sft1", "--group", "0"], "--group: expected a whole number above 0"),
        (["--sft", "{}/sft1", "--temperature", "0"], "--temperature: expected a number above 0"),
        (["--sft", "{}/sft1", "--temperature", "inf"], "--temperature: expected a number above 0"),
        (["--sft", "{}/sft1", "--seed", "99999999999999999999"], "--seed: expected a whole number from 0 to 2^63 - 1"),
        (["--sft", "{}/sft1", "--pass-score", "nan"], "--pass-score: expected a finite number"),
        (["--sft", "{}/sft1", "--device", "tpu"], "--device: expected auto or cpu or cuda"),
        (["--sft", "{}/sft1", "--max-tokens", "3"], "--calibration: expected responses within the first 3 tokens"),
        (["--sft", "{}/sft1", "--reward", "{}/data/reward.py:compute_score"], "--prompts: expected prompts to answer"),
        (["--sft", "{}/sft1", "--prompts", "{}/data/none.parquet"], "--prompts: expected"),
        (
            ["--sft", "{}/sft1", "--prompts", "{}/data/train.parquet", "--reward", "{}/data/reward.py:score"],
            "--reward: expected a function score",
        ),
        (["--sft", "{}/sft1", "--calibration", "{}/calibration.csv"], "--calibration: expected a .parquet"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    before = snapshot(inputs)
    assert run(options(inputs, tmp_path / "out", *(word.format(inputs) for word in more))) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"rejuv: {says}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert {name: data for name, data in snapshot(inputs).items() if "__pycache__" not in name} == before


def test_a_model_that_overflows_on_prompts(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = copy(inputs / "sft1", tmp_path / "broken")
    tensors = weights(broken)
    tensors["model.norm.weight"][:] = torch.nan
    set_weights(broken, tensors)
    arguments = options(inputs, tmp_path / "out", "--sft", str(broken), "--signals", "drift,answers")
    answered = ["--prompts", f"{inputs}/data/train.parquet", "--count", "2", "--group", "2", "--max-response", "3"]
    assert run([*arguments, *answered]) == 2
    said = capsys.readouterr().err
    assert "--sft: expected finite logits while answering the prompts" in said
    assert "calibration" not in said


@pytest.mark.parametrize("side", ["base", "sft1", "sft2"])
def test_drift_that_nan_spoils_is_named(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], side: str
) -> None:
    for name in ("base", "sft1", "sft2"):
        copy(inputs / name, tmp_path / name)
    tensors = weights(tmp_path / side)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan if side == "sft2" else torch.inf
    set_weights(tmp_path / side, tensors)
    ladder = ["--base", f"{tmp_path}/base", "--sft", f"{tmp_path}/sft1", "--sft", f"{tmp_path}/sft2"]
    assert run(options(inputs, tmp_path / "out", *ladder, "--signals", "drift")) == 0
    shown = capsys.readouterr().out
    distances, option = {"drift", "drift_spikes", "drift_changed"}, "--base" if side == "base" else "--sft"
    why = f"NaN or infinity in model.layers.1.mlp.up_proj.weight of {option} {tmp_path}/{side}"
    expected = {
        "base": (distances, distances | {"update_cosine"}),
        "sft1": (distances, {"update_cosine"}),
        "sft2": (set(), distances | {"update_cosine"}),
    }
    for row, names in zip(metrics_of(tmp_path / "out")["checkpoints"], (set(), *expected[side]), strict=True):
        assert row["not_measured"] == dict.fromkeys(names, why)
        for name in (*distances, "update_cosine"):
            measured = row["role"] == "sft" and name not in names and (name, row["name"]) != ("update_cosine", "sft1")
            assert (row["numbers"][name]["value"] is not None) == measured, (row["name"], name)
        assert all(f"{row['name']}: {name} was not measured: {why}" in shown for name in names)


def test_an_output_that_is_there_stays(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("mine")
    assert run(options(inputs, tmp_path / "out", "--sft", f"{inputs}/sft1")) == 2
    assert "--output: expected a new or empty directory" in capsys.readouterr().err
    assert (tmp_path / "out" / "metrics.json").read_text() == "mine"


def test_a_small_vocabulary_of_the_base(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # What only the grown checkpoint can read, its base cannot be measured on.
    pd.DataFrame([{"prompt": "a", "response": "b"}]).to_parquet(tmp_path / "data.parquet")
    grown = copy(inputs / "sft1", tmp_path / "grown")
    base = copy(inputs / "base", tmp_path / "short")
    edit_json(base / "config.json", vocab_size=100)
    tensors = weights(base)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:100].clone()
    set_weights(base, tensors)
    arguments = ["diagnose", "--base", str(base), "--sft", str(grown), "--calibration", f"{tmp_path}/data.parquet"]
    arguments += ["--output", str(tmp_path / "out")]
    assert run(arguments) == 2
    assert "--base: expected rows for all tokens of the data" in capsys.readouterr().err
    reset = ["--grown-vocabulary", "keep", "--reset-ratio", "0.01", "--positions", "1", "--dry-run"]
    assert run(["apply", *arguments[1:], *reset]) == 2
    assert "--base: expected rows for all tokens of the data" in capsys.readouterr().err
