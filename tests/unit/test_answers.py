# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Answers to RL prompts: where they are drawn from, and on which luck."""

import json
import math
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from checkpoints import edit_json
from scipy.stats import chisquare

from rejuv_plugin.checkpoint import read_checkpoint
from rejuv_plugin.errors import InputError
from rejuv_plugin.ops.distribution import entropy
from rejuv_plugin.ops.sampling import inverse_cdf
from rejuv_plugin.probe import answers as module
from rejuv_plugin.probe.answers import Answers, sample_answers, uniforms
from rejuv_plugin.probe.load import load_model, load_tokenizer
from rejuv_plugin.probe.prompts import Prompts
from rejuv_plugin.probe.tasks import Task, draw_tasks

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("answers")
    tiny.save_sft(path / "sft", tiny.save_base(path / "base"), scale=0.05)
    tiny.save_data(path, train=20)
    return path


def loaded(path: Path) -> tuple[Any, Any]:
    checkpoint = read_checkpoint(str(path), "k")
    return load_model(checkpoint, CPU), load_tokenizer(checkpoint)


def tasks_of(root: Path, count: int, seed: int = 0) -> list[Task]:
    prompts = Prompts((str(root / "train.parquet"),), "prompt", None, 40, "k")
    return draw_tasks(read_checkpoint(str(root / "sft"), "k"), prompts, count, seed)


def test_tokens_are_drawn_by_their_probabilities() -> None:
    torch.manual_seed(0)
    log_p = torch.randn(30).double().log_softmax(-1)
    log_p[7] = -torch.inf
    count = 20_000
    drawn = inverse_cdf(log_p.expand(count, -1), torch.rand(count, dtype=torch.float64))
    seen = torch.bincount(drawn, minlength=30)
    assert seen[7] == 0
    rest = [i for i in range(30) if i != 7]
    expected = log_p.exp()[rest]
    assert chisquare(seen[rest].numpy(), (expected / expected.sum() * count).numpy()).pvalue > 1e-3


def test_the_first_tokens_follow_the_models_softmax(root: Path) -> None:
    model, tokenizer = loaded(root / "sft")
    (task,) = tasks_of(root, 1)
    group, temperature = 3000, 0.7
    said = sample_answers(model, tokenizer, [task], group, 1, temperature, seed=3)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([task.ids])).logits[0, -1, : len(tokenizer)].double()
    p = (logits / temperature).softmax(-1)
    seen = torch.bincount(torch.tensor([ids[0] for ids in said.ids[0]]), minlength=len(p)).double()
    # Tokens that are too rare to count by themselves are counted together.
    order = p.argsort()
    groups = (p[order].cumsum(0) * 40).long().clamp(max=39)
    binned = torch.zeros(40, dtype=torch.float64).index_add(0, groups, seen[order])
    expected = torch.zeros(40, dtype=torch.float64).index_add(0, groups, p[order]) * group
    there = expected > 0
    assert chisquare(binned[there].numpy(), expected[there].numpy()).pvalue > 1e-3
    assert said.entropy[0][0] == pytest.approx(entropy(logits / temperature).item(), rel=1e-5)
    assert said.top1[0][0] == pytest.approx(p.max().item(), rel=1e-5)


def test_luck_depends_on_seed_prompt_and_answer_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = loaded(root / "sft")
    tasks = tasks_of(root, 6)
    whole = sample_answers(model, tokenizer, tasks, 3, 20, 1.0, seed=5)
    # One answer a batch; the last prompts alone; fewer answers; fewer tokens.
    later = sample_answers(model, tokenizer, tasks[4:], 2, 12, 1.0, seed=5, first=4)
    assert later.ids == [[ids[:12] for ids in group[:2]] for group in whole.ids[4:]]
    monkeypatch.setattr(module, "_BATCH_TOKENS", 1)
    alone = sample_answers(model, tokenizer, tasks, 3, 20, 1.0, seed=5)
    assert (alone.ids, alone.texts, alone.finished) == (whole.ids, whole.texts, whole.finished)
    assert list(chain(*alone.entropy)) == pytest.approx(list(chain(*whole.entropy)), rel=1e-5)
    other = sample_answers(model, tokenizer, tasks, 3, 20, 1.0, seed=6)
    assert other.ids != whole.ids
    first = uniforms(5, 0, 0, 9)
    assert (uniforms(5, 0, 0, 4) == first[:4]).all()
    assert all(abs(first - uniforms(*which, 9)).max() > 1e-3 for which in ((6, 0, 0), (5, 1, 0), (5, 0, 1)))


