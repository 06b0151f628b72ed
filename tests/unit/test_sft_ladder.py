# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The SFT ladder's recipe: its starts, and the analysis of what predicts the outcome of RL."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
sys.path[:0] = [str(RECIPES / name) for name in ("quickstart", "reset_study", "sft_ladder")]

import depths  # noqa: E402
import keep  # noqa: E402
import ladder  # noqa: E402
import outcome  # noqa: E402
import predict  # noqa: E402
from grpo import RL  # noqa: E402
from make_models import build_model, save  # noqa: E402
from nav_tokenizer import build_tokenizer  # noqa: E402
from study import load, rounded, setup_of  # noqa: E402

SEEDS = (2, 3, 4, 5)
RUNGS = [f"sft{epochs}" for epochs in depths.RUNGS]


def test_starts_by_name() -> None:
    assert list(depths.wanted(["ladder"])) == ["base", *RUNGS]
    assert depths.start_of("alpha_0.37").alpha == 0.37
    with pytest.raises(SystemExit, match=r"ARMS: expected ladder, .* got alpha_half"):
        depths.start_of("alpha_half")
    # The quickstart's own over-trained rung is among the ladder's.
    assert depths.OVER in RUNGS
    assert depths.MODERATE in RUNGS


def test_noise_has_the_norm_of_fusions_step(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    for seed, name in enumerate(("base", depths.OVER)):
        torch.manual_seed(seed)
        save(build_model(depths.SETTINGS, tokenizer), tokenizer, tmp_path / name)
    made = {}
    for name in ("noise", "alpha_0.5", "sft64"):
        path, found = ladder.make(depths.STARTS[name], tmp_path, 3, tmp_path / name)
        assert found is None
        made[name] = dict(load(path)[0].named_parameters())
    for name, over in made["sft64"].items():
        noisy, fused = ((made[start][name] - over).flatten() for start in ("noise", "alpha_0.5"))
        assert noisy.norm().item() == pytest.approx(fused.norm().item(), rel=1e-4)
        assert fused.norm() == 0 or abs(torch.cosine_similarity(noisy, fused, dim=0)) < 0.5


def test_what_is_kept_of_a_diagnosis() -> None:
    found = keep.kept(
        {"base": {"path": "/models/base"}, "checkpoints": [{"layers": {"a": [1.0]}, "numbers": {"n": 1}}]}
    )
    assert found == {"base": {"path": "base"}, "checkpoints": [{"numbers": {"n": 1}}]}
    assert rounded({"a": [1 / 3, {"b": 2}], "c": "x"}) == {"a": [0.333333, {"b": 2}], "c": "x"}


def test_rank_correlation() -> None:
    levels = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    assert predict.rank_correlation({"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}, levels) == pytest.approx(-1)
    # By hand: 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15).
    assert predict.rank_correlation({"a": 1.0, "b": 3.0, "c": 2.0, "d": 9.0}, levels) == pytest.approx(0.8)
    assert predict.rank_correlation(dict.fromkeys(levels, 1.0), levels) is None
    assert predict.rank_correlation({"a": 1.0, "b": 2.0, "c": 3.0}, levels) is None


def test_thresholds() -> None:
    values, good = [1.0, 2.0, 3.0, 4.0], [False, False, True, True]
    found = predict.choose_threshold(values, good, direction=1)
    assert found.at == 2.5
    assert [found.good(value) for value in values] == good
    down = predict.choose_threshold([-value for value in values], good, direction=-1)
    assert [down.good(-value) for value in values] == good
    assert predict.balanced_accuracy([True, True, True, False], [True, True, False, False]) == 0.75
    assert predict.balanced_accuracy([True], [True]) is None


def test_the_rung_that_a_signal_picks() -> None:
    levels = {"a": 0.1, "b": 0.2, "c": 0.4}
    assert predict.picked({"a": 1.0, "b": 3.0, "c": 2.0}, levels, 1) == 0.2
    assert predict.picked({"a": 1.0, "b": 2.0, "c": 1.0}, levels, -1) == pytest.approx(0.25)


def level_of(name: str) -> float:
    """After RL: highest at 8 epochs, then falling; of fusions highest at 0.4."""
    start = depths.start_of(name)
    if name in RUNGS:
        return 0.8 - 0.1 * abs(RUNGS.index(name) - 3)
    return 0.75 - abs(start.alpha - 0.4) if start.start == depths.OVER else 0.5


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Rows, diagnoses and tunings of four seeds; `entropy` knows the outcome, `noise` does not."""
    rng = random.Random(0)
    for part in ("rows", "diagnosis", "tuning"):
        (tmp_path / part).mkdir()
    for seed in SEEDS:
        rows = []
        for name in [*depths.STARTS, "alpha_0.45"]:
            accuracy = 0.1 + 0.05 * RUNGS.index(name) if name in RUNGS else 0.3
            ends = {"before": (accuracy, 0.2), "after": (level_of(name) + 0.01 * seed, 0.1)}
            row = {
                when: {"nav_in": dict(zip(("pass_at_1", "token_entropy"), of, strict=True))}
                for when, of in ends.items()
            }
            row = {when: of | {"nav_out": of["nav_in"]} for when, of in row.items()}
            setup = setup_of(depths.start_of(name), RL(), depths.SETTINGS)
            rows.append({"arm": name, "seed": seed, "setup": setup, "share_reset": 0.0, "rl_seconds": 20.0, **row})
        (tmp_path / "rows" / f"seed{seed}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        checkpoints = [
            {
                "name": name,
                "numbers": {
                    "entropy": {"value": level_of(name)},
                    "noise": {"value": rng.random()},
                    "absent": {"value": None},
                },
                "verdict": {"level": "ready" if level_of(name) > 0.55 else "over_trained"} if name != "base" else None,
            }
            for name in ("base", *RUNGS)
        ]
        catalogue = [{"name": "entropy", "better": "higher"}, {"name": "noise", "better": "none"}]
        (tmp_path / "diagnosis" / f"seed{seed}.json").write_text(
            json.dumps({"signals": catalogue, "checkpoints": checkpoints})
        )
        tuning = {"choice": {"alpha": 0.45}, "seconds": 12.3}
        (tmp_path / "tuning" / f"seed{seed}.json").write_text(json.dumps(tuning))
    return tmp_path


def test_tables_and_pictures(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    out = results / "out"
    monkeypatch.setattr(sys, "argv", ["outcome.py", str(results), "--output", str(out)])
    outcome.main()
    text = (out / "result.md").read_text()
    assert text in capsys.readouterr().out
    # Level 0.7 at 4 epochs, 0.5 at 64, 0.65 for fusion at 0.5: 0.15 of a gap of 0.2.
    assert "| fusion, alpha 0.5 | 75% [75%, 75%] | 75% [75%, 75%] |" in text
    assert "| fusion, alpha 0.5, against SFT, 64 epochs | 4 | +0.150 [+0.150, +0.150] | 4 of 4 |" in text
    assert (
        "| `entropy` | higher | +1.00 [+1.00, +1.00] (4) | +1.00 [+1.00, +1.00] | +1.34 [+1.34, +1.34] | 0.12 |" in text
    )
    assert "| accuracy before RL | higher | -0.34 [-0.34, -0.34] (4) |" in text
    assert "(fitted)" in next(line for line in text.splitlines() if line.startswith("| `noise`"))
    assert "absent" not in text
    # Five rungs of each held-out seed are above 0.55: at 0, 0.1, 0.1, 0.2 and 0.2 from the best.
    assert "| ready | 10 | 0.120 | 6 of 10 |" in text
    assert "| over_trained | 6 | 0.333 | 0 of 6 |" in text
    assert "| 4 | 0.45 | 0.740 | 0.4 | 0.790 | 0.690 |" in text
    assert "| the best of the grid | -0.050 [-0.050, -0.050] (2) | -0.050 [-0.050, -0.050] (4) |" in text
    assert "| 0.5 | +0.050 [+0.050, +0.050] (2) |" in text
    for name in ("sft_ladder.png", "predictors.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_two_setups_are_not_mixed(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = results / "rows" / "seed2.jsonl"
    path.write_text(path.read_text().replace('"setup": "', '"setup": "x', 1))
    monkeypatch.setattr(sys, "argv", ["outcome.py", str(results), "--output", str(results / "out")])
    with pytest.raises(SystemExit, match="rows of base: expected one setup, got two"):
        outcome.main()


def test_two_sets_of_models_are_not_mixed(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = results / "rows" / "seed3.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"weights": "abc"}), *rest]) + "\n")
    monkeypatch.setattr(sys, "argv", ["outcome.py", str(results), "--output", str(results / "out")])
    with pytest.raises(SystemExit, match="rows of seed 3: expected one set of models, got two"):
        outcome.main()


def made_again(kept: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tables of kept rows, which must be the kept tables."""
    monkeypatch.setattr(sys, "argv", ["outcome.py", str(kept), "--output", str(to)])
    outcome.main()
    assert (to / "result.md").read_text() == (kept / "result.md").read_text()
    return (to / "result.md").read_text()


def test_the_tables_in_git_are_made_from_the_rows_in_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = RECIPES / "sft_ladder" / "results"
    readme = (kept.parent / "README.md").read_text()
    verdicts = made_again(kept, tmp_path / "plain", monkeypatch).split("### Verdicts on the held-out seeds")[1]
    assert verdicts.split("###")[0].strip() in readme
    under_verl = made_again(kept / "under_verl", tmp_path / "verl", monkeypatch)
    controls = made_again(kept / "under_verl_controls", tmp_path / "controls", monkeypatch)
    shown = [(under_verl, title) for title in ("Paired differences", "Share of the gap", "Verdicts", "The tuned alpha")]
    for text, title in [*shown, (controls, "Paired differences")]:
        assert text.split(f"### {title}")[1].split("###")[0].partition("\n")[2].strip() in readme


def test_studies_without_verl_need_nothing_of_its() -> None:
    """They install the extra `report` alone."""
    blocked = "import sys; sys.modules |= dict.fromkeys(('verl', 'ray', 'tensordict', 'psutil', 'uvicorn'))"
    folders = [str(RECIPES / name) for name in ("sft_ladder", "reset_study", "quickstart", "monitor_study")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])}
    code = f"{blocked}; import ladder, keep, outcome, study, monitored"
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
