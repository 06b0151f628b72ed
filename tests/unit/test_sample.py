# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration data sampled from the SFT checkpoint, for those who have none."""

import json
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from checkpoints import edit_json, set_weights, snapshot, weights

from rejuv_plugin.checkpoint import plan_fusion
from rejuv_plugin.cli import main
from rejuv_plugin.config import FusionConfig, ResetConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.probe.cache import found_once
from rejuv_plugin.probe.calibration import read_dialogues, read_prompts
from rejuv_plugin.probe.prompts import Prompts


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    tiny.save_sft(tmp_path / "sft", tiny.save_base(tmp_path / "base"), scale=0.05)
    tiny.save_data(tmp_path, train=20)
    return tmp_path


def calibrate(*arguments: str, output: str = "pairs.jsonl") -> int:
    with pytest.raises(SystemExit) as caught:
        main(["calibrate", "--sft", "sft", "--prompts", "train.parquet", "--output", output, *arguments])
    return caught.value.code or 0


def test_answers_to_prompts_of_the_training_set(own: Path, capsys: pytest.CaptureFixture) -> None:
    random = torch.random.get_rng_state()
    assert calibrate("--examples", "12", "--max-response", "400") == 0
    assert torch.equal(torch.random.get_rng_state(), random), "sampling must not disturb the caller's random numbers"
    pairs = [json.loads(line) for line in (own / "pairs.jsonl").read_text().splitlines()]
    out, err = capsys.readouterr()
    assert out == f"{len(pairs)} finished answers of the 12 that were asked for: pairs.jsonl\n"
    assert ("answers are missing" in err) == (len(pairs) < 6)
    prompts = [list(map(dict, p)) for p in pd.read_parquet(own / "train.parquet")["prompt"]]
    assert 0 < len(pairs) <= 12
    assert all(pair["prompt"] in prompts and pair["response"].strip() for pair in pairs)
    assert len({json.dumps(pair["prompt"]) for pair in pairs}) == len(pairs)
    assert all("<|im_end|>" not in pair["response"] for pair in pairs)
    assert [d[-1]["content"] for d in read_dialogues("pairs.jsonl", "k")] == [pair["response"] for pair in pairs]

    assert calibrate("--examples", "12", "--max-response", "400", output="again.jsonl") == 0
    assert (own / "again.jsonl").read_bytes() == (own / "pairs.jsonl").read_bytes()
    assert calibrate("--examples", "12", "--max-response", "400", "--seed", "1", output="other.jsonl") == 0
    assert (own / "other.jsonl").read_bytes() != (own / "pairs.jsonl").read_bytes()


def test_an_answer_that_was_cut_off_is_left_out(own: Path, capsys: pytest.CaptureFixture) -> None:
    before = snapshot(own)
    # No random model ends after a single token of text: end and text are two.
    assert calibrate("--max-response", "1") == 2
    assert "no finished answer of at most 1 tokens" in capsys.readouterr().err
    assert snapshot(own) == before


def test_a_model_that_overflows_is_named(own: Path, capsys: pytest.CaptureFixture) -> None:
    tensors = weights(own / "sft")
    tensors["model.norm.weight"][:] = torch.nan
    set_weights(own / "sft", tensors)
    before = snapshot(own)
    assert calibrate("--max-response", "9") == 2
    assert "--sft: expected finite logits while answering the prompts" in capsys.readouterr().err
    assert snapshot(own) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--prompts", "gone.parquet"), "--prompts: expected a .parquet or .jsonl file"),
        (("--column", "question"), "--prompts: expected "),
        (("--device", "tpu"), "--device: expected auto or cpu or cuda"),
        (
            ("--max-response", "600"),
            "--prompts: expected room for a prompt and max_response in the 512 positions of --sft, got max_response 60",
        ),
    ],
)
def test_bad_input(own: Path, capsys: pytest.CaptureFixture, arguments: tuple[str, ...], says: str) -> None:
    before = snapshot(own)
    assert calibrate(*arguments) == 2
    assert says in capsys.readouterr().err
    assert snapshot(own) == before
    edit_json(own / "sft" / "tokenizer_config.json", chat_template=None)
    (own / "sft" / "chat_template.jinja").unlink()
    assert calibrate() == 2
    assert "--sft: expected a tokenizer with a chat template" in capsys.readouterr().err


def test_prompts_as_text_or_messages(own: Path) -> None:
    Path("p.jsonl").write_text('{"q": "1+1="}\n{"q": [{"role": "user", "content": "2", "name": null}]}\n')
    assert [prompt for prompt, _ in read_prompts("p.jsonl", "q", "k")] == [
        [{"role": "user", "content": "1+1="}],
        [{"role": "user", "content": "2"}],
    ]
    for bad in ('{"q": 3}', '{"q": []}', '{"q": [{"role": "user", "content": [{"type": "image"}]}]}', "[]"):
        Path("p.jsonl").write_text(bad + "\n")
        with pytest.raises(InputError, match=r"^k: "):
            read_prompts("p.jsonl", "q", "k")


def test_a_job_without_calibration_data_samples_once(own: Path) -> None:
    plan = plan_fusion("base", "sft", FusionConfig())
    prompts = Prompts(("train.parquet",), "prompt", None, 400, "data.train_files")
    settings = ResetConfig(ratio=0.05, examples=6, positions=2)
    first = found_once(plan, settings, "cache", prompts)
    (file,) = (own / "cache").glob("calibration-*.jsonl")
    assert first.settings.calibration == str(file)
    assert 0 < first.chosen.statistics["examples"] <= 6
    written = file.stat().st_mtime_ns
    assert found_once(plan, settings, "cache", prompts) == first
    assert file.stat().st_mtime_ns == written
    by_hand = ResetConfig(ratio=0.05, positions=2, calibration=str(file))
    assert found_once(plan, by_hand, "cache").chosen == first.chosen
    assert found_once(plan, ResetConfig(ratio=0.05, examples=7, positions=2), "cache", prompts) != first


def test_of_rl_data_only_what_is_needed_is_read(own: Path) -> None:
    """Beside the prompts there may be gigabytes of images."""
    tiny.save_data(own, train=2, image="bytes", question="?")
    ((_, row), _) = read_prompts("train.parquet", "prompt", "k")
    assert row.keys() == {"prompt", "data_source", "reward_model", "extra_info"}
    with pytest.raises(InputError, match=r"^k: expected a column text, got data_source, .*image, question in row 0"):
        read_prompts("train.parquet", "text", "k")