def test_models_that_are_close_give_mostly_the_same_answers(root: Path, tmp_path: Path) -> None:
    """The point of common random numbers: what differs is what the models differ in."""
    tokens = []
    for name, scale in (("near", 1e-5), ("far", 0.05)):
        tiny.save_sft(tmp_path / name, root / "base", scale=scale)
        tokens.append(first_tokens(tmp_path / name, root))
    base = first_tokens(root / "base", root)
    shared = [sum(a == b for a, b in zip(base, other, strict=True)) / len(base) for other in tokens]
    assert shared[0] > 0.97
    # Even these share more than independent draws from 260 tokens would.
    assert 0.05 < shared[1] < shared[0]


def first_tokens(path: Path, root: Path) -> list[int]:
    said = sample_answers(*loaded(path), tasks_of(root, 20), 8, 1, 1.0, seed=1)
    return [ids[0] for group in said.ids for ids in group]


def test_what_an_answer_is(root: Path) -> None:
    model, tokenizer = loaded(root / "sft")
    calls = []
    said = sample_answers(
        model, tokenizer, tasks_of(root, 8), 4, 200, 1.0, seed=0, progress=lambda *call: calls.append(call)
    )
    assert calls[-1] == ("sample", 32, 32)
    assert len(said.ids) == 8
    flat = list(zip(*(chain(*column) for column in vars(said).values()), strict=True))
    assert len(flat) == 32
    assert {finished for _, _, finished, _, _ in flat} == {True, False}
    for text, ids, finished, mean_entropy, top1 in flat:
        assert (ids[-1] == tokenizer.eos_token_id) == finished
        assert tokenizer.eos_token_id not in ids[:-1]
        assert finished or len(ids) == 200
        assert text == tokenizer.decode(ids, skip_special_tokens=True)
        assert max(ids) < len(tokenizer)
        assert 0 < mean_entropy < math.log(len(tokenizer))
        assert 0 < top1 < 1


def test_nothing_of_the_checkpoints_generation_config_bends_the_distribution(root: Path, tmp_path: Path) -> None:
    plain = sample_answers(*loaded(root / "sft"), tasks_of(root, 3), 2, 30, 1.0, seed=0)
    tiny.save_sft(tmp_path / "sft", root / "base", scale=0.05)
    edit_json(
        tmp_path / "sft" / "generation_config.json",
        **{"repetition_penalty": 1.5, "min_p": 0.3, "top_k": 1, "temperature": 0.1, "do_sample": True, "max_length": 9},
    )
    model, tokenizer = loaded(tmp_path / "sft")
    own = model.generation_config
    assert own.top_k == 1
    assert sample_answers(model, tokenizer, tasks_of(root, 3), 2, 30, 1.0, seed=0) == plain
    assert model.generation_config is own
    assert isinstance(plain, Answers)


def test_every_end_of_the_generation_config_ends_an_answer(root: Path) -> None:
    model, tokenizer = loaded(root / "sft")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *tokenizer.encode("0123456789abcdef")]
    said = sample_answers(model, tokenizer, tasks_of(root, 8), 4, 100, 1.0, seed=0)
    ended = zip(chain(*said.ids), chain(*said.finished), strict=True)
    last = {ids[-1] for ids, finished in ended if finished}
    assert len(last) > 3
    assert last <= set(model.generation_config.eos_token_id)


def test_a_broken_model_says_so(root: Path) -> None:
    model, tokenizer = loaded(root / "sft")
    model.lm_head.weight.data[3] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        sample_answers(model, tokenizer, tasks_of(root, 1), 1, 5, 1.0, seed=0)


def test_the_same_tasks_whatever_the_weights(root: Path) -> None:
    prompts = Prompts((str(root / "train.parquet"),), "prompt", None, 40, "k")
    mine, theirs = (draw_tasks(read_checkpoint(str(root / name), "k"), prompts, 9, seed=2) for name in ("base", "sft"))
    assert mine == theirs
    assert mine[:4] == draw_tasks(read_checkpoint(str(root / "sft"), "k"), prompts, 4, seed=2)
    assert mine != tasks_of(root, 9, seed=3)
    task = mine[0]
    a, b = task.prompt[0]["content"].removesuffix("=").split("+")
    assert task.ground_truth == str(int(a) + int(b))
    assert task.data_source == "sums"
    assert set(task.extra_info or {}) == {"index"}


