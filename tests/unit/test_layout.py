# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which files belong to a model: they are copied byte for byte and make its content key, and nothing else does."""

from pathlib import Path

import pytest
from checkpoints import INDEX, make_pair

from rejuv_plugin.checkpoint import Materialised, materialise, plan_fusion, read_checkpoint
from rejuv_plugin.config import FusionConfig

BELONG = [
    *("config.json", "generation_config.json", INDEX, "modeling_mine.py", "tokenization_mine.py"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "qwen.tiktoken", "tekken.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/tool.jinja"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    *("image_processor_config.json", "feature_extractor_config.json"),
]
BESIDE = [
    *("eval_results.json", "all_results.json", "train.log", "trainer_state.json", "training_args.bin", "optimizer.pt"),
    *("README.md", "LICENSE", ".gitattributes", "requirements.txt", "loss.png", "rejuvenation.json"),
    *("pytorch_model.bin.index.json", "consolidated.safetensors", "model.gguf", "adapter_config.json"),
    *("checkpoint-10/config.json", "onnx/config.json", "eval/run.py", "runs/chat_template.jinja"),
]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    make_pair(tmp_path, max_shard_size="20KB")
    for name in BELONG:
        if not (tmp_path / "sft" / name).exists():
            write(tmp_path / "sft" / name, f"of {name}, with \r\n and é")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text.encode())


def run(pair: Path) -> Materialised:
    return materialise(plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig()), pair / "cache")


def test_what_belongs_to_the_model_is_copied_byte_for_byte(pair: Path) -> None:
    assert list(read_checkpoint(str(pair / "sft"), "--sft").side_files) == sorted(BELONG)
    output = run(pair).path
    for name in BELONG:
        assert (output / name).read_bytes() == (pair / "sft" / name).read_bytes(), name
    shards = {path.name for path in (pair / "sft").glob("model-*.safetensors")}
    written = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert written == {*BELONG, *shards, "rejuvenation.json"}


def test_what_lies_beside_it_is_neither_copied_nor_part_of_the_key(pair: Path) -> None:
    first = run(pair)
    for name in BESIDE:
        write(pair / "sft" / name, "{}")
    (pair / "sft" / "link.log").symlink_to("nowhere")
    second = run(pair)
    assert (second.path, second.cached) == (first.path, True)
    assert not [name for name in BESIDE if name != "rejuvenation.json" and (second.path / name).exists()]


# Not those that must stay readable for the plan: an edit of theirs is an edit of the weights' description.
@pytest.mark.parametrize("name", [name for name in BELONG if name not in ("config.json", INDEX)])
def test_each_of_them_is_part_of_the_key(pair: Path, name: str) -> None:
    before = run(pair).path
    (pair / "sft" / name).write_bytes(b"{} ")
    assert run(pair).path != before
