# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The study of the reset: its GRPO, its arms made by the plugin, its statistics."""

import json
import sys
from pathlib import Path

import pytest
import torch

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
sys.path[:0] = [str(RECIPES / "quickstart"), str(RECIPES / "reset_study")]

import analyse  # noqa: E402
import arms  # noqa: E402
import study  # noqa: E402
from grpo import RL, advantages, policy_loss, train  # noqa: E402
from make_models import build_model, save  # noqa: E402
from nav_tokenizer import build_tokenizer  # noqa: E402
from settings import Settings, models_dir  # noqa: E402


def test_advantages_within_a_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    found = advantages(rewards)
    assert found[0].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)
    assert found[1].tolist() == [0.0] * 4


def test_the_loss_by_hand() -> None:
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = build_model(Settings(), tokenizer).eval()
    prompt, answers, advantage = torch.tensor([[40, 41], [42, 43]]), [[50, 51, 52], [53]], torch.tensor([2.0, -1.0])
    total = 0.0
    for row, ids, weight in zip(prompt.tolist(), answers, advantage.tolist(), strict=True):
        log_p = model(torch.tensor([row + ids])).logits[0].log_softmax(-1)
        total += weight * sum(log_p[len(row) - 1 + i, token].item() for i, token in enumerate(ids))
    assert policy_loss(model, prompt, answers, advantage).item() == pytest.approx(-total / 4, rel=1e-5)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models of two seeds where the study looks for trained ones."""
    root, tokenizer = tmp_path_factory.mktemp("study"), build_tokenizer()
    torch.manual_seed(0)
    for name in ("base", "sft4", "sft64"):
        save(build_model(Settings(), tokenizer), tokenizer, models_dir(root, 3, Settings()) / name)
    return root


def test_a_run_changes_the_model_and_repeats(out: Path) -> None:
    rl, curves, weights = RL(steps=2, prompts=2, group=2, max_response=4), [], []
    for _ in range(2):
        model, tokenizer = study.load(models_dir(out, 3, Settings()) / "base")
        curves.append(train(model, tokenizer, Settings(), rl, seed=3))
        weights.append({name: p.detach().clone() for name, p in model.named_parameters()})
    assert len(curves[0]) == 2
    assert curves[0] == curves[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("name", ["over", "fusion", "fusion_random", "reset", "sampled", "each", "moderate"])
def test_every_start_is_what_its_arm_says(out: Path, tmp_path: Path, name: str) -> None:
    arm, models = arms.ARMS[name], models_dir(out, 3, Settings())
    if name == "sampled":
        # Untrained models say bytes that are no text; `test_sample.py` is about real answers.
        with pytest.MonkeyPatch.context() as patch:
            pairs = [{"prompt": "14:57", "response": "ud"}] * arm.examples
            patch.setattr(study, "sample_pairs", lambda *a: pairs)
            path, found = study.make_start(arm, models, 3, tmp_path)
    else:
        path, found = study.make_start(arm, models, 3, tmp_path)
    if name in ("over", "moderate"):
        assert path == models / arm.start
        assert found is None
        return
    manifest = json.loads((path / "rejuvenation.json").read_text())
    assert manifest["settings"]["fusion"]["alpha"] == arm.alpha
    assert (found is not None) == ("reset" in manifest) == bool(arm.reset)
    if found:
        assert {k: v for k, v in found.settings.items() if k in arm.reset} == arm.reset


def test_rows_of_other_models_are_not_added_to(tmp_path: Path) -> None:
    """As where an output moves to another machine, on which the models were made once more."""
    models, rows, runs = tmp_path / "models", tmp_path / "rows.jsonl", []

    def run(name: str, arm: arms.Arm, seed: int, *args: object) -> study.Row:
        runs.append(name)
        level = {source: {"pass_at_1": 0.5} for source in ("nav_in", "nav_out")}
        setup = study.setup_of(arm, RL())
        return {"arm": name, "seed": seed, "setup": setup, "share_reset": 0.0, "seconds": 1.0} | dict.fromkeys(
            ("before", "after"), level
        )

    def go_on(*names: str, seed: int = 3) -> None:
        study.run_missing({name: arms.ARMS[name] for name in names}, seed, models, rows, RL(), run=run)

    (models / "base").mkdir(parents=True)
    (models / "base" / "model.safetensors").write_bytes(b"one machine's")
    go_on("over")
    go_on("over", "fusion")
    assert runs == ["over", "fusion"]
    (models / "base" / "model.safetensors").write_bytes(b"another's")
    with pytest.raises(SystemExit, match=r"rows.jsonl: expected rows of the models in .*, got some of others"):
        go_on("reset")
    go_on("reset", seed=4)
    assert runs == ["over", "fusion", "reset"]
    assert len({row["weights"] for row in study.read_rows(rows)}) == 2


def test_paired_statistics() -> None:
    ours, theirs = {1: 0.5, 2: 0.7, 3: 0.6, 9: 0.0}, {1: 0.4, 2: 0.5, 3: 0.5, 8: 1.0}
    found = analyse.paired(ours, theirs)
    assert found.difference.n == found.positive == 3
    assert found.difference.mean == pytest.approx(0.4 / 3)
    # Of the 8 sign patterns two are as extreme as three pluses.
    assert found.p == pytest.approx(0.25)
    half = 4.302653 * (0.1 / 3**0.5) / 3**0.5
    assert found.difference.high - found.difference.mean == pytest.approx(half, rel=1e-5)
    assert analyse.paired({1: 1.0, 2: 0.0}, {1: 0.0, 2: 1.0}).p == 1.0


def test_tables_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    rows = []
    for seed in (2, 3):
        for i, name in enumerate(("over", "fusion", "fusion_reset", "each")):
            level = {"pass_at_1": 0.1 * i + 0.01 * seed, "token_entropy": 0.2}
            after = {"pass_at_1": 0.2 * i + 0.01 * seed}
            ends = {when: {"nav_in": of, "nav_out": of} for when, of in (("before", level), ("after", after))}
            setup = study.setup_of(arms.ARMS[name], RL())
            rows.append({"arm": name, "seed": seed, "setup": setup, "share_reset": 0.1 * i, **ends})
            # A short run made to try things out.
            rows.append(rows[-1] | {"setup": study.setup_of(arms.ARMS[name], RL(steps=5)), "share_reset": 9.0})
    (tmp_path / "seed2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"arm": "ov')
    monkeypatch.setattr(sys, "argv", ["analyse.py", str(tmp_path), "--output", str(tmp_path / "out")])
    analyse.main()
    text = (tmp_path / "out" / "result.md").read_text()
    shown = capsys.readouterr().out
    assert text in shown
    assert "8 rows of other settings left out" in shown
    assert "900.0%" not in text
    assert (tmp_path / "seed2.jsonl").read_text().endswith("}\n"), "what a killed run left of a row is gone"
    assert "| fusion + reset, against fusion | 2 | +0.200 [+0.200, +0.200] | 2 of 2 | 0.50 |" in text
    assert "| gradient of each kept logit alone, against fusion | 2 | +0.400 " in text
    assert (tmp_path / "out" / "reset_study.png").read_bytes().startswith(b"\x89PNG")


def test_the_tables_in_git_are_made_from_the_rows_in_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = RECIPES / "reset_study" / "results"
    monkeypatch.setattr(sys, "argv", ["analyse.py", str(kept / "rows"), "--output", str(tmp_path)])
    analyse.main()
    text = (tmp_path / "result.md").read_text()
    assert text == (kept / "result.md").read_text()
    readme = (kept.parent / "README.md").read_text()
    for part in text.split("### "):
        assert part.partition("\n")[2].strip() in readme, part.partition("\n")[0]
