# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The rollout's model and the updates of its weights."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from rejuv_plugin.errors import InputError

_KEY = "update_weights"
_ATTENTION = frozenset({"full_attention", "sliding_attention"})


def build_model(
    hf_config: PretrainedConfig, dtype: torch.dtype, checkpoint: str | None, trust_remote_code: bool = False
) -> torch.nn.Module:
    """The model in evaluation mode.

    Args:
        hf_config: architecture; its attention implementation, usually one for GPUs, is replaced by SDPA.
        dtype: of the parameters and the forward pass.
        checkpoint: directory to load from, or None to leave the weights to the first update.
    """
    other = sorted(set(getattr(hf_config, "layer_types", None) or ()) - _ATTENTION)
    if other:
        raise InputError(
            "actor_rollout_ref.model.path",
            "a model with attention layers only (rollout.name=transformers_cpu)",
            f"{hf_config.model_type} with {', '.join(other)} layers",
            "choose another model or another rollout",
        )
    common: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": "sdpa",
        "trust_remote_code": trust_remote_code,
    }
    if checkpoint is None:
        return AutoModelForCausalLM.from_config(hf_config, **common).eval()
    return AutoModelForCausalLM.from_pretrained(checkpoint, config=hf_config, **common).eval()


class ModelWeights:
    """Takes the weights that the trainer sends, in parts, and checks that they are exactly the model's.

    A full update replaces every parameter; an adapter update wraps the model with PEFT, once, and replaces the adapter
    alone, so the forward pass adds ``scaling * B(A(x))`` in the same order as the actor's.

    Args:
        model: from ``build_model``.
        loaded: whether it already has the checkpoint's weights.
    """

    def __init__(self, model: torch.nn.Module, loaded: bool) -> None:
        self.model = model
        self._problem = None if loaded else "no weights were received yet (rollout.load_format=dummy)"
        self._base_loaded = loaded
        self._peft_config: dict[str, Any] | None = None
        self._received: set[str] = set()
        self._adapter: dict[str, torch.Tensor] = {}
        self._updating = False
        self._by_name = {
            name: tensor
            for name, tensor in model.state_dict(keep_vars=True).items()
            if isinstance(tensor, torch.Tensor)
        }
        # A tied embedding is one tensor under two names; either name will do.
        self._aliases: dict[int, set[str]] = {}
        for name, tensor in self._by_name.items():
            self._aliases.setdefault(id(tensor), set()).add(name)
        # FSDP sends what the model has; Megatron's bridges send what the checkpoint has.
        experts = {name: dict(_experts(name, tensor)) for name, tensor in self._by_name.items()}
        self._parts = {name: parts.keys() for name, parts in experts.items() if parts}
        for parts in experts.values():
            self._by_name |= parts

    def require_ready(self) -> None:
        """Raise if the model's weights are not those of one complete update."""
        if self._problem is not None:
            raise RuntimeError(f"the rollout cannot generate: {self._problem}")

    def begin(self, peft_config: Mapping[str, Any] | None = None) -> None:
        """Start an update; with a PEFT configuration it is one of the adapter alone."""
        if peft_config is not None and not self._base_loaded:
            raise InputError(_KEY, "full weights first", "a LoRA adapter alone", "use rollout.load_format=safetensors")
        self._problem = "the last weight update did not complete"
        self._received, self._adapter, self._updating = set(), {}, True
        self._peft_config = None if peft_config is None else dict(peft_config)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy one part of the update into the model.

        Args:
            tensors: full (unsharded) tensors by Hugging Face name, any floating dtype.
        """
        if not self._updating:
            raise RuntimeError("weights were sent without begin()")
        if self._peft_config is not None:
            self._adapter.update(tensors)
            return
        unknown = []
        for sent_name, tensor in tensors.items():
            name = _base_name(sent_name)
            target = self._by_name.get(name)
            if target is None:
                unknown.append(sent_name)
                continue
            if target.shape != tensor.shape:
                raise InputError(
                    f"{_KEY}: {sent_name}", str(tuple(target.shape)), str(tuple(tensor.shape)), _SAME_MODEL
                )
            target.copy_(tensor)
            self._received.add(name)
        _require_none(unknown, "only tensors of the rollout's model", "unexpected")

    def finish(self) -> None:
        """End the update: raise unless everything arrived."""
        if self._peft_config is not None:
            self._load_adapter(self._peft_config)
        else:
            in_parts = {name for name, parts in self._parts.items() if parts <= self._received}
            received = self._received | in_parts
            missing = [sorted(names)[0] for names in self._aliases.values() if not names & received]
            _require_none(missing, "every tensor of the rollout's model", "without")
            self._base_loaded = True
        self._updating = False
        self._problem = None

    def _load_adapter(self, peft_config: dict[str, Any]) -> None:
        from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

        if not isinstance(self.model, PeftModel):
            config = PeftConfig.from_peft_type(**peft_config)
            self.model = get_peft_model(self.model, config, autocast_adapter_dtype=False).eval()
        expected = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        _require_none(expected.keys() - self._adapter.keys(), "every tensor of the adapter", "without")
        _require_none(self._adapter.keys() - expected.keys(), "only tensors of the adapter", "unexpected")
        set_peft_model_state_dict(self.model, self._adapter)
        self._adapter = {}


_SAME_MODEL = "use the same model.path and model.override_config for actor and rollout"


def _base_name(name: str) -> str:
    """The model's own name of a tensor; verl's base sync for LoRA marks the wrapped layers with ``.base_layer``."""
    return name.replace("_fsdp_wrapped_module.", "").replace(".base_layer.", ".")


def _experts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The parts of a tensor in which transformers keeps all experts of a layer, as views, by a checkpoint's names."""
    stem, _, kind = name.rpartition(".experts.")
    if kind not in ("gate_up_proj", "down_proj"):
        return
    for expert, rows in enumerate(tensor.detach()):
        names = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
        for part, view in zip(names, rows.chunk(len(names)), strict=True):
            yield f"{stem}.experts.{expert}.{part}.weight", view


def _require_none(names: Iterable[str], expected: str, verb: str) -> None:
    ordered = sorted(names)
    if ordered:
        shown = ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")
        raise InputError(_KEY, expected, f"{verb} {shown}", _SAME_MODEL)
