# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The FrozenLake recipe: its games against gymnasium itself, splits, tokens against verl's, the plain loop."""

import json
import random
import sys
from dataclasses import replace
from itertools import combinations, islice, pairwise, product
from pathlib import Path

import gymnasium
import pytest
import torch
from gymnasium.envs.toy_text.frozen_lake import MAPS, generate_random_map

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
sys.path[:0] = [str(RECIPES / name) for name in ("quickstart", "reset_study", "agentic_frozenlake")]

import lake_summary  # noqa: E402
import lake_task  # noqa: E402
import plain  # noqa: E402
from grpo import policy_loss  # noqa: E402
from lake_game import MOVES, Game, best_moves, opening, view  # noqa: E402
from lake_settings import LakeSettings  # noqa: E402
from make_models import build_model  # noqa: E402
from nav_tokenizer import build_tokenizer  # noqa: E402

SETTINGS = LakeSettings()
KNOWN = "/".join(MAPS["4x4"])


def gymnasium_alone(lake: str, turns: int) -> gymnasium.Env:
    """The environment as its documentation makes it."""
    env = gymnasium.make("FrozenLake-v1", desc=lake.split("/"), is_slippery=False, max_episode_steps=turns)
    env.reset(seed=1)
    return env


@pytest.mark.parametrize("seed", range(20))
def test_a_game_is_gymnasium(seed: int) -> None:
    lake, rng = "/".join(generate_random_map(4, 0.7, seed)), random.Random(seed)
    for _ in range(20):
        game, env, total = Game(lake, 8), gymnasium_alone(lake, 8), 0.0
        assert game.shown == opening(lake)
        while not game.over:
            move = rng.choice("ddrrul")
            state, reward, terminated, truncated, _ = env.step(
                {"l": 0, "d": 1, "r": 2, "u": 3}[move],
            )
            game.answer(move)
            total += reward
            assert game.over == (terminated or truncated)
            assert game.reward == total
            assert game.shown == view(lake, state)
    assert game.turns <= 8


def test_what_is_shown_by_hand() -> None:
    # SFFF    from row 1, column 2: holes left and right.
    # FHFH
    # FFFH
    # HFFG
    assert view(KNOWN, 6) == "12HdHu"
    assert view(KNOWN, 0) == "00#dr#"
    assert view(KNOWN, 14) == "32l#Gu"
    assert view(KNOWN, 4) == "10#dHu"
    assert opening(KNOWN) == "SFFF\nFHFH\nFFFH\nHFFG\n00#dr#"


def test_goal_hole_time_limit_and_nonsense() -> None:
    for answers, reward in (("ddrdrr", 1.0), ("dr", 0.0), ("llllllll", 0.0)):
        game = Game(KNOWN, 8)
        for move in answers:
            assert not game.over
            game.answer(move)
        assert (game.over, game.reward, game.turns) == (True, reward, len(answers))
    for nonsense in ("", "x", "dd", "D", " d"):
        game = Game(KNOWN, 8)
        game.answer(nonsense)
        assert (game.over, game.reward) == (True, 0.0), nonsense


def test_best_moves_are_on_a_shortest_way() -> None:
    def shortest(lake: str, state: int) -> int:
        """By trying all ways, with gymnasium's table."""
        table, reached, count = gymnasium_alone(lake, 1).unwrapped.P, {state}, 0
        while 15 not in reached:
            reached = {table[s][a][0][1] for s, a in product(reached, range(4)) if lake.replace("/", "")[s] != "H"}
            count += 1
        return count

    for seed in range(5):
        lake = "/".join(generate_random_map(4, 0.7, seed))
        env = gymnasium_alone(lake, 1)
        for state, moves in enumerate(best_moves(lake)):
            for move in moves:
                assert shortest(lake, env.unwrapped.P[state][MOVES.index(move)][0][1]) == shortest(lake, state) - 1
        assert best_moves(lake)[0]
        assert best_moves(lake)[15] == ""


