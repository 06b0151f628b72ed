# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Dialogues as the model sees them: token ids by its own chat template, and which of them it said itself."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..checkpoint.compatible import of_text
from ..checkpoint.layout import Checkpoint
from ..config import ResetConfig
from ..errors import InputError, one_line
from .calibration import Message, read_dialogues
from .load import load_config, load_tokenizer


@dataclass(frozen=True)
class Example:
    """One sequence to teacher-force."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]
    """Ascending positions in ``ids``, at least 1, of the tokens that the model said: the token at ``t`` is predicted
    from the hidden state at ``t - 1``. End-of-turn marks are the model's own; white space after them is not."""
    cut: bool = False
    """Whether the end of the dialogue was left out."""

    def first(self, tokens: int) -> "Example":
        """The example cut to its first tokens."""
        if len(self.ids) <= tokens:
            return self
        return Example(self.ids[:tokens], tuple(t for t in self.targets if t < tokens), cut=True)


def examples_of(sft: Checkpoint, settings: ResetConfig, key: str, base: Checkpoint | None = None) -> list[Example]:
    """The calibration data of ``settings`` as sequences for the SFT checkpoint, cut to ``max_tokens``.

    Args:
        sft: the SFT checkpoint, with tokenizer and chat template.
        settings: with ``calibration``.
        key: how errors name the calibration data.
        base: another model that is to be run on them.

    Raises:
        InputError: as `read_examples` and, of the base, `check_vocabulary`; also too few response tokens.
    """
    examples = read_examples(sft, str(settings.calibration), settings.max_tokens, key)
    if base:
        check_vocabulary(base, [example.ids for example in examples])
    tokens = sum(len(example.targets) for example in examples)
    if tokens < settings.positions:
        raise InputError(
            key, f"at least {settings.positions} response tokens, the positions to keep", f"{tokens}", "give more data"
        )
    return examples


def read_examples(
    checkpoint: Checkpoint, path: str, max_tokens: int, key: str, count: int | None = None
) -> list[Example]:
    """A calibration file, or its first ``count`` dialogues, as sequences for a checkpoint, cut to ``max_tokens``; those
    that have no response left are dropped.

    Raises:
        InputError: as `calibration.read_dialogues` and `tokenize`, also if none is left; named by the checkpoint's key,
            as `load.load_config` and `load.load_tokenizer`.
    """
    text = load_config(checkpoint).get_text_config()
    context, vocabulary = (getattr(text, entry, None) for entry in ("max_position_embeddings", "vocab_size"))
    tokenizer, dialogues = load_tokenizer(checkpoint), read_dialogues(path, key)[:count]
    whole = tokenize(dialogues, tokenizer, context, vocabulary, key, checkpoint.key)
    examples = [example for example in (each.first(max_tokens) for each in whole) if example.targets]
    if not examples:
        raise InputError(
            key,
            f"responses within the first {max_tokens} tokens",
            "none",
            "give shorter prompts, or more max_tokens",
        )
    return examples


def check_vocabulary(base: Checkpoint, sequences: Sequence[Sequence[int]]) -> None:
    """Whether the base has rows for all tokens, also those that SFT has added.

    Raises:
        InputError: named by the base's key.
    """
    rows, largest = of_text(base, "vocab_size"), max(chain.from_iterable(sequences))
    if rows and largest >= rows:
        raise InputError(
            base.key, f"rows for all tokens of the data, {largest} among them", f"{rows} rows", "use other data"
        )


def needs_template(tokenizer: Any, key: str) -> None:
    """Raise for a tokenizer without a chat template.

    Raises:
        InputError: named ``key``.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            key, "a tokenizer with a chat template", "none", "save the template that SFT used with the checkpoint"
        )


def template_failed(key: str, what: str, error: Exception) -> InputError:
    """The error for messages that a chat template does not take."""
    reason = one_line(error)
    return InputError(
        key,
        "messages that the chat template takes",
        f"{what} ({type(error).__name__}: {reason})",
        "write the dialogue as it was for SFT",
    )


def tokenize(
    dialogues: Iterable[list[Message]],
    tokenizer: Any,
    context: int | None,
    vocabulary: int | None,
    key: str,
    sft_key: str,
) -> list[Example]:
    """Apply the chat template.

    Args:
        dialogues: from `calibration.read_dialogues`.
        tokenizer: the SFT checkpoint's, one of transformers' fast ones.
        context: the most tokens that the model takes, if that is known.
        vocabulary: rows of its embeddings, if that is known.
        key: how errors name the calibration data.
        sft_key: how errors name the checkpoint.

    Returns:
        One example a dialogue, or several where the template rewrites what was said before (Qwen3 drops the thinking
        of earlier turns): then each such turn is seen as the model sees it when it speaks.

    Raises:
        InputError: no chat template, a template that fails, a sequence longer than the context.
    """
    needs_template(tokenizer, sft_key)
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(sft_key, "a fast tokenizer (tokenizer.json)", type(tokenizer).__name__, "convert and save it")
    examples = []
    for row, messages in enumerate(dialogues):
        for text, spans in _texts(messages, tokenizer, row, key):
            example = _example(text, spans, tokenizer)
            if not example.targets:
                raise InputError(key, "a response in each row", f"no token of one in row {row}", "leave the row out")
            if context and len(example.ids) > context:
                raise InputError(
                    key,
                    f"dialogues of at most {context} tokens, the context of the model",
                    f"{len(example.ids)} in row {row}",
                    "leave it out or shorten it",
                )
            if vocabulary and max(example.ids) >= vocabulary:
                raise InputError(
                    sft_key, f"token ids below {vocabulary}", f"{max(example.ids)}", "save model and tokenizer together"
                )
            examples.append(example)
    return examples


def _texts(messages: list[Message], tokenizer: Any, row: int, key: str) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Rendered text and the character spans that the model said, for the whole dialogue if that can be."""
    text = ""
    spans: list[tuple[int, int]] = []
    for i, message in enumerate(messages):
        # What opens a dialogue answers nothing: it has no prompt to be predicted from.
        if message["role"] != "assistant" or i == 0:
            continue
        try:
            history = tokenizer.apply_chat_template(messages[:i], tokenize=False)
            before = tokenizer.apply_chat_template(messages[:i], tokenize=False, add_generation_prompt=True)
            after = tokenizer.apply_chat_template(messages[: i + 1], tokenize=False)
        # Templates are programs of their own and raise what they like.
        except Exception as error:
            raise template_failed(key, f"row {row}", error) from None
        # The generation prompt may hold more than the finished turn keeps, such as an opened thinking mark.
        start = _common(before, after)
        if start < len(history.rstrip()):
            raise InputError(
                key,
                "a chat template that only adds to the text when the model answers",
                f"one that changes what came before (row {row}, message {i})",
                "give prompts and responses, or dialogues of one answer each",
            )
        if spans and not after.startswith(text.rstrip()):
            yield text, spans
            spans = []
        text = after
        spans = [*spans, (start, len(after))]
    yield text, spans


def _common(ours: str, theirs: str) -> int:
    """Number of leading characters that two texts share."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))


def _example(text: str, spans: list[tuple[int, int]], tokenizer: Any) -> Example:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    targets: list[int] = []
    for first, last in spans:
        # A token that straddles the border is not the model's; some tokenizers trim white space from the offsets.
        said = [t for t, (start, end) in enumerate(offsets) if t > 0 and first <= start and first < end <= last]
        while said and not text[slice(*offsets[said[-1]])].strip():
            said.pop()
        targets += said
    return Example(tuple(ids), tuple(targets))
