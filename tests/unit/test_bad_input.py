# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Every bad checkpoint: one line with the key and the fix, and nothing written, not even beside the output."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import (
    INDEX,
    SINGLE,
    copy,
    edit_json,
    make_pair,
    save_model,
    set_weights,
    weights,
)
from refusals import assert_refused

from rejuv_plugin.checkpoint import apply, plan_fusion
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    make_pair(tmp_path)
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    make_pair(tmp_path, max_shard_size="20KB")
    return tmp_path


def edit_index(path: Path, edit: Callable[[dict], None]) -> None:
    index = json.loads((path / INDEX).read_text())
    edit(index["weight_map"])
    (path / INDEX).write_text(json.dumps(index))


# Checkpoints that cannot be read


def test_missing_path(pair: Path) -> None:
    assert_refused(pair, "--base", "which does not exist", "check --base", base="nowhere")


def test_missing_path_that_could_be_a_hub_name(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pair)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"^--base: .*'some/model'.*LocalEntryNotFoundError.*Fix: check --base"):
        plan_fusion("some/model", "sft", FusionConfig())


def test_a_file_in_place_of_a_directory(pair: Path) -> None:
    assert_refused(pair, "--base", "which is a file", base=f"base/{SINGLE}")


def test_no_config(pair: Path) -> None:
    (pair / "sft" / "config.json").unlink()
    assert_refused(pair, "--sft", "config.json", "give the directory of a Hugging Face checkpoint")


def test_a_config_that_is_not_json(pair: Path) -> None:
    (pair / "sft" / "config.json").write_text("{")
    assert_refused(pair, "--sft", "readable JSON", "again")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles(pair: Path, name: str) -> None:
    (pair / "base" / SINGLE).rename(pair / "base" / name)
    assert_refused(pair, "--base", name, "can run any code", "save_pretrained")


def test_a_lora_adapter(pair: Path) -> None:
    (pair / "sft" / SINGLE).rename(pair / "sft" / "adapter_model.safetensors")
    assert_refused(pair, "--sft", "LoRA adapter", "merge_and_unload")


def test_no_weights(pair: Path) -> None:
    (pair / "sft" / SINGLE).unlink()
    assert_refused(pair, "--sft", "has neither")


@pytest.mark.parametrize("entry", ["quantization_config", "compression_config"])
def test_quantised_by_config(pair: Path, entry: str) -> None:
    edit_json(pair / "sft" / "config.json", **{entry: {"quant_method": "gptq"}})
    assert_refused(pair, "--sft", entry, "dequantise")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8, torch.int32], ids=str)
def test_quantised_by_dtype(pair: Path, dtype: torch.dtype) -> None:
    tensors = weights(pair / "base")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(dtype)
    set_weights(pair / "base", tensors)
    assert_refused(pair, "--base", name, "a quantised one", "dequantise")


def test_both_layouts(sharded: Path) -> None:
    set_weights(sharded / "sft", weights(sharded / "sft"))
    assert_refused(sharded, "--sft", "has both", "remove the one that is stale")


def test_an_index_without_its_file(sharded: Path) -> None:
    sorted((sharded / "sft").glob("model-*"))[1].unlink()
    assert_refused(sharded, "--sft", "model-00002", "no such file")


@pytest.mark.parametrize("file", ["../base/model-00001.safetensors", "/etc/x.safetensors", "a/b.safetensors", "", 7])
def test_an_index_that_points_elsewhere(sharded: Path, file: object) -> None:
    edit_index(sharded / "sft", lambda index: index.update({"lm_head.weight": file}))
    assert_refused(sharded, "--sft", "of its own directory", repr(file))


def test_an_index_with_a_name_that_no_file_can_have(sharded: Path) -> None:
    edit_index(sharded / "sft", lambda index: index.update({"lm_head.weight": "x" * 5000 + ".safetensors"}))
    assert_refused(sharded, "--sft", "no such file")


