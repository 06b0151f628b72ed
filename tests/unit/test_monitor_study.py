# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The study of the alarms: its runs, what is kept of them, and the tables made of that."""

import json
import sys
from pathlib import Path

import pytest
import torch

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
sys.path[:0] = [str(RECIPES / name) for name in ("quickstart", "reset_study", "sft_ladder", "monitor_study")]

import alarm_picture  # noqa: E402
import alarm_tables  # noqa: E402
import collect  # noqa: E402
import monitored  # noqa: E402
import study  # noqa: E402
from arms import ARMS  # noqa: E402
from grpo import RL  # noqa: E402
from make_models import build_model, save  # noqa: E402
from nav_tokenizer import build_tokenizer  # noqa: E402
from settings import Settings, models_dir  # noqa: E402

KEPT = RECIPES / "monitor_study" / "results"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models of a seed, two monitored runs of two steps, and their rows."""
    root, tokenizer = tmp_path_factory.mktemp("alarms"), build_tokenizer()
    for i, name in enumerate(("base", "sft4", "sft64")):
        torch.manual_seed(i)
        save(build_model(Settings(), tokenizer), tokenizer, models_dir(root, 3, Settings()) / name)
    # What a killed run left.
    (root / "runs" / "seed3-over").mkdir(parents=True)
    (root / "runs" / "seed3-over" / "plasticity.jsonl").write_text('{"step": 7, "metrics": {}}\n')
    with pytest.MonkeyPatch.context() as patch:
        runs = ["--models", str(root), "--runs", str(root / "runs"), "--steps", "2"]
        patch.setattr(sys, "argv", ["monitored.py", "--seeds", "3", "--arms", "over", "fusion", *runs])
        monitored.main()
        patch.setattr(sys, "argv", ["collect.py", str(root / "runs"), "--to", str(root / "rows")])
        collect.main()
    return root


def test_a_row_is_what_the_monitors_wrote(out: Path) -> None:
    rows = {row["arm"]: row for row in study.read_rows(out / "rows" / "seed3.jsonl")}
    assert set(rows) == {"over", "fusion"}
    for name, row in rows.items():
        written = (out / "runs" / f"seed3-{name}" / "plasticity.jsonl").read_text().splitlines()
        steps = [json.loads(line) for line in written]
        assert row["steps"] == [step["step"] for step in steps] == [1, 2]
        assert set(collect.SIGNALS) <= set(row["metrics"])
        for metric, values in row["metrics"].items():
            assert values == pytest.approx([step["metrics"][metric] for step in steps], rel=1e-5), metric
    assert rows["over"]["weights"] == rows["fusion"]["weights"] == study.bits_of(models_dir(out, 3, Settings()))
    # Half of the way to the base.
    over, fused = (rows[name]["metrics"]["actor/plasticity/drift_base"][0] for name in ("over", "fusion"))
    assert 0.3 * over < fused < 0.7 * over


def test_monitors_do_not_change_the_study(out: Path) -> None:
    (row,) = (row for row in study.read_rows(out / "rows" / "seed3.jsonl") if row["arm"] == "fusion")
    without = study.run_arm("fusion", ARMS["fusion"], 3, models_dir(out, 3, Settings()), RL(steps=2))
    for when in ("before", "after"):
        for where, level in row[when].items():
            assert level["pass_at_1"] == pytest.approx(without[when][where]["pass_at_1"], rel=1e-5)
    assert without["curve"] == pytest.approx(row["metrics"]["training/plasticity/pass_rate"], rel=1e-5)


def row(arm: str, seed: int, wasted: float, end: float) -> dict:
    """A run of 20 steps; ``wasted``: share of groups without an advantage; ``end``: its accuracy after RL."""
    metrics = {name: [0.3] * 20 for name in collect.KEPT} | {alarm_picture.SIGNAL: [wasted] * 20}
    ends = {"before": {"nav_in": {"pass_at_1": 0.2}}, "after": {"nav_in": {"pass_at_1": end}}}
    return {"arm": arm, "seed": seed, "weights": "abc", **ends, "steps": list(range(1, 21)), "metrics": metrics}


def test_tables_of_made_up_runs(tmp_path: Path) -> None:
    rows = [row("sft4", 2, 0.1, 0.9), row("sft64", 2, 0.8, 0.3), row("alpha_0.5", 2, 0.2, 0.8)]
    rows += [row("sft4", 3, 0.1, 0.7), row("sft64", 3, 0.8, 0.65), row("alpha_0.5", 3, 0.2, 0.4)]
    # Warned too late to count, and on one seed only.
    late = row("sft32", 2, 0.1, 0.5)
    late["metrics"][alarm_picture.SIGNAL] = [0.1] * 10 + [0.9] * 10
    for seed in (2, 3):
        lines = [json.dumps(each) for each in [*rows, late] if each["seed"] == seed]
        (tmp_path / f"seed{seed}.jsonl").write_text("\n".join(lines) + "\n")
    found = alarm_tables.tables(alarm_tables.read_runs(tmp_path))
    assert list(found) == ["Starts and alarms", "Alarms and ends", "Over-trained against rejuvenated"]
    starts = found["Starts and alarms"].splitlines()
    assert [line.split(" | ")[0] for line in starts[2:]] == [
        *("| SFT, 4 epochs", "| SFT, 32 epochs", "| SFT, 64 epochs", "| fusion, alpha 0.5"),
    ]
    assert starts[4].endswith("| 2 of 2 (step 7) | 2 of 2 |")
    assert starts[3].endswith("| 0 of 1, later 1 | 0 of 1 |")
    # Of the warned runs one ended within 0.15 of its seed's best start; of the others the fusion of seed 3 did not.
    ends = found["Alarms and ends"].splitlines()
    assert ends[2] == "| an alarm | 2 | 0.475 | 0.325 | 1 of 2 |"
    assert ends[3] == "| none | 4 | 0.700 | 0.100 | 3 of 4 |"
    assert (
        "| `zero_advantage_groups` | 0.8 | 0.2 | 0.6 [0.6, 0.6] | 1.00 |" in found["Over-trained against rejuvenated"]
    )
    alarm_picture.draw(alarm_tables.of_all_seeds(alarm_tables.read_runs(tmp_path)), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_four_starts_are_ranked(tmp_path: Path) -> None:
    ends = {"sft4": (0.1, 0.9), "sft16": (0.2, 0.8), "sft32": (0.3, 0.7), "sft64": (0.8, 0.2)}
    rows = [json.dumps(row(name, 2, *each)) for name, each in ends.items()]
    (tmp_path / "seed2.jsonl").write_text("\n".join(rows) + "\n")
    ranked = alarm_tables.tables(alarm_tables.read_runs(tmp_path))["What ranks the starts of a seed"]
    assert ranked.splitlines()[2] == "| `zero_advantage_groups` | -1.00 |"


def test_nothing_to_collect_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["collect.py", str(tmp_path), "--to", str(tmp_path / "rows")])
    with pytest.raises(SystemExit):
        collect.main()
    assert "expected runs of this study or of ../sft_ladder, got none" in capsys.readouterr().err
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize("name", ["plain", "under_verl"])
def test_the_tables_in_git_are_made_from_the_rows_in_git(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["alarm_tables.py", str(KEPT / name / "rows")])
    alarm_tables.main()
    text = capsys.readouterr().out
    assert text == (KEPT / name / "result.md").read_text()
    readme = (KEPT.parent / "README.md").read_text()
    for section in text.split("### ")[1:]:
        assert section.partition("\n")[2].strip() in readme, section.partition("\n")[0]


def test_rows_in_git_are_of_the_runs_of_the_other_studies() -> None:
    """The same starts, by the same RL: with and without monitors, and in both tables."""
    others = {"under_verl": "sft_ladder/results/under_verl/rows", "plain": "reset_study/results/rows"}
    for name, other in others.items():
        compared = 0
        for path in sorted((KEPT / name / "rows").glob("seed*.jsonl")):
            theirs = {each["arm"]: each for each in study.read_rows(RECIPES / other / path.name)}
            for ours in study.read_rows(path):
                same = theirs[ours["arm"]]
                assert ours["weights"] == same["weights"], (name, ours["arm"], ours["seed"])
                for when in ("before", "after"):
                    assert {w: level["pass_at_1"] for w, level in ours[when].items()} == {
                        w: level["pass_at_1"] for w, level in same[when].items()
                    }, (name, ours["arm"], ours["seed"])
                compared += 1
        assert compared >= 27
