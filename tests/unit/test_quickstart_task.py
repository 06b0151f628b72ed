# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The quickstart's task: splits, reward, demonstrations, tokenizer, data files."""

import hashlib
import json
import random
import sys
from dataclasses import FrozenInstanceError, replace
from itertools import combinations, islice
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart"
sys.path.insert(0, str(RECIPE))

import nav_task  # noqa: E402
from nav_tokenizer import END, build_tokenizer, chat_ids  # noqa: E402
from reward import compute_score, is_solution  # noqa: E402
from settings import Settings  # noqa: E402

SETTINGS = Settings()

STABLE_UNIT = 0.5051730844397377
SPLITS = "0b0e49cbc4b4c815"


def test_splits_are_disjoint_and_complete():
    splits = nav_task.split_problems(SETTINGS)
    parts = {name: set(splits[name]) for name in ("eval_in", "eval_out", "sft", "rl")}
    for one, other in combinations(parts.values(), 2):
        assert one.isdisjoint(other)
    in_range = parts["eval_in"] | parts["sft"] | parts["rl"]
    assert {nav_task.distance(problem) for problem in in_range} == set(range(SETTINGS.in_min, SETTINGS.in_max + 1))
    assert len(in_range) == len(splits["eval_in"]) + len(splits["sft"]) + len(splits["rl"])
    assert min(map(nav_task.distance, parts["eval_out"])) > SETTINGS.in_max


def test_nothing_that_trains_sees_an_evaluation_problem_or_a_long_distance():
    held_out = {problem for problems in nav_task.eval_problems(SETTINGS).values() for problem in problems}
    assert len(held_out) == SETTINGS.eval_in + SETTINGS.eval_out
    for seed in range(3):
        trained = {problem for problem, _ in nav_task.demonstrations(SETTINGS, seed)}
        prompts = nav_task.rl_prompts(SETTINGS, seed)
        assert len(set(prompts)) == len(prompts) == SETTINGS.train_prompts
        assert trained.isdisjoint(prompts)
        for prompt, _ in islice(nav_task.base_texts(SETTINGS, seed), 20_000):
            body = prompt.strip("?!x=")
            if len(body) == 5 and body[2] == ":":
                trained.add(body)
        trained.update(prompts)
        assert trained.isdisjoint(held_out)
        assert max(map(nav_task.distance, trained)) <= SETTINGS.in_max


def test_the_split_of_a_problem_never_changes():
    # A change here makes every cached model and every published number incomparable.
    splits = nav_task.split_problems(SETTINGS)
    text = "\n".join(f"{name} {problem}" for name in sorted(splits) for problem in splits[name])
    assert nav_task.stable_unit("14:57") == pytest.approx(STABLE_UNIT, abs=1e-15)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == SPLITS


def test_every_style_but_the_sloppy_one_earns_the_reward():
    rng = random.Random(0)
    for problem in rng.sample(nav_task.split_problems(SETTINGS)["base"], 500):
        for style in nav_task.STYLES:
            answer = nav_task.write_route(problem, style, rng)
            if style != "sloppy":
                assert is_solution(answer, problem), (problem, style, answer)


def test_demonstrations_earn_the_reward_and_fit():
    for seed in range(5):
        for problem, answer in nav_task.demonstrations(SETTINGS, seed):
            assert compute_score("nav_in", answer, problem) == {"score": 1.0, "acc": 1.0}
            assert len(answer) == nav_task.distance(problem) < 16


@pytest.mark.parametrize(
    ("answers", "score"),
    [
        (("rrrruuu", "uuurrrr", "uduuurrrr", " rrrruuu\n"), 1.0),
        (("", "rrrruu", "rrrruuu!", "4 right, 3 up", "RRRRUUU"), 0.0),
    ],
)
def test_reward(answers, score):
    for answer in answers:
        assert compute_score("nav_out", answer, "14:57", extra_info={"index": 3}, anything=1)["score"] == score, answer