def test_prompts_that_are_too_long_are_passed_over(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [{"prompt": "1" * 600}, *({"prompt": f"{i}+{i}="} for i in range(3)), {"prompt": "2" * 40}]
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    checkpoint = read_checkpoint(str(root / "sft"), "--sft")
    for limit, expected in ((None, 4), (30, 3)):
        drawn = draw_tasks(checkpoint, Prompts((str(file),), "prompt", limit, 50, "k"), 9, 0)
        assert len(drawn) == expected
        assert all(len(task.ids) <= (limit or 462) for task in drawn)
        assert drawn[0].ground_truth is None
        assert f"k: {5 - expected} of 5 prompts that were drawn have more than" in capsys.readouterr().err
    assert len(draw_tasks(checkpoint, Prompts((str(file),), "prompt", 30, 50, "k"), 2, 0)) == 2
    with pytest.raises(InputError, match=r"^k: expected prompts of at most 3 tokens"):
        draw_tasks(checkpoint, Prompts((str(file),), "prompt", 3, 50, "k"), 2, 0)


def test_rows_of_an_agent_loop_are_not_judged_by_one_answer(root: Path, tmp_path: Path) -> None:
    file, checkpoint = tmp_path / "p.jsonl", read_checkpoint(str(root / "sft"), "--sft")
    prompts = Prompts((str(file),), "prompt", None, 50, "k")
    for agent in (None, "", "single_turn_agent", "tool_agent"):
        row = {"prompt": "1+1=", "reward_model": {"ground_truth": "2"}, "agent_name": agent}
        file.write_text(json.dumps(row) + "\n")
        if agent != "tool_agent":
            assert len(draw_tasks(checkpoint, prompts, 9, 0, judged=True)) == 1
    with pytest.raises(InputError, match=r"^k: expected rows that one answer ends.* got agent_name 'tool_agent'"):
        draw_tasks(checkpoint, prompts, 9, 0, judged=True)
    assert len(draw_tasks(checkpoint, prompts, 9, 0)) == 1


def test_the_context_of_a_multimodal_model_is_its_language_models(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"prompt": "1" * 600}) + "\n" + json.dumps({"prompt": "1+1="}) + "\n")
    checkpoint = read_checkpoint(str(root / "sft"), "k")
    context = checkpoint.config["max_position_embeddings"]
    nested = {name: value for name, value in checkpoint.config.items() if name != "max_position_embeddings"}
    nested["text_config"] = {"max_position_embeddings": context}
    (task,) = draw_tasks(replace(checkpoint, config=nested), Prompts((str(file),), "prompt", None, 50, "k"), 9, 0)
    assert len(task.ids) <= context - 50


def test_batches_are_bounded_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_TOKENS", 100)
    rows = [module._Row(0, 0, [0] * length) for length in (10, 20, 5, 5, 5)]
    assert [len(batch) for batch in module._batches(rows, 30)] == [2, 2, 1]
    assert [len(batch) for batch in module._batches(rows, 500)] == [1] * 5


def test_the_jobs_template_settings_are_used(tmp_path: Path) -> None:
    tiny.save_base(tmp_path / "sft")
    template = tmp_path / "sft" / "chat_template.jinja"
    template.write_text("{% if no_thinking %}N{% endif %}{{ messages[0]['content'] }}")
    checkpoint = read_checkpoint(str(tmp_path / "sft"), "--sft")
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "1"}\n')
    for extra, text in (({}, "1"), ({"no_thinking": True}, "N1")):
        prompts = Prompts((str(file),), "prompt", None, 50, "k", extra)
        (task,) = draw_tasks(checkpoint, prompts, 9, 0)
        assert load_tokenizer(checkpoint).decode(task.ids) == text
    template.write_text("{{ raise_exception('no such role') }}")
    with pytest.raises(InputError, match=r"^k: expected messages that the chat template takes, got a prompt \(Templ"):
        draw_tasks(checkpoint, prompts, 9, 0)