def test_a_flag_that_is_no_flag(pair: Path) -> None:
    edit_json(pair / "sft" / "config.json", tie_word_embeddings=[])
    assert_refused(pair, "--sft", "true or false for tie_word_embeddings", "[]")


def test_an_index_that_names_the_wrong_file(sharded: Path) -> None:
    def move(index: dict) -> None:
        index["lm_head.weight"] = next(file for file in index.values() if file != index["lm_head.weight"])

    edit_index(sharded / "sft", move)
    assert_refused(sharded, "--sft", "lm_head.weight", "does not say")


def test_an_index_with_a_tensor_that_no_file_has(sharded: Path) -> None:
    edit_index(sharded / "sft", lambda index: index.update(ghost=index["lm_head.weight"]))
    assert_refused(sharded, "--sft", "ghost", "a file without it")


def test_an_index_that_forgets_a_tensor(sharded: Path) -> None:
    edit_index(sharded / "sft", lambda index: index.pop("model.norm.weight"))
    assert_refused(sharded, "--sft", "model.norm.weight", "does not say")


def test_an_empty_index(sharded: Path) -> None:
    edit_index(sharded / "sft", lambda index: index.clear())
    assert_refused(sharded, "--sft", "weight_map")


def test_a_tensor_in_two_files(sharded: Path) -> None:
    source = sharded / "sft" / json.loads((sharded / "sft" / INDEX).read_text())["weight_map"]["lm_head.weight"]
    shutil.copy(source, sharded / "sft" / "zz.safetensors")
    edit_index(sharded / "sft", lambda index: index.update(ghost="zz.safetensors"))
    assert_refused(sharded, "--sft", f"in {source.name} and in zz.safetensors")


def test_a_side_file_that_links_to_nothing(pair: Path) -> None:
    (pair / "sft" / "vocab.json").symlink_to("nowhere")
    assert_refused(pair, "--sft", "vocab.json", "symbolic link")


def test_a_side_file_that_cannot_be_read(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "tokenizer.json")
    assert_refused(pair, "--sft", "tokenizer.json to be readable", "no permission")


# Two checkpoints that are not states of one model


def test_base_is_sft_by_path(pair: Path) -> None:
    (pair / "link").symlink_to(pair / "sft")
    for base in ("sft", "link", "base/../sft"):
        assert_refused(pair, "--base", "the same files as --sft", "set --base to the model before SFT", base=base)


def test_base_is_sft_by_inode(pair: Path) -> None:
    shutil.copytree(pair / "sft", pair / "hard", copy_function=os.link)
    assert_refused(pair, "--base", "the same files as --sft", base="hard")


def test_base_is_sft_by_content(pair: Path) -> None:
    copy(pair / "sft", pair / "twin")
    assert_refused(pair, "--base", "byte for byte", "model before SFT", base="twin")


def test_base_is_sft_in_other_shards(pair: Path) -> None:
    save_model(pair / "resharded", 1, max_shard_size="20KB")
    assert_refused(pair, "--base", "has the weights of --sft", "model before SFT", base="resharded")


@pytest.mark.parametrize(
    ("entry", "value"),
    [("model_type", "llama"), ("architectures", ["LlamaForCausalLM"]), ("num_key_value_heads", 1)],
)
def test_another_architecture(pair: Path, entry: str, value: object) -> None:
    edit_json(pair / "base" / "config.json", **{entry: value})
    assert_refused(pair, "--base", entry, repr(value), "the very model")


@pytest.mark.parametrize("entry", ["num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act"])
@pytest.mark.parametrize("both", [True, False], ids=["both nested", "base nested"])
def test_another_geometry_in_a_multimodal_config(pair: Path, entry: str, both: bool) -> None:
    for side, value in (("base", 1), ("sft", 2)):
        config = json.loads((pair / side / "config.json").read_text())
        config[entry] = value
        if both or side == "base":
            config["text_config"] = {entry: config.pop(entry)}
        (pair / side / "config.json").write_text(json.dumps(config))
    assert_refused(pair, "--base", f"({entry} 2)", f"got {entry} 1", "the very model")


