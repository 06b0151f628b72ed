# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv tune`` on tiny models, from the command to tuning.json."""

import fcntl
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import architectures
import pytest
import tiny
import torch
from checkpoints import snapshot
from transformers import AutoModelForCausalLM

from rejuv_plugin.checkpoint import apply, locks, plan_fusion, progress
from rejuv_plugin.cli import main
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.probe.answers import sample_answers
from rejuv_plugin.probe.load import load_model, load_tokenizer
from rejuv_plugin.probe.prompts import Prompts
from rejuv_plugin.probe.tasks import draw_tasks
from rejuv_plugin.tune import with_vllm
from rejuv_plugin.tune.ask import fused_model

CPU = torch.device("cpu")
ARGUMENTS = (
    *("--base", "base", "--sft", "sft", "--prompts", "train.parquet", "--reward", "reward.py:compute_score"),
    *("--output", "out", "--max-response", "12", "--count", "16", "--group", "4", "--alphas", "0.3,0.5"),
)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.save_sft(tmp_path / "sft", tiny.save_base(tmp_path / "base"), scale=0.05)
    tiny.save_data(tmp_path, train=20)
    tiny.save_calibration(tmp_path / "data.jsonl")
    return tmp_path


def tune(*more: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["tune", *ARGUMENTS, *more])
    return caught.value.code or 0


def result(root: Path) -> dict:
    return json.loads((root / "out" / "tuning.json").read_text())