def test_reward_names_an_unknown_data_source():
    with pytest.raises(ValueError) as error:
        compute_score("gsm8k", "rr", "14:57")
    assert "gsm8k" in str(error.value)


def test_reward_loads_by_path_without_the_recipe_on_the_path(tmp_path):
    # verl loads it with importlib in a Ray worker: no sibling import may work there.
    import subprocess

    code = (
        f"import importlib.util as u; s = u.spec_from_file_location('custom', {str(RECIPE / 'reward.py')!r});"
        "m = u.module_from_spec(s); s.loader.exec_module(m); print(m.compute_score('nav_in', 'r', '00:10')['acc'])"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert result.stdout.strip() == "1.0"


def test_tokenizer_survives_saving(tmp_path):
    from transformers import AutoTokenizer, Qwen2Config

    built = build_tokenizer()
    built.save_pretrained(tmp_path)
    Qwen2Config(vocab_size=len(built)).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded).__name__ == "Qwen2Tokenizer"
    for tokenizer in (built, loaded):
        assert len(tokenizer) == 263
        assert len(tokenizer.encode("\n")) == 1
        assert tokenizer.eos_token == END
        assert tokenizer.encode(END) == [tokenizer.eos_token_id]
        assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
        text = "14:57 rruu\nünïcode ✓"
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert chat_ids(loaded, "14:57") == chat_ids(built, "14:57")
    assert loaded.decode(chat_ids(loaded, "14:57")) == "<|im_start|>user\n14:57<|im_end|>\n<|im_start|>assistant\n"


def test_data_files_are_deterministic(tmp_path):
    import pandas as pd
    from make_data import make_data

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_data(SETTINGS, seed, tmp_path / name)
    content = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    for name in ("train", "val_in", "val_out"):
        assert content[f"a/{name}.parquet"] == content[f"b/{name}.parquet"]
        same_for_another_seed = content[f"a/{name}.parquet"] == content[f"c/{name}.parquet"]
        assert same_for_another_seed == (name != "train")
    row = pd.read_parquet(tmp_path / "a" / "val_out.parquet").iloc[0]
    assert row["data_source"] == "nav_out"
    assert row["prompt"][0]["content"] == row["reward_model"]["ground_truth"]
    assert row["extra_info"]["index"] == 0


def test_the_probe_set_is_right_and_nobody_trains_on_it(tmp_path):
    from make_data import make_data

    make_data(SETTINGS, 0, tmp_path)
    pairs = [json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines()]
    assert [pair["prompt"] for pair in pairs] == nav_task.eval_problems(SETTINGS)["nav_in"]
    assert all(is_solution(pair["response"], pair["prompt"]) for pair in pairs)


def test_settings_are_frozen_and_part_of_the_cache_key():
    with pytest.raises(FrozenInstanceError):
        SETTINGS.sft_lr = 1.0  # type: ignore[misc]
    assert replace(SETTINGS, sft_lr=2e-3).fingerprint() != SETTINGS.fingerprint() == Settings().fingerprint()


def test_tiny_models_are_made_deterministically_and_load(tmp_path):
    import torch
    from make_models import make_models
    from transformers import AutoModelForCausalLM, AutoTokenizer

    small = replace(SETTINGS, base_steps=10, base_batch=8, sft_problems=16, sft_ladder=(1, 2), threads=1)
    threads = torch.get_num_threads()
    try:
        for name in ("a", "b"):
            make_models(small, 0, tmp_path / name)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    weights = {name: (tmp_path / "a" / name / "model.safetensors").read_bytes() for name in ("base", "sft1", "sft2")}
    assert len(set(weights.values())) == 3
    for name, content in weights.items():
        assert (tmp_path / "b" / name / "model.safetensors").read_bytes() == content
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "a" / name)
        assert model.config.model_type == "qwen2"
        assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "a" / name))
        assert next(model.parameters()).dtype == torch.float32
    assert not list(tmp_path.glob("*.partial"))