def test_other_shapes(pair: Path) -> None:
    save_model(pair / "wide", 0, intermediate_size=52)
    name = "model.layers.0.mlp.down_proj.weight"
    assert_refused(pair, "--base", name, "[32, 48]", "[32, 52]", "and 5 more tensors", base="wide")


@pytest.mark.parametrize("tied", [False, True])
def test_a_grown_vocabulary(tmp_path: Path, tied: bool) -> None:
    save_model(tmp_path / "base", 0, tied=tied)
    save_model(tmp_path / "sft", 1, tied=tied, vocab_size=70)
    assert_refused(tmp_path, "--base", "70 rows", "64 rows", "set --grown-vocabulary to keep")


@pytest.mark.parametrize(("side", "key"), [("base", "--base"), ("sft", "--sft")])
def test_a_missing_tensor(pair: Path, side: str, key: str) -> None:
    tensors = weights(pair / side)
    del tensors["model.norm.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
    set_weights(pair / side, tensors)
    assert_refused(pair, key, "without model.layers.1.mlp.up_proj.weight (and 1 more tensor)", "incomplete")


def test_an_untied_model_without_head(pair: Path) -> None:
    tensors = weights(pair / "base")
    del tensors["lm_head.weight"]
    set_weights(pair / "base", tensors)
    assert_refused(pair, "--base", "without lm_head.weight")


def test_tied_on_one_side_only(tmp_path: Path) -> None:
    save_model(tmp_path / "base", 0, tied=True)
    save_model(tmp_path / "sft", 1, tied=False)
    assert_refused(tmp_path, "--base", "tie_word_embeddings False", "got True")


def test_an_integer_tensor_on_one_side(pair: Path) -> None:
    tensors = weights(pair / "base")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].long()
    set_weights(pair / "base", tensors)
    assert_refused(pair, "--base", "model.norm.weight", "I64", "BF16")


def test_the_caller_chooses_the_keys(pair: Path) -> None:
    keys = {"base_key": "rejuvenation.base_path", "sft_key": "actor_rollout_ref.model.path"}
    with pytest.raises(InputError, match=r"^rejuvenation.base_path: .*actor_rollout_ref.model.path"):
        plan_fusion(str(pair / "sft"), str(pair / "sft"), FusionConfig(), **keys)
    with pytest.raises(InputError, match=r"^actor_rollout_ref.model.path: "):
        plan_fusion(str(pair / "base"), str(pair / "no where"), FusionConfig(), **keys)


def test_what_is_fused_already(pair: Path) -> None:
    base, once = str(pair / "base"), str(pair / "once")
    apply(plan_fusion(base, str(pair / "sft"), FusionConfig(0.4)), pair / "once")
    apply(plan_fusion(base, str(pair / "sft"), FusionConfig(1.0, alpha_of="*q_proj*:0.4")), pair / "in_part")
    for fused, alpha in ((once, 0.4), (str(pair / "in_part"), 1.0)):
        with pytest.raises(InputError, match=rf"^--sft: .*, which is .*/sft fused with alpha {alpha}. Fix: give that"):
            plan_fusion(base, fused, FusionConfig(0.5))
    plan_fusion(base, once, FusionConfig(1.0))
    apply(plan_fusion(base, str(pair / "sft"), FusionConfig(1.0)), pair / "as_it_was")
    plan_fusion(base, str(pair / "as_it_was"), FusionConfig(0.5))
    # Fused with something else, as a soup is: that is another matter.
    plan_fusion(str(save_model(pair / "other", 2, max_shard_size="30KB")), once, FusionConfig(0.5))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_may_not_be_read_need_not_be_downloaded_again(
    pair: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read anything, so the answer of the system is put in its mouth.
    opens = Path.open

    def refuse(self: Path, *args: object, **kwargs: object) -> object:
        if self == pair / "sft" / name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opens(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=rf"^--sft: expected .*{name} to be readable, got no permission. Fix: have it"):
        plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig())