@pytest.mark.parametrize("variant", ["qwen2", "qwen2-tied", "gemma2", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_asked_has_the_bits_that_apply_writes(variant: str, dtype: torch.dtype, tmp_path: Path) -> None:
    for seed, side in enumerate(("base", "sft")):
        architectures.make(variant, seed).to(dtype).save_pretrained(tmp_path / side)
    for alpha in (0.3, 1.0):
        plan = plan_fusion(str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig(alpha=alpha))
        asked = fused_model(plan, CPU).state_dict()
        apply(plan, tmp_path / f"output{alpha}")
        written = AutoModelForCausalLM.from_pretrained(tmp_path / f"output{alpha}", dtype=torch.float32).state_dict()
        assert asked.keys() == written.keys()
        assert [name for name in written if not torch.equal(asked[name], written[name])] == []


def test_the_same_search_again_asks_nothing(own: Path, capsys: pytest.CaptureFixture) -> None:
    before = snapshot(own)
    assert tune() == 0
    shown = capsys.readouterr().out
    found = result(own)
    assert {path: digest for path, digest in snapshot(own).items() if path in before} == before
    assert f"alpha {found['choice']['alpha']:g}: best_of_4 " in shown
    assert (found["format"], found["what"]) == (1, "tuning")
    assert [row["alpha"] for row in found["trace"]] == [0.3, 0.5]
    assert all(row["group"] == 4 and not row["cached"] for row in found["trace"])
    assert found["prompts"] == {
        **{"files": ["train.parquet"], "count": 16, "group": 4, "temperature": 1.0, "max_response": 12},
        "reward": "reward.py:compute_score",
    }
    lines = (own / "out" / "trace.jsonl").read_text()

    assert tune() == 0
    again = result(own)
    assert (own / "out" / "trace.jsonl").read_text() == lines
    assert all(row["cached"] for row in again["trace"])
    assert again["choice"] == found["choice"]

    # More prompts go on where these ended; another reward does not.
    assert tune("--count", "20") == 0
    assert (own / "out" / "trace.jsonl").read_text().startswith(lines)
    assert {row["prompts"] for row in result(own)["trace"]} <= {5, 10, 16, 20}
    (own / "reward.py").write_text((own / "reward.py").read_text() + "\n# another\n")
    assert tune() == 0
    assert not any(row["cached"] for row in result(own)["trace"])


@pytest.mark.parametrize("change", ["reward", "prompts", "group", "checkpoint"])
def test_another_question_leaves_the_earlier_result(own: Path, capsys: pytest.CaptureFixture, change: str) -> None:
    assert tune() == 0
    out = own / "out"
    before = [(out / name).read_text() for name in ("tuning.json", "report.html")]
    more: tuple[str, ...] = ()
    if change == "reward":
        (own / "reward.py").write_text((own / "reward.py").read_text() + "\n# another\n")
    elif change == "prompts":
        shutil.copy(own / "val.parquet", own / "train.parquet")
        more = ("--count", "4")
    elif change == "group":
        more = ("--group", "5")
    else:
        # Trained on in place: the pair has the same names.
        tiny.save_sft(own / "sft", own / "base", seed=2, scale=0.05)
    capsys.readouterr()
    assert tune(*more) == 0
    assert "earlier results, of other prompts, rewards or settings: out/tuning.1.json" in capsys.readouterr().out
    assert [(out / name).read_text() for name in ("tuning.1.json", "report.1.html")] == before
    assert result(own)["question"] != json.loads(before[0])["question"]
    # Again, and with another search over the same answers, nothing is added; with a third question the second stays.
    second = (out / "tuning.json").read_text()
    assert tune(*more) == 0
    assert tune(*more, "--best-of", "2") == 0
    assert not (out / "tuning.2.json").exists()
    assert tune(*more, "--temperature", "0.9") == 0
    kept = [json.loads((out / f"tuning.{n}.json").read_text())["question"] for n in (1, 2)]
    assert kept == [json.loads(text)["question"] for text in (before[0], second)]
    assert [(out / name).read_text() for name in ("tuning.1.json", "report.1.html")] == before


def test_a_log_shows_sampling_and_scoring(
    own: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_WITHOUT_TERMINAL", 0.0)
    assert tune() == 0
    shown = capsys.readouterr().err
    for alpha in ("0.3", "0.5"):
        assert f"rejuv: alpha {alpha}: 64 of 64" in shown
        # All answers of the first prompts are scored before others are asked.
        assert f"rejuv: alpha {alpha}: scores: 1 of " in shown
        assert f"rejuv: alpha {alpha}: scores: 63 of 64" in shown


def test_a_killed_search_goes_on(own: Path) -> None:
    assert tune() == 0
    whole, trace = result(own), own / "out" / "trace.jsonl"
    lines = trace.read_text().splitlines(keepends=True)
    trace.write_text(lines[0] + lines[1][: len(lines[1]) // 2])
    (own / "out" / "tuning.json").unlink()
    assert tune() == 0
    assert result(own)["choice"] == whole["choice"]
    values = [[(row["alpha"], row["value"]) for row in found["trace"]] for found in (result(own), whole)]
    assert values[0] == values[1]


def test_a_line_that_another_search_is_writing_stays(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tune() == 0
    trace = own / "out" / "trace.jsonl"
    whole = trace.read_text()
    trace.write_text(whole[:-100])
    holder = os.open(own / "out" / ".trace.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    told: list[str] = []

    def end(message: str, *values: object) -> None:
        told.append(message % values)
        trace.write_text(whole)
        os.close(holder)

    monkeypatch.setattr(locks, "_FIRST_SECONDS", 0.02)
    monkeypatch.setattr(locks._log, "warning", end)
    assert tune() == 0
    assert told == ["waiting for another process to make out/tuning.json"]
    assert trace.read_text() == whole
    assert all(row["cached"] for row in result(own)["trace"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.html", "<html>mine</html>"),
        ("tuning.json", '{"mine": 1}'),
        pytest.param("tuning.json", "[" * 9999, id="nested"),
        ("trace.jsonl", "mine"),
        ("tuning.mine.json", "{}"),
    ],
)
def test_files_of_somebody_else_stay(own: Path, capsys: pytest.CaptureFixture, name: str, content: str) -> None:
    (own / "out").mkdir()
    (own / "out" / name).write_text(content)
    assert tune() == 2
    assert "expected a" in capsys.readouterr().err
    assert (own / "out" / name).read_text() == content


def test_another_pair_needs_another_directory(own: Path, capsys: pytest.CaptureFixture) -> None:
    assert tune() == 0
    before = snapshot(own / "out")
    shutil.copytree(own / "sft", own / "sft2")
    capsys.readouterr()
    assert tune("--sft", "sft2") == 2
    assert "--output: expected a search between these two checkpoints" in capsys.readouterr().err
    assert snapshot(own / "out") == before


def test_rows_without_a_ground_truth_are_refused(own: Path, capsys: pytest.CaptureFixture) -> None:
    (own / "bare.jsonl").write_text(json.dumps({"prompt": "1+1="}) + "\n")
    assert tune("--prompts", "bare.jsonl") == 2
    assert "--prompts: expected reward_model.ground_truth in each row" in capsys.readouterr().err
    row = {"prompt": "1+1=", "reward_model": {"ground_truth": None}}
    (own / "bare.jsonl").write_text(json.dumps(row | {"extra_info": "text"}) + "\n")
    assert tune("--prompts", "bare.jsonl") == 2
    assert "--prompts: expected extra_info with names" in capsys.readouterr().err
    assert not (own / "out").exists()


def test_the_scores_are_those_of_the_written_checkpoint(own: Path) -> None:
    """By hand: apply, load, sample, score."""
    assert tune() == 0
    apply(plan_fusion("base", "sft", FusionConfig(alpha=0.3)), own / "applied")
    from rejuv_plugin.checkpoint import read_checkpoint

    checkpoint = read_checkpoint("applied", "k")
    tasks = draw_tasks(checkpoint, Prompts(("train.parquet",), "prompt", None, 12, "k"), 16, 0)
    said = sample_answers(load_model(checkpoint, CPU), load_tokenizer(checkpoint), tasks, 4, 12, 1.0, seed=0)
    scores = [[sum(c.isdigit() for c in text) / max(1, len(text)) for text in group] for group in said.texts]
    row = next(row for row in result(own)["trace"] if row["alpha"] == 0.3)
    # best of 4 of 4
    best = [max(group) for group in scores[: row["prompts"]]]
    assert row["value"] == pytest.approx(sum(best) / len(best))


def test_rho_uses_one_measured_set_for_all_alphas(own: Path) -> None:
    assert tune("--rho", "0,0.05", "--calibration", "data.jsonl") == 0
    found = result(own)
    assert {(row["alpha"], row["rho"]) for row in found["trace"]} == {(0.3, 0), (0.3, 0.05), (0.5, 0), (0.5, 0.05)}
    assert len(list((own / "out").glob("reset-set-*.json"))) == 1
    by_rho = [{row["alpha"]: row["value"] for row in found["trace"] if row["rho"] == rho} for rho in (0, 0.05)]
    assert by_rho[0] != by_rho[1]
    assert tune("--rho", "0,0.05", "--calibration", "data.jsonl") == 0
    assert all(row["cached"] for row in result(own)["trace"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--reward", "reward.py:absent"), "--reward: expected a function absent"),
        (("--reward", "broken.py:f"), "--reward: expected a function that scores an answer, got ZeroDivisionError"),
        (("--reward", "gone.py:f"), "--reward: expected FILE.py:FUNCTION"),
        (("--prompts", "gone.parquet"), "--prompts: expected a .parquet or .jsonl file"),
        (("--column", "question"), "--prompts: expected "),
        (("--alphas", "0.8:0.2"), "--alphas: expected LOW:HIGH or numbers"),
        (("--rho", "0.01"), "--calibration: expected prompts and responses, with --rho"),
        (("--rho", "2", "--calibration", "data.jsonl"), "--rho: expected single numbers, all in [0, 1]"),
        (("--rho", "0.2:0.8", "--calibration", "data.jsonl"), "got '0.2:0.8'. Fix: use 0,0.01."),
        (("--best-of", "5"), "--best-of: expected no more than the answers to a prompt, got 5 of 4"),
        (("--temperature", "inf"), "--temperature: expected a number above 0"),
        (("--pass-score", "inf"), "--pass-score: expected a finite number"),
        (("--output", "train.parquet/out"), "--output: expected a directory that can be made"),
        (("--output", "base"), "--output: expected a new or empty directory"),
        (("--sampler", "vllm"), "--sampler: expected vllm in this environment"),
        (("--base", "sft"), "--base: expected the model that the SFT checkpoint started from"),
    ],
)
def test_bad_input_writes_nothing(
    own: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    # Some environments have it, as that of the tests does.
    monkeypatch.setattr(with_vllm, "installed", lambda: False)
    (own / "broken.py").write_text("def f(data_source, solution_str, ground_truth, extra_info):\n    return 1 / 0\n")
    before = snapshot(own)
    assert tune(*arguments) == 2
    assert says in capsys.readouterr().err
    assert snapshot(own) == before


def test_a_model_that_overflows_is_named(own: Path, capsys: pytest.CaptureFixture) -> None:
    for side in ("base", "sft"):
        model = AutoModelForCausalLM.from_pretrained(side)
        model.model.norm.weight.data[:] = 3e38
        model.model.embed_tokens.weight.data[:] *= 1e3
        model.save_pretrained(side)
    assert tune() == 2
    assert "alpha 0.3: expected finite logits" in capsys.readouterr().err


def test_a_plan_is_not_changed_by_what_is_asked(own: Path) -> None:
    plan = plan_fusion("base", "sft", FusionConfig(alpha=0.3))
    assert plan == replace(plan, fusion=replace(plan.fusion, alpha=0.3))
    fused_model(plan, CPU)
    assert plan == plan_fusion("base", "sft", FusionConfig(alpha=0.3))
