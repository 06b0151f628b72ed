# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which engines and models the workers' monitors take; of the others they say so, and are off."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

from rejuv_plugin.config import MonitorsConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl.engine import check_known
from rejuv_plugin.integrations.verl.monitors import stream
from rejuv_plugin.integrations.verl.monitors.probe_pass import probe_monitors
from rejuv_plugin.integrations.verl.monitors.worker import MonitoredActor, Watching


class BuiltOnFSDP(FSDPEngine):
    """As VeOmni's: it has the methods, and none of the device meshes."""

    def __init__(self) -> None:
        pass


class Titan:
    def prepare_model_outputs(self, logits: Any) -> None: ...


@pytest.mark.parametrize("engine", [BuiltOnFSDP(), Titan()], ids=lambda engine: type(engine).__name__)
def test_of_an_unknown_engine_nothing_is_wrapped(engine: Any) -> None:
    before = dict(vars(engine))
    actor = MonitoredActor()
    actor.plasticity_watching = Watching(MonitorsConfig(), None, ())
    makers = actor._makers(engine)
    assert {name for names in makers for name in names} == {"tokens", "gradients", "weights"}
    for make in makers.values():
        with pytest.raises(InputError, match=f"fsdp, fsdp2 or megatron, .* got {type(engine).__name__}"):
            make()
    assert vars(engine) == before


def test_verls_own_engines_are_known() -> None:
    engine = BuiltOnFSDP()
    engine.ulysses_device_mesh = None
    check_known(engine)
    check_known(SimpleNamespace(_build_megatron_module=None))


@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
def test_positions_of_three_coordinates(name: str) -> None:
    text = SimpleNamespace(**{name: {"mrope_section": [16, 24, 24]}})
    engine = SimpleNamespace(model_config=SimpleNamespace(hf_config=SimpleNamespace(get_text_config=lambda: text)))
    with pytest.raises(InputError, match="three coordinates"):
        probe_monitors(engine, [], MonitorsConfig())


def test_a_base_that_is_not_on_the_node_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = stream._base(tmp_path / "base")
    assert f"rejuvenation: no drift_base: {tmp_path}/base is not on this node" in capsys.readouterr().out
    assert read("model.norm.weight", 32, None) is None
