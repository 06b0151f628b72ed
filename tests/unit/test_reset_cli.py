# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The neuron reset by the console command: `rejuv apply --reset-ratio`, and `rejuv reset-set`."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from checkpoints import edit_json, snapshot, weights
from measured_pair import ROWS, measured, own_copy, save_pair, with_nan
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from rejuv_plugin.checkpoint import reset_file
from rejuv_plugin.cli import main
from rejuv_plugin.errors import InputError
from rejuv_plugin.probe import measure as probe_measure


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def own(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_copy(pair, tmp_path, monkeypatch)


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


def test_a_set_of_another_checkpoint_is_used_with_a_warning(own: Path, capsys: pytest.CaptureFixture) -> None:
    assert rejuv(*RESET, "--save-reset-set", "s.json") == 0
    assert rejuv("--reset-set", "s.json", output="same") == 0
    assert "warning" not in capsys.readouterr().err
    tensors = weights(own / "sft")
    name = next(iter(tensors))
    tensors[name] = tensors[name] * 1.5
    save_file(tensors, own / "sft" / "model.safetensors", {"format": "pt"})
    assert rejuv("--reset-set", "s.json", output="other") == 0
    assert "the reset set was measured on another SFT checkpoint:" in capsys.readouterr().err
    manifest = json.loads((own / "other" / "rejuvenation.json").read_text())
    assert manifest["reset"]["measured_on_another"] == ["sft"]


def test_apply_resets_saves_and_reuses_the_set(own: Path, capsys: pytest.CaptureFixture) -> None:
    assert rejuv(*RESET, "--save-reset-set", "sets/s.json") == 0
    out, err = capsys.readouterr()
    assert err == "", "a short job has no progress in a log"
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
    Path("manifest.json").write_text(json.dumps({"format": 2, "tensors": {}}))
    assert command("reset-set", "manifest.json") == 2
    assert "the manifest of a checkpoint (rejuvenation.json). Fix: give the file" in capsys.readouterr().err


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
    ((*RESET, "--cap", "0"), "--cap", "a number above 0"),
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