def test_splits_are_disjoint_and_held_out_lakes_have_more_holes() -> None:
    splits = lake_task.split_lakes(SETTINGS)
    for one, other in combinations(splits.values(), 2):
        assert set(one).isdisjoint(other)
    assert min(lake.count("H") for lake in splits["eval_out"]) > max(
        lake.count("H") for name in ("rl", "sft", "eval_in") for lake in splits[name]
    )
    prompts = lake_task.rl_lakes(SETTINGS, 0)
    assert len(set(prompts)) == SETTINGS.train_prompts
    assert prompts != lake_task.rl_lakes(SETTINGS, 1)


def test_the_base_never_sees_a_held_out_lake() -> None:
    pool, lengths = set(lake_task.split_lakes(SETTINGS)["rl"]), set()
    for turns in islice(lake_task.base_games(SETTINGS, 0), 200):
        lake = turns[0][0].rpartition("\n")[0].replace("\n", "/")
        assert lake in pool
        lengths.add(len(turns))
        for (shown, move), (following, _) in pairwise(turns):
            env = gymnasium_alone(lake, 1)
            env.unwrapped.s = 4 * int(shown[-6]) + int(shown[-5])
            assert following == view(lake, env.step("ldru".index(move))[0])
    assert max(lengths) > 4


def test_demonstrations_reach_the_goal() -> None:
    for seed in range(3):
        games = lake_task.demonstrations(SETTINGS, seed)
        assert len(games) == SETTINGS.sft_games
        for turns in games:
            lake = turns[0][0].rpartition("\n")[0].replace("\n", "/")
            game = Game(lake, SETTINGS.turns)
            for shown, move in turns:
                assert game.shown == shown
                game.answer(move)
            assert game.reward == 1.0


def test_tokens_are_those_of_verl() -> None:
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    tokenizer = build_tokenizer()
    builder = create_continuous_token_builder(tokenizer, hf_model_type="qwen2")
    turns = lake_task.demonstrations(SETTINGS, 0)[0]
    messages, mask = [{"role": "user", "content": turns[0][0]}], []
    prompt = ids = builder.build_initial_tokens(messages)
    for number, (_, move) in enumerate(turns):
        merged = builder.merge_assistant_tokens(ids, [*tokenizer.encode(move), tokenizer.eos_token_id])
        ids, (mask, _) = merged.token_ids, builder.align_response_metadata(merged, mask)
        if number + 1 < len(turns):
            earlier = [*messages, {"role": "assistant", "content": move}]
            messages = [*earlier, {"role": "user", "content": turns[number + 1][0]}]
            merged = builder.merge_context_tokens(earlier, messages, ids)
            ids, (mask, _) = merged.token_ids, builder.align_response_metadata(merged, mask)
    found = lake_task.transcribe(tokenizer, turns)
    assert (found.prompt, found.prompt + found.answer, found.said) == (prompt, ids, mask)
    longest = lake_task.transcribe(tokenizer, [turns[0], *[turns[1]] * (SETTINGS.turns - 1)])
    # The defaults of run_frozenlake_fsdp2.sh leave room.
    assert len(longest.prompt) <= 40
    assert len(longest.answer) <= 128


def test_the_plain_loop_plays_learns_the_moves_alone_and_repeats() -> None:
    tokenizer, settings = build_tokenizer(), replace(SETTINGS, eval_in=4, eval_out=4)
    torch.manual_seed(0)
    model = build_model(settings, tokenizer)
    # It says nothing but moves, which no training of a second's length would give: several turns are played.
    with torch.no_grad():
        episodes = _played(model, tokenizer, settings)
    assert max(e.game.turns for e in episodes) > 2
    for episode in episodes:
        assert len(episode.answer) == len(episode.said)
        spoken = [t for t, own in zip(episode.answer, episode.said, strict=True) if own]
        moves = tokenizer.decode(spoken).split("<|im_end|>")[:-1]
        replayed = Game(episode.game.lake, settings.turns)
        for move in moves:
            replayed.answer(move)
        assert (replayed.reward, replayed.over, replayed.turns) == (episode.game.reward, True, episode.game.turns)
    prompt, answers = torch.tensor([e.prompt for e in episodes]), [e.answer for e in episodes]
    said, weight = [e.said for e in episodes], torch.arange(1.0, len(episodes) + 1)
    loss, by_hand, count = policy_loss(model, prompt, answers, weight, said).item(), 0.0, 0
    for episode, advantage in zip(episodes, weight.tolist(), strict=True):
        ids = torch.tensor([episode.prompt + episode.answer])
        log_p = model(ids).logits[0].log_softmax(-1)
        for at, own in enumerate(episode.said):
            if own:
                by_hand -= advantage * log_p[len(episode.prompt) + at - 1, episode.answer[at]].item()
                count += 1
    assert loss == pytest.approx(by_hand / count, rel=1e-4)


