# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The compiled kernel against the torch path, bit for bit, for any bits; and that workers change nothing."""

import json
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import SINGLE, make_pair, save_model, set_weights, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fusion import any_bits, pairs

from rejuv_plugin.checkpoint import apply, combine, pieces, plan_fusion, stream, write
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.ops import kernel, kernel_quick
from rejuv_plugin.ops.drift import drift
from rejuv_plugin.ops.fusion import fuse

VIEWS = {
    torch.bfloat16: (torch.uint16, np.uint16),
    torch.float16: (torch.int16, np.int16),
    torch.float32: (torch.float32, np.float32),
}
DTYPES = list(VIEWS)
dtypes = st.sampled_from(DTYPES)
alphas = st.one_of(
    st.sampled_from([0.5, 0.4, 0.45, 0.37, 1e-300, 5e-324, 1 - 2**-53]), st.floats(0, 1, exclude_min=True)
)


def view(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(VIEWS[tensor.dtype][0]).numpy()


def names(*tensors: torch.Tensor) -> tuple[str, ...]:
    """Their dtypes, as safetensors calls them."""
    return tuple({torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}[x.dtype] for x in tensors)


def bits(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(torch.int32 if tensor.element_size() == 4 else torch.int16).numpy()


def assert_same(base: torch.Tensor, sft: torch.Tensor, alpha: float) -> bool:
    """Whether the kernel calls its result good; then it has to be fuse's, bit for bit, and the sums right."""
    out = torch.empty_like(sft)
    sums = kernel.fuse_into(view(base), view(sft), view(out), names(base, sft), alpha)
    if not all(total < kernel.UNUSUAL for total in sums):
        return False
    expected = fuse(base, sft, alpha, sft.dtype)
    assert np.array_equal(bits(out), bits(expected))
    within = 1e-6 if base.dtype == sft.dtype == torch.bfloat16 else 1e-12
    for got, x in ((sums[0], sft), (sums[1], expected)):
        assert got == pytest.approx(drift(x, base).moved, rel=within, abs=0)
    assert sums[2] == pytest.approx(drift(sft, base).base, rel=within, abs=0)
    return True


def finite(tensor: torch.Tensor) -> torch.Tensor:
    # Squares of larger ones leave float32's range.
    return tensor[tensor.float().abs() < 1e18]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("base_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("alpha", [0.37, 0.4, 0.5])
def test_all_finite_bits(base_dtype: torch.dtype, dtype: torch.dtype, alpha: float) -> None:
    base, sft = finite(any_bits(base_dtype, 300_000, 7)), finite(any_bits(dtype, 300_000, 8))
    if dtype == torch.float16:
        base = base[base.float().abs() < 60000]
    count = min(len(base), len(sft))
    assert assert_same(base[:count], sft[:count], alpha)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("alpha", [0.25, 0.4, 0.5])
def test_weights_ties_and_edges(dtype: torch.dtype, alpha: float) -> None:
    base, sft = pairs(dtype)
    keep = (base.float().abs() < 1e18) & (sft.float().abs() < 1e18)
    assert assert_same(base[keep], sft[keep], alpha)
    # Neighbours: at alpha 0.5 every second mean is a tie.
    near = (base[keep].view(VIEWS[dtype][0]).numpy().copy()).view(np.uint16 if dtype != torch.float32 else np.uint32)
    assert assert_same(base[keep], torch.from_numpy(near ^ 1).view(dtype), alpha)


@pytest.mark.parametrize("alpha", [0.4, 0.5, 0.1, 1 / 3, 0.45, 0.25, 2.0**-16, 1 - 2.0**-16, 0.9999, 1e-3, 1e-30])
@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 9, 25, 118, 127, 180])
def test_all_pairs_of_bfloat16_fractions(exponent: int, alpha: float) -> None:
    """With each other, as neighbours in scale and far from it, of equal and of other sign: every tie, and cancellation.

    Exponent 0 is that of subnormal numbers, 1 to 25 that of numbers whose products with alpha may be.
    """
    fractions = np.arange(256)
    for apart in (-25, -16, -9, -8, -7, -3, -2, -1, 0, 1, 2, 3, 7, 8, 9, 16, 25):
        if 0 <= exponent + apart < 185:
            # 8 bits: the sign of the SFT's side, and the fraction.
            base = (exponent << 7) | (fractions & 127)
            sft = ((exponent + apart) << 7) | ((fractions & 128) << 8) | (fractions & 127)
            both = np.repeat(base[:128], 256), np.tile(sft, 128)
            tensors = [torch.from_numpy(side.astype(np.uint16)).view(torch.bfloat16) for side in both]
            assert assert_same(*tensors, alpha)
            assert assert_same(*(-side for side in tensors), alpha)


def test_means_of_every_bfloat16() -> None:
    """At 0.5 nothing is decided in float64: every 37th number with every one, 63 million pairs (step 1 takes 15 s)."""
    every = np.arange(1 << 16, dtype=np.uint16)
    every = every[(every & 0x7FFF) < 0x5E00]  # 2.3e18: squares of more leave float32's range.
    got, expected = np.empty_like(every), np.empty_like(every)
    for number in every[::37]:
        same = np.full_like(every, number)
        # Not by `fuse_into`, which has sums of tiny numbers computed in float64.
        kernel._call(kernel._quick("mean"), same, every, got, len(every), 0.5)
        kernel._exactly("all", same, every, expected, ("BF16", "BF16"), 0, len(every), array("d", [0.5]))
        assert np.array_equal(got, expected), hex(number)


def test_sums_of_tiny_numbers_are_not_lost() -> None:
    """Their squares are below float32's range; a sum of 0 would say that base and SFT are the same."""
    base = torch.full((1000,), 1e-30, dtype=torch.bfloat16)
    assert assert_same(base, base * 1.5, 0.4)
    for unchanged in (base, torch.full((1000,), 0.02, dtype=torch.bfloat16)):
        assert assert_same(unchanged, unchanged, 0.4)
    assert assert_same(torch.zeros(1000, dtype=torch.bfloat16), torch.zeros(1000, dtype=torch.bfloat16), 0.4)


def test_doubtful_elements_are_rare_and_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its bounds the quick way is wrong: so the tests above are known to be able to fail."""
    base, sft = (any_bits(torch.bfloat16, 200_000, seed) for seed in (1, 2))
    near = finite(base)
    sft = (near.float() * (1 + 0.01 * torch.randn(len(near), generator=torch.Generator().manual_seed(0)))).bfloat16()
    monkeypatch.setattr(kernel_quick, "_UNIT", 0.0)
    monkeypatch.setattr(kernel_quick, "_TINY", 0.0)
    careless = kernel_quick.fuse("careless", "any").compile()
    out = torch.empty_like(sft)
    kernel._call(careless, view(near), view(sft), view(out), len(out), 0.45)
    wrong = np.count_nonzero(bits(out) != bits(fuse(near, sft, 0.45, torch.bfloat16)))
    assert 0 < wrong < 0.1 * len(near)


@given(dtypes, dtypes, alphas, st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1))
@settings(max_examples=300, deadline=None)
def test_any_bits_at_all(base_dtype: torch.dtype, dtype: torch.dtype, alpha: float, numbers: list) -> None:
    if alpha == 1.0:
        return
    sides = []
    for side, used in enumerate((base_dtype, dtype)):
        width = np.uint32 if used == torch.float32 else np.uint16
        sides.append(torch.from_numpy(np.array([pair[side] for pair in numbers], np.uint64).astype(width)).view(used))
    assert_same(*sides, alpha)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_shows(dtype: torch.dtype, value: float, side: int) -> None:
    sides = [torch.ones(1000, dtype=dtype), torch.ones(1000, dtype=dtype)]
    sides[side][777] = value
    assert not assert_same(*sides, 0.4)
    sides[1 - side][777] = value
    assert not assert_same(*sides, 0.4)


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float16, 66_000.0), (torch.bfloat16, 3.4e38)])
def test_overflow_shows(dtype: torch.dtype, largest: float) -> None:
    base, sft = torch.full((100,), largest * 1.0001), torch.full((100,), 0.75 * largest).to(dtype)
    assert torch.isinf(fuse(base, sft, 0.001, dtype)).all()
    assert not assert_same(base, sft, 0.001)
    with_all = torch.full((100,), 65504.0), torch.full((100,), 65504.0, dtype=torch.float16)
    assert assert_same(*with_all, 0.5)


@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize(("first", "count"), [(0, 70 * 33), (5, 1), (32, 2), (40, 2000), (69 * 33, 33)])
def test_rows_and_columns(first: int, count: int, by_row: bool) -> None:
    base, sft = (
        finite(any_bits(torch.bfloat16, 9000, 1))[: 70 * 33],
        finite(any_bits(torch.bfloat16, 9000, 2))[: 70 * 33],
    )
    base[::5] = -0.0
    each = np.random.default_rng(0).choice([0.0, 0.3, 0.5, 1.0], 70 if by_row else 33)
    per_element = np.repeat(each, 33) if by_row else np.tile(each, 70)
    part = slice(first, first + count)
    out = torch.empty(count, dtype=torch.bfloat16)
    kernel.fuse_parts_into(view(base[part]), view(sft[part]), view(out), ("BF16", "BF16"), first, 33, each, by_row)
    expected = torch.cat([fuse(base[i : i + 1], sft[i : i + 1], per_element[i], out.dtype) for i in range(70 * 33)])
    assert np.array_equal(bits(out), bits(expected[part]))


def run(tmp_path: Path, name: str, alpha: float = 0.4, workers: int = 1, **plan: object) -> dict:
    made = plan_fusion(str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig(alpha))
    return apply(made, tmp_path / name, shards=write.local(workers))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Many pieces from few elements; compiled or not, as it is called with."""
    monkeypatch.setattr(pieces, "ELEMENTS", 100)
    monkeypatch.setattr(stream, "_RUN_BYTES", 700)
    monkeypatch.setattr(combine, "_CHUNK_ELEMENTS", 30)
    found = combine.kernel
    return lambda compiled: monkeypatch.setattr(combine, "kernel", found if compiled else lambda: None)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("base_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_files_are_the_same_either_way(tmp_path: Path, small: Callable, base_dtype: torch.dtype, alpha: float) -> None:
    save_model(tmp_path / "base", 0, dtype=base_dtype, max_shard_size="30KB")
    save_model(tmp_path / "sft", 1)
    for side in ("base", "sft"):
        file = next(iter(sorted((tmp_path / side).glob("*.safetensors"))))
        if side == "sft":
            tensors = weights(tmp_path / side)
            tensors["model.norm.weight"][:6] = torch.tensor([-0.0, float("nan"), float("inf"), 1e-40, 0.0, -1e-39])
            set_weights(tmp_path / side, tensors)
        assert file.exists()
    records = []
    for compiled in (False, True):
        small(compiled)
        records.append(run(tmp_path, f"out{compiled}", alpha))
    assert records[0]["outputs"] == records[1]["outputs"]
    assert (tmp_path / "outTrue" / SINGLE).read_bytes() == (tmp_path / "outFalse" / SINGLE).read_bytes()


def test_workers_change_nothing_but_the_time(tmp_path: Path, small: Callable) -> None:
    make_pair(tmp_path, max_shard_size="20KB")
    small(True)
    records = [run(tmp_path, f"out{workers}", workers=workers) for workers in (1, 2, 7)]
    for record in records:
        del record["created"], record["seconds"]
    assert json.dumps(records[0]) == json.dumps(records[1]) == json.dumps(records[2])


def test_a_failure_in_a_thread_ends_the_run(tmp_path: Path, small: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pair(tmp_path)
    small(True)
    real, calls = stream.read_exactly, []

    def fail(*args: object) -> memoryview:
        calls.append(1)
        if len(calls) == 40:
            raise OSError("in a thread")
        return real(*args)

    monkeypatch.setattr(stream, "read_exactly", fail)
    with pytest.raises(OSError, match="in a thread"):
        run(tmp_path, "out", workers=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "sft"]
