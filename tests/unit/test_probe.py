# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""From two checkpoints and calibration data to the reset set, and the console command that does it all."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from architectures import make, shapes_of
from checkpoints import edit_json, set_weights, snapshot, weights
from transformers import AutoModelForCausalLM

from rejuv_plugin.checkpoint import plan_fusion, read_inputs, reset_file
from rejuv_plugin.checkpoint.layout import read_checkpoint
from rejuv_plugin.checkpoint.provenance import content_key
from rejuv_plugin.cli import main
from rejuv_plugin.config import FusionConfig, ResetConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.neurons.architectures import STANDARD
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.neurons.reset_set import ResetSet
from rejuv_plugin.ops.distribution import entropy
from rejuv_plugin.probe import attribute as attribute_module
from rejuv_plugin.probe import cache, entropy_scan, passes
from rejuv_plugin.probe import measure as probe_measure
from rejuv_plugin.probe.attribute import attribute
from rejuv_plugin.probe.capture import trace
from rejuv_plugin.probe.dialogue import Example
from rejuv_plugin.probe.entropy_scan import largest_gaps
from rejuv_plugin.probe.load import load_model
from rejuv_plugin.probe.measure import measure
from rejuv_plugin.probe.passes import scan

ROWS = [{"prompt": f"{a}+{b}=", "response": f"{a + b}, I think"} for a in range(2) for b in range(3)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pair")
    base = tiny.save_base(root / "base", dtype=torch.float32)
    tiny.save_sft(root / "sft", base, scale=0.05)
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return root


@pytest.fixture
def own(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to write in and break."""
    shutil.copytree(pair, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measured(root: Path, **settings) -> ResetSet:
    plan = plan_fusion(str(root / "base"), str(root / "sft"), FusionConfig())
    values = {"ratio": 0.05, "positions": 2, "calibration": str(root / "data.jsonl")} | settings
    return measure(plan, ResetConfig(**values), read_inputs(plan), "--")


def test_entropy() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(entropy(p.log()), torch.tensor([1.5, 2.0, 0.0]) * torch.tensor(2.0).log())
    assert entropy(torch.tensor([1.0, float("nan")])).isnan()
    assert entropy(torch.tensor([1.0, float("inf")])).isnan()


def test_the_scan_is_the_models_own_entropy_however_it_is_cut(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(pair / "sft").eval()
    ids = torch.arange(40, 60)
    logits = model(ids[None]).logits[0].double()
    expected = torch.distributions.Categorical(logits=logits).entropy()
    example = Example(tuple(ids.tolist()), (3, 4, 19))
    (whole,) = scan(model, [example], "--sft")
    torch.testing.assert_close(whole.double(), expected[[2, 3, 18]], rtol=1e-5, atol=1e-6)
    widths = []
    monkeypatch.setattr(entropy_scan, "LOGITS", 2 * logits.shape[1])
    monkeypatch.setattr(entropy_scan, "entropy", lambda x: widths.append(len(x)) or entropy(x))
    (cut,) = scan(model, [example], "--sft")
    torch.testing.assert_close(cut, whole)
    assert widths == [2, 1]


def test_the_largest_gaps() -> None:
    base, sft = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.5, 0.5, 3.0, 1.0])
    assert largest_gaps(base, sft, 2) == [0, 2]
    assert largest_gaps(base, sft, 3) == [0, 1, 2]
    assert largest_gaps(base, sft, 9) == [0, 1, 2, 3]


def test_a_set_is_the_union_of_what_the_parts_say(pair: Path) -> None:
    """Once more by hand, from transformers' own models and sorted lists."""
    found = measured(pair)
    tokenizer = tiny.tokenizer()
    base, sft = (
        AutoModelForCausalLM.from_pretrained(pair / side).eval().requires_grad_(False) for side in ("base", "sft")
    )
    shapes = {name: tuple(p.shape) for name, p in sft.named_parameters()}
    modules = modules_of(sft.config.to_dict(), shapes, "--sft")
    expected: dict[str, set[int]] = {m.name: set() for m in modules}
    for row in ROWS:
        prompt = f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        before, after = (tokenizer(t)["input_ids"] for t in (prompt, f"{prompt}{row['response']}<|im_end|>\n"))
        targets = range(len(before), len(after) - 1)
        gaps = {}
        for model, sign in ((base, 1), (sft, -1)):
            log_p = torch.log_softmax(model(torch.tensor([after])).logits[0], -1)
            for t in targets:
                gaps[t] = gaps.get(t, 0.0) - sign * float((log_p[t - 1].exp() * log_p[t - 1]).sum())
        kept = sorted(sorted(targets, key=lambda t: -abs(gaps[t]))[:2])
        scores = attribute(sft, STANDARD, modules, trace(sft, STANDARD, torch.tensor(after)), kept).scores
        for m in modules:
            count = -(-m.count * 5 // 100)
            for position in scores[m.name]:
                expected[m.name] |= set(position.abs().argsort(descending=True)[:count].tolist())
    assert {name: set(c.indices) for name, c in found.modules.items()} == expected


def test_what_a_set_tells_about_itself(pair: Path) -> None:
    found = measured(pair)
    said = found.statistics
    assert said["examples"] == len(ROWS)
    assert said["positions"] == 2 * len(ROWS)
    assert said["response_tokens"] == sum(len(row["response"]) + 1 for row in ROWS)
    assert 0 < said["reconstruction_error"]["relative"] < 1e-5
    assert 0 <= said["cuts"]["close"] <= said["cuts"]["in_all"] == said["positions"] * len(found.modules)
    assert said["reconstruction_error"]["mean_absolute"] <= said["reconstruction_error"]["max_absolute"]
    assert 0 < said["entropy"]["sft"]["mean"] < 10
    assert said["entropy"]["base"] != said["entropy"]["sft"]
    assert set(said["jaccard_of_halves"]) == set(found.modules)
    assert all(0 < share <= 1 for share in said["jaccard_of_halves"].values())
    assert found.settings["positions"] == 2
    assert measured(pair, cap=0.5).statistics["cuts"] is None, "votes decide, and not each position"
    assert set(found.inputs) == {"base", "base_config", "sft", "calibration"}
    assert measured(pair).modules == found.modules


def test_settings_change_the_set_as_they_say(pair: Path) -> None:
    top = measured(pair)
    sizes = {name: len(c.indices) for name, c in top.modules.items()}
    for which in ("bottom", "random"):
        control = measured(pair, select=which)
        assert {name: len(c.indices) for name, c in control.modules.items()} == sizes
        assert control.digest != top.digest
    only = measured(pair, include="*.k_proj *.v_proj", exclude="*.layers.0.*")
    assert set(only.modules) == {f"model.layers.1.self_attn.{p}_proj" for p in "kv"}
    assert all(only.modules[name] == top.modules[name] for name in only.modules)
    aggregate = measured(pair, rule="aggregate")
    assert all(len(c.indices) == -(-c.count * 5 // 100) for c in aggregate.modules.values())
    assert measured(pair, ranking="signed").digest != top.digest
    assert all(len(c.indices) == c.count for c in measured(pair, ratio=1.0).modules.values())


@pytest.mark.parametrize("variant", ["qwen3-moe", "mixtral"])
def test_experts_that_no_kept_token_is_routed_to_are_never_touched(pair: Path, tmp_path: Path, variant: str) -> None:
    tokenizer = tiny.tokenizer()
    for side, seed in (("base", 0), ("sft", 1)):
        make(variant, seed, vocab_size=len(tokenizer)).save_pretrained(tmp_path / side)
        tokenizer.save_pretrained(tmp_path / side)
    # One kept token, which two experts of a layer see.
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "1", "response": "2"}))
    found = measured(tmp_path, ratio=1.0, positions=1)
    shares: dict[str, set[float]] = {}
    for name, chosen in found.modules.items():
        if ".layers.0." in name and ".experts." in name:
            expert = name.split(".experts.")[1].split(".")[0]
            shares.setdefault(expert, set()).add(len(chosen.indices) / chosen.count)
    assert sorted(shares.values(), key=max) == [{0.0}] * (len(shares) - 2) + [{1.0}] * 2
    assert not any("gate.weight" in name or name.endswith("mlp.gate") for name in found.modules)
    assert found.statistics["reconstruction_error"]["relative"] < 1e-5


def test_a_cap_on_attention_logits_is_kept(tmp_path: Path) -> None:
    make("gemma2", attn_logit_softcapping=0.1).save_pretrained(tmp_path)
    own = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    torch.testing.assert_close(
        load_model(read_checkpoint(str(tmp_path), "--sft"), torch.device("cpu"))(ids).logits, own(ids).logits
    )


def test_scores_that_are_not_finite_are_refused(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_nan("sft")(own)
    monkeypatch.setattr(passes, "entropies", lambda model, hidden, key, number: torch.zeros(len(hidden)))
    with pytest.raises(InputError, match=r"^--sft: .*NaN or infinity in example 0"):
        measured(own)


# The console command


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return caught.value.code or 0


def rejuv(*arguments: str, output: str = "out") -> int:
    return command("apply", "--base", "base", "--sft", "sft", "--output", output, *arguments)


RESET = ("--reset-ratio", "0.05", "--calibration", "data.jsonl", "--positions", "2")


def test_a_set_that_was_measured_outlives_a_disk_that_is_full_later(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise InputError("--output", "room", "a full disk", "free some")

    with monkeypatch.context() as patched:
        patched.setattr("rejuv_plugin.checkpoint.apply", full)
        assert rejuv(*RESET, "--save-reset-set", "s.json") == 2
    assert "a full disk" in capsys.readouterr().err
    assert rejuv("--reset-set", "s.json") == 0
    assert reset_file.load("s.json", "--reset-set").digest == measured(own).digest


def test_apply_resets_saves_and_reuses_the_set(own: Path, capsys: pytest.CaptureFixture) -> None:
    assert rejuv(*RESET, "--save-reset-set", "sets/s.json") == 0
    out, err = capsys.readouterr()
    assert err == "", "progress belongs on terminals only"
    manifest = json.loads((own / "out" / "rejuvenation.json").read_text())
    assert f"{manifest['reset']['neurons']:,} neurons" in out
    assert manifest["reset"]["selection"]["reconstruction_error"]["relative"] < 1e-5
    saved = reset_file.load("sets/s.json", "--reset-set")
    assert saved.digest == measured(own).digest == manifest["reset"]["set"]

    assert rejuv("--reset-set", "sets/s.json", output="again") == 0
    first, again = weights(own / "out"), weights(own / "again")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert rejuv("--reset-set", "sets/s.json", "--alpha", "0.4", output="other") == 0
    assert rejuv(output="fused") == 0
    base, other, fused = (weights(own / name) for name in ("base", "other", "fused"))
    name = "model.layers.0.mlp.down_proj"
    columns = list(saved.modules[name].indices)
    rest = [i for i in range(64) if i not in columns]
    assert columns
    assert rest
    assert torch.equal(other[f"{name}.weight"][:, columns], base[f"{name}.weight"][:, columns])
    assert torch.equal(first[f"{name}.weight"][:, rest], fused[f"{name}.weight"][:, rest])
    assert not torch.equal(first[f"{name}.weight"], fused[f"{name}.weight"])


def test_sets_are_shown_and_compared(own: Path, capsys: pytest.CaptureFixture) -> None:
    for name, ratio in (("small.json", 0.05), ("large.json", 0.2)):
        reset_file.save(measured(own, ratio=ratio), Path(name))
    assert command("reset-set", "small.json") == 0
    shown = capsys.readouterr().out
    small = json.loads(Path("small.json").read_text())
    assert f"{sum(len(m['indices']) for m in small['modules'].values()):,} neurons" in shown
    for said in ("model.layers.1", "down_proj", "token entropy (nats): base ", "Jaccard of the sets", "peak memory"):
        assert said in shown
    assert command("reset-set", "small.json", "--json") == 0
    share = json.loads(capsys.readouterr().out)["shares"]["model.layers.1"]["down_proj"]
    assert share == len(small["modules"]["model.layers.1.mlp.down_proj"]["indices"]) / 64
    small["statistics"]["jaccard_of_halves"] = {"a": 0.1, "b": 0.4, "c": 0.8, "d": 0.9}
    Path("again.json").write_text(json.dumps(small))
    assert command("reset-set", "again.json") == 0
    assert "median 0.60, lowest 0.10" in capsys.readouterr().out
    assert command("reset-set", "small.json", "large.json") == 0
    compared = capsys.readouterr().out.splitlines()
    assert len(compared) == 14
    assert all("0 only in small.json" in line and line.startswith("Jaccard 0.") for line in compared)
    assert command("reset-set", "gone.json") == 2
    assert capsys.readouterr().err.startswith("rejuv: FILE: expected a readable reset set")


def test_ratio_0_is_fusion_and_ratio_1_the_base(own: Path) -> None:
    assert rejuv("--reset-ratio", "0", output="zero") == 0
    assert rejuv(output="fused") == 0
    assert (own / "zero" / "model.safetensors").read_bytes() == (own / "fused" / "model.safetensors").read_bytes()
    assert rejuv("--reset-ratio", "1", "--calibration", "data.jsonl", output="one") == 0
    base, fused, one = (weights(own / name) for name in ("base", "fused", "one"))
    for name in one:
        assert torch.equal(one[name], (base if "_proj." in name else fused)[name]), name


def test_a_dry_run_checks_and_writes_nothing(own: Path, capsys: pytest.CaptureFixture) -> None:
    before = snapshot(own)
    assert rejuv(*RESET, "--device", "cuda", "--dry-run") == 2
    assert rejuv(*RESET, "--positions", "1000", "--dry-run") == 2
    capsys.readouterr()
    assert rejuv(*RESET, "--save-reset-set", "s.json", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["reset"] == "neurons to be measured, ratio 0.05, omega 1.0"
    assert rejuv("--reset-ratio", "0.05", "--calibration", "gone.jsonl", "--dry-run") == 2
    assert snapshot(own) == before


BAD = [
    (("--reset-ratio", "1.5"), "--reset-ratio", "[0, 1]"),
    (("--reset-ratio", "-0.1"), "--reset-ratio", "[0, 1]"),
    (("--reset-ratio", "nan"), "--reset-ratio", "[0, 1]"),
    (("--omega", "2"), "--omega", "[0, 1]"),
    (("--positions", "0"), "--positions", "above 0"),
    (("--omega", "0.5"), "--omega", "1.0, without a reset"),
    (("--density", "0.5"), "--density", "0.2, with method linear"),
    (("--rule", "mean"), "--rule", "union or aggregate"),
    (("--select", "worst"), "--select", "top or bottom or random"),
    (("--ranking", "both"), "--ranking", "absolute or signed"),
    (("--reset-ratio", "0.01"), "--calibration", "rejuv calibrate"),
    (("--calibration", "data.jsonl"), "--reset-ratio", "above 0"),
    ((*RESET, "--cap", "1.1"), "--cap", "[0, 1]"),
    ((*RESET, "--max-tokens", "0"), "--max-tokens", "above 0"),
    ((*RESET, "--gradient", "both"), "--gradient", "sum or each"),
    ((*RESET, "--device", "tpu"), "--device", "auto or cpu or cuda"),
    ((*RESET, "--device", "cuda"), "--device", "a GPU that torch can use"),
    ((*RESET, "--reset-set", "s.json"), "--reset-set", "drop one"),
    (("--reset-set", "gone.json"), "--reset-set", "No such file"),
    (("--save-reset-set", "s.json"), "--save-reset-set", "above 0"),
    ((*RESET, "--save-reset-set", "data.jsonl"), "--save-reset-set", "does not exist"),
    ((*RESET, "--save-reset-set", "out/set.json"), "--save-reset-set", "outside of --output"),
    ((*RESET, "--include", "*.w_proj"), "--include", "fit none"),
    ((*RESET, "--positions", "1000"), "--calibration", "at least 1000 response tokens"),
]


@pytest.mark.parametrize(("arguments", "key", "says"), BAD)
def test_bad_settings(own: Path, capsys: pytest.CaptureFixture, arguments: tuple, key: str, says: str) -> None:
    before = snapshot(own)
    assert rejuv(*arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"rejuv: {key}: expected ")
    assert says in err
    assert err.count("\n") == 1
    assert out == ""
    assert snapshot(own) == before


def no_template(root: Path) -> None:
    (root / "sft" / "chat_template.jinja").unlink()


def short_context(root: Path) -> None:
    for side in ("base", "sft"):
        edit_json(root / side / "config.json", max_position_embeddings=16)


def with_nan(side: str):
    def spoil(root: Path) -> None:
        tensors = weights(root / side)
        tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
        set_weights(root / side, tensors)

    return spoil


def another_architecture(root: Path) -> None:
    for side in ("base", "sft"):
        edit_json(root / side / "config.json", model_type="olmo9")


def no_data(root: Path) -> None:
    (root / "data.jsonl").write_text("")


def damaged_tokenizer(root: Path) -> None:
    (root / "sft" / "tokenizer.json").write_text("{}")


def unknown_to_transformers(root: Path) -> None:
    for side in ("base", "sft"):
        edit_json(root / side / "config.json", hidden_act="of our own")


@pytest.mark.parametrize(
    ("spoil", "key", "says"),
    [
        (no_data, "--calibration", "no rows"),
        (no_template, "--sft", "a chat template"),
        (short_context, "--calibration", "at most 16 tokens"),
        (with_nan("sft"), "--sft", "NaN or infinity in example 0"),
        (with_nan("base"), "--base", "NaN or infinity in example 0"),
        (another_architecture, "--sft", 'ARCHITECTURES["olmo9"]'),
        (damaged_tokenizer, "--sft", "a tokenizer that transformers loads"),
        (unknown_to_transformers, "--base", "a causal language model that transformers loads"),
    ],
)
def test_bad_inputs(own: Path, capsys: pytest.CaptureFixture, spoil, key: str, says: str) -> None:
    spoil(own)
    before = snapshot(own)
    assert rejuv(*RESET) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith(f"rejuv: {key}: expected ")
    assert says in err
    assert snapshot(own) == before


def test_a_residual_stream_that_is_not_as_the_map_says(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rejuv_plugin.neurons.architectures import ARCHITECTURES, GEMMA

    monkeypatch.setitem(ARCHITECTURES, "qwen2", GEMMA)
    with pytest.raises(InputError, match=r"^--sft: .*a reconstruction error of "):
        measured(own)


def test_a_set_is_measured_once(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_fusion("base", "sft", FusionConfig())
    settings = ResetConfig(ratio=0.05, positions=2, calibration="data.jsonl")
    once = lambda plan, settings: cache.found_once(plan, settings, "cache").chosen  # noqa: E731
    first = once(plan, settings)
    calls: list[float] = []
    monkeypatch.setattr(cache, "measure", lambda *a: calls.append(a[1].ratio) or measure(*a))
    assert once(plan, settings) == first
    # How far the neurons are reset, and which fusion they are reset in, are not the set's business.
    other = ResetConfig(ratio=0.05, positions=2, calibration="data.jsonl", omega=0.5)
    assert once(plan_fusion("base", "sft", FusionConfig(0.4)), other) == first
    assert calls == []
    assert once(plan, ResetConfig(ratio=0.1, positions=2, calibration="data.jsonl")) != first
    with (own / "data.jsonl").open("a") as file:
        file.write(json.dumps(ROWS[0]) + "\n")
    once(plan, settings)
    assert calls == [0.1, 0.05]
    # The fusion is the same, but the base says something else when it is run.
    key = content_key(plan, read_inputs(plan))
    edit_json(own / "base" / "config.json", rms_norm_eps=0.5)
    plan = plan_fusion("base", "sft", FusionConfig())
    corrected = once(plan, settings)
    assert calls == [0.1, 0.05, 0.05]
    assert corrected.statistics["entropy"]["base"] != first.statistics["entropy"]["base"]
    assert content_key(plan, read_inputs(plan)) == key


# What a set costs and how it is bounded


def test_a_cap_bounds_every_module(pair: Path) -> None:
    whole, capped = measured(pair), measured(pair, cap=0.1)
    assert any(len(c.indices) > c.count // 10 for c in whole.modules.values())
    for name, c in capped.modules.items():
        assert len(c.indices) == min(len(whole.modules[name].indices), c.count // 10)
        assert set(c.indices) <= set(whole.modules[name].indices)


def test_long_dialogues_are_cut(pair: Path) -> None:
    whole, cut = measured(pair), measured(pair, max_tokens=18)
    assert whole.statistics["cut"] == 0
    assert 0 < cut.statistics["cut"] <= len(ROWS)
    assert cut.statistics["tokens"] <= 18 * len(ROWS) < whole.statistics["tokens"]
    assert cut.statistics["response_tokens"] < whole.statistics["response_tokens"]


def test_progress_is_by_example_and_ends_at_all(pair: Path) -> None:
    plan, seen = plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig()), []
    settings = ResetConfig(ratio=0.05, calibration=str(pair / "data.jsonl"))
    measure(plan, settings, read_inputs(plan), "--", lambda *step: seen.append(step))
    assert seen == [(phase, i + 1, len(ROWS)) for phase in ("base", "sft") for i in range(len(ROWS))]


def test_a_graph_of_one_layer_at_a_time() -> None:
    """What is alive during the backward pass does not grow with the number of layers."""
    saved: dict[int, int] = {}
    for layers in (2, 8):
        model = make("llama", num_hidden_layers=layers)
        modules = modules_of(model.config.to_dict(), shapes_of(model), "--sft")
        seen, alive, peak = trace(model, STANDARD, torch.arange(3, 43)), 0, 0

        class Counted:
            def __init__(self, tensor: torch.Tensor) -> None:
                nonlocal alive, peak
                self.tensor = tensor
                alive += tensor.numel()
                peak = max(peak, alive)

            def __del__(self) -> None:
                nonlocal alive
                alive -= self.tensor.numel()

        with torch.autograd.graph.saved_tensors_hooks(Counted, lambda counted: counted.tensor):
            attribute(model, STANDARD, modules, seen, [10, 20])
        saved[layers] = peak
    assert saved[8] <= 1.2 * saved[2] > 0


def test_the_picture(own: Path, capsys: pytest.CaptureFixture) -> None:
    reset_file.save(measured(own), Path("s.json"))
    assert command("reset-set", "s.json", "--json", "--picture", "p/heat.png") == 0
    assert json.loads(capsys.readouterr().out)["format"] == 1, "nothing but JSON on stdout"
    for arguments in (("s.json", "s.json", "--picture", "p/other.png"), ("s.json", "--picture", "p/other.xyz")):
        assert command("reset-set", *arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("rejuv: --picture: expected ")
    assert (own / "p" / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert command("reset-set", "s.json", "--picture", "p/heat.png") == 2
    assert "--picture: expected a file that does not exist" in capsys.readouterr().err


def test_the_entropy_before_and_after(own: Path, capsys: pytest.CaptureFixture) -> None:
    assert rejuv(*RESET, "--json") == 0
    entropy = json.loads(capsys.readouterr().out)["entropy"]
    example = tiny.tokenizer()("<|im_start|>user\n0+0=<|im_end|>\n<|im_start|>assistant\n0, I think<|im_end|>\n")
    assert len(example["input_ids"]) > 20
    for side, directory in (("base", "base"), ("sft", "sft"), ("output", "out")):
        model, means, count = AutoModelForCausalLM.from_pretrained(own / directory).eval(), 0.0, 0
        for row in ROWS:
            prompt = f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
            before, after = (tiny.tokenizer()(t)["input_ids"] for t in (prompt, f"{prompt}{row['response']}<|im_end|>"))
            logits = model(torch.tensor([after])).logits[0, len(before) - 1 : -1].detach()
            means += float(torch.distributions.Categorical(logits=logits).entropy().sum())
            count += len(after) - len(before)
        assert entropy[side] == pytest.approx(means / count, rel=1e-4), side


def test_an_output_that_cannot_be_measured_is_written_all_the_same(
    own: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_finite(*args: object, **kwargs: object) -> float:
        raise InputError("--output", "finite activations", "NaN", "look at it")

    monkeypatch.setattr(probe_measure, "entropy_of", not_finite)
    assert rejuv(*RESET, "--save-reset-set", "s.json", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["entropy"]["output"] is None
    assert err == "rejuv: warning: --output: expected finite activations, got NaN. Fix: look at it.\n"


def test_each_keeps_no_more_of_a_gradient_than_its_own_position(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")
    modules = modules_of(model.config.to_dict(), shapes_of(model), "--sft")
    kept_bytes = []
    original = attribute_module._backward

    def counted(*args: object) -> object:
        of_hidden, scores = original(*args)
        kept_bytes.append(sum(s.untyped_storage().nbytes() for s in scores.values()))
        return of_hidden, scores

    monkeypatch.setattr(attribute_module, "_backward", counted)
    seen = trace(model, STANDARD, torch.arange(3, 43))
    attribute(model, STANDARD, modules, seen, [10, 20, 30, 35], each=True)
    rows = sum(m.count for m in modules if m.kind == "row" and m.layer == "model.layers.0")
    assert kept_bytes == [4 * 4 * rows] * 3