def _played(model, tokenizer, settings):
    """Episodes of a model whose tokens are moves and ends in turn: its logits are shifted, its own draws decide."""
    moves, end = [tokenizer.encode(move)[0] for move in MOVES], tokenizer.eos_token_id
    plain_forward, calls = model.forward, [0]

    def forward(*args, **kwargs):
        output = plain_forward(*args, **kwargs)
        allowed = moves if calls[0] % 2 == 0 else [end]
        calls[0] += 1
        shift = torch.full_like(output.logits, -1e4)
        shift[..., allowed] = 0
        output.logits = output.logits + shift
        return output

    model.forward = forward
    torch.manual_seed(0)
    episodes, entropy = plain.rollout(
        model, tokenizer, list(lake_task.split_lakes(settings)["rl"][:4]), 4, settings.turns
    )
    model.forward = plain_forward
    assert 0 < entropy < 1.4
    return episodes


def finished(directory: Path, arm: str, seed: int, after: float) -> None:
    """What an arm leaves: two held-out lakes, two episodes on each."""
    (directory / "validation").mkdir(parents=True)
    settings = {"ALPHA": "0.5", "SEED": str(seed)}
    run = {"arm": arm, "exit_code": 0, "seconds": 61.0, "settings": settings}
    (directory / "run.json").write_text(json.dumps(run))
    lines = [{"step": step, "data": {"actor/entropy": 0.4 - 0.1 * step}} for step in range(3)]
    for step, success in ((0, 0.25), (2, after)):
        lines[step]["data"] |= {"val-core/lake_in/acc/mean@2": success, "val-core/lake_out/acc/mean@2": 0.0}
        lines[step]["data"]["val-aux/num_turns/mean"] = 8.0 + step
        few, many = KNOWN, "SFHF/HFFH/HFFF/HHFG"
        dump = [
            {"uid": f"u-{lake}_{sample}_0", "gts": lake, "score": score}
            for lake, scores in ((few, (0.0, float(step > 0))), (many, (0.0, 0.0)))
            for sample, score in enumerate(scores)
        ]
        (directory / "validation" / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dump))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_table_and_the_paired_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for seed, gap in ((2, 0.2), (3, 0.4)):
        finished(tmp_path / str(seed) / "over", "over", seed, 0.5)
        finished(tmp_path / str(seed) / "rejuvenated", "rejuvenated", seed, 0.5 + gap)
    runs = [str(tmp_path / seed) for seed in "23"]
    monkeypatch.setattr(sys, "argv", ["lake_summary.py", *runs, "--output", str(tmp_path / "out")])
    lake_summary.main()
    text = (tmp_path / "out" / "result.md").read_text()
    assert text in capsys.readouterr().out
    row = "| 3 | rejuvenated (alpha 0.5) then RL | 0.250 → 0.900 | +0.650 | 0.000 → 0.000 | +0.000 | 4.0 → 5.0 |"
    assert f"{row} 0.300 → 0.200 | 0.000 → 1.000 | 61 |" in text
    assert "Success after RL, in distribution, rejuvenated - over-trained: +0.300 [-0.971, +1.571], higher in 2" in text
    assert len(json.loads((tmp_path / "out" / "result.json").read_text())) == 4
