# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The cache: one directory per content, one worker however many ask, and whole or absent whatever is killed."""

import collections
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import SINGLE, copy, edit_json, make_pair, snapshot

import rejuv_plugin
from rejuv_plugin.checkpoint import Materialised, check_cache, materialise, plan_fusion
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    make_pair(tmp_path)
    return tmp_path


def run(pair: Path, alpha: float = 0.5, sft: str = "sft", **options) -> Materialised:
    return materialise(plan_fusion(str(pair / "base"), str(pair / sft), FusionConfig(alpha)), pair / "cache", **options)


def start(pair: Path, on_progress: str) -> subprocess.Popen:
    """`run` in another process, which prints ``cached``; ``on_progress`` is the body of its progress callback."""
    script = f"""
import json, os, signal, sys, time
from pathlib import Path
from rejuv_plugin.checkpoint import materialise, plan_fusion
from rejuv_plugin.config import FusionConfig
pair, phases = Path(sys.argv[1]), set()
def progress(phase, done, total):
    phases.add(phase)
    {on_progress}
plan = plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig(0.5))
(pair / f"ready-{{os.getpid()}}").touch()
while len(list(pair.glob("ready-*"))) < int(sys.argv[2]):
    time.sleep(0.01)
result = materialise(plan, pair / "cache", progress=progress)
print(json.dumps([str(result.path), result.cached, sorted(phases)]))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(rejuv_plugin.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    count = "1" if "SIGKILL" in on_progress else "3"
    command = [sys.executable, "-c", script, str(pair), count]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def visible(pair: Path) -> list[str]:
    """What a user sees in the cache: the rest is locks and the memo, in hidden files."""
    return sorted(path.name for path in (pair / "cache").iterdir() if not path.name.startswith("."))


def test_the_second_call_finds_the_first_ones_work(pair: Path) -> None:
    phases: list[str] = []
    first = run(pair)
    second = run(pair, progress=lambda phase, done, total: phases.append(phase))
    assert (first.cached, second.cached) == (False, True)
    assert first.path == second.path == (pair / "cache" / f"sft-{first.manifest['key'][:16]}").resolve()
    assert first.manifest == second.manifest
    assert phases == [], "inputs were hashed again although they had not changed"
    assert visible(pair) == [first.path.name]


def test_every_input_is_part_of_the_address(pair: Path) -> None:
    paths = [run(pair).path, run(pair, 0.4).path]
    edit_json(pair / "sft" / "config.json", rope_theta=1.0)
    paths.append(run(pair).path)
    for side in ("base", "sft"):
        data = bytearray((pair / side / SINGLE).read_bytes())
        data[-1] ^= 1
        (pair / side / SINGLE).write_bytes(data)
        paths.append(run(pair).path)
    assert len(set(paths)) == 5
    assert len(visible(pair)) == 5


def test_the_address_does_not_depend_on_paths_or_times(pair: Path) -> None:
    key = run(pair).manifest["key"]
    copy(pair / "sft", pair / "elsewhere")
    shutil.rmtree(pair / "cache")
    other = run(pair, sft="elsewhere")
    assert other.manifest["key"] == key
    assert other.path.name == f"elsewhere-{key[:16]}"


def test_of_three_processes_one_works(pair: Path) -> None:
    # Each dawdles, so that the others do arrive while it is at work.
    processes = [start(pair, "time.sleep(0.05 if phase == 'hash' else 0.005)") for _ in range(3)]
    results = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert len({path for path, _, _ in results}) == 1
    assert sorted(cached for _, cached, _ in results) == [False, True, True]
    assert sum("write" in phases for _, _, phases in results) == 1
    assert sum("hash" in phases for _, _, phases in results) == 1
    assert visible(pair) == [Path(results[0][0]).name]


def test_a_killed_writer_leaves_no_result_and_the_next_run_completes(pair: Path) -> None:
    process = start(pair, "os.kill(os.getpid(), signal.SIGKILL) if phase == 'write' and done > total / 2 else None")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    (abandoned,) = visible(pair)
    assert abandoned.endswith(str(process.pid))
    assert not (pair / "cache" / abandoned / "rejuvenation.json").exists()

    result = run(pair)
    assert not result.cached
    assert visible(pair) == [result.path.name], "what the killed run left was not removed"


def test_what_any_host_left_is_removed_under_the_lock(pair: Path) -> None:
    name = run(pair).path.name
    shutil.rmtree(pair / "cache" / name)
    # The lock keeps every writer out, so these have ended, also those whose number a running process has by now.
    pids = {"another-host": 1, os.uname().nodename: os.getppid()}
    for other in (f"{name}.tmp-{host}-{pid}" for host, pid in (*pids.items(), (os.uname().nodename, os.getpid()))):
        (pair / "cache" / other).mkdir()
    of_another_output = f"{name[:-1]}x.tmp-another-host-1"
    (pair / "cache" / of_another_output).mkdir()
    run(pair)
    assert visible(pair) == sorted([name, of_another_output])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: (path / SINGLE).write_bytes(b"short"), f"{SINGLE} of another size"),
        (lambda path: (path / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda path: (path / "rejuvenation.json").unlink(), "no rejuvenation.json"),
        (lambda path: (path / "rejuvenation.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "rejuvenation.json").write_text("[]"), "cannot be read"),
        (lambda path: (path / "rejuvenation.json").write_text("[" * 99999), "cannot be read"),
        (lambda path: edit_json(path / "rejuvenation.json", key="0" * 64), "of something else"),
        (lambda path: edit_json(path / "rejuvenation.json", format=0), "of something else"),
    ],
)
def test_a_damaged_entry_is_refused_and_kept(pair: Path, damage, says: str) -> None:
    path = run(pair).path
    damage(path)
    before = snapshot(path)
    with pytest.raises(InputError) as caught:
        run(pair)
    assert str(caught.value).startswith("rejuvenation.cache_dir: ")
    assert says in str(caught.value)
    assert f"Fix: remove {path}" in str(caught.value)
    assert snapshot(path) == before


def test_a_cache_below_a_file(pair: Path) -> None:
    (pair / "cache").write_text("x")
    before = snapshot(pair)
    with pytest.raises(InputError, match=r"^rejuvenation.cache_dir: .*which is a file"):
        run(pair)
    assert snapshot(pair) == before


def test_a_cache_that_is_not_writable(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    before = snapshot(pair)
    with pytest.raises(InputError, match=r"^rejuvenation.cache_dir: .*not writable"):
        run(pair)
    assert snapshot(pair) == before


@pytest.mark.parametrize("cache", ["base", "sft/cache"])
def test_a_cache_in_an_input(pair: Path, cache: str) -> None:
    (pair / "cache").symlink_to(pair / cache)
    before = snapshot(pair)
    with pytest.raises(InputError, match=r"^rejuvenation.cache_dir: expected a place outside of --"):
        run(pair)
    assert snapshot(pair) == before


def test_base_is_sft_by_content(pair: Path) -> None:
    copy(pair / "base", pair / "twin")
    with pytest.raises(InputError, match=r"^--base: .*byte for byte"):
        run(pair, sft="twin")
    assert visible(pair) == []


def test_no_space_in_the_cache(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: collections.namedtuple("usage", "free")(5))
    before = snapshot(pair)
    with pytest.raises(InputError, match=r"^rejuvenation.cache_dir: .* bytes free at .*got 5 bytes.* Fix: free some"):
        run(pair, progress=lambda *call: pytest.fail("inputs were hashed first"))
    assert snapshot(pair) == before


def test_what_is_made_already_needs_no_space(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(pair)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: collections.namedtuple("usage", "free")(5))
    assert run(pair).cached
    made = visible(pair)
    with pytest.raises(InputError, match=r"^rejuvenation.cache_dir: .* bytes free at "):
        run(pair, alpha=0.4)
    assert visible(pair) == made


def test_what_a_killed_run_left_is_removed_before_space_is_asked_for(
    pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run(pair).path
    left = path.rename(path.with_name(f"{path.name}.tmp-another-host-1"))
    free = lambda _: collections.namedtuple("usage", "free")(5 if left.exists() else 1 << 40)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", free)
    assert not run(pair).cached


def test_a_check_alone_writes_and_hashes_nothing(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig())
    (pair / "file").touch()
    before = snapshot(pair)
    check_cache(plan, pair / "new" / "cache", "--cache")
    check_cache(plan, str(pair / "new"), "--cache")
    with pytest.raises(InputError, match=r"^--cache: expected a place outside of --sft"):
        check_cache(plan, pair / "sft" / "cache", "--cache")
    with pytest.raises(InputError, match=r"^--cache: .*which is a file"):
        check_cache(plan, pair / "file" / "cache", "--cache")
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    with pytest.raises(InputError, match=r"^--cache: .*not writable"):
        check_cache(plan, pair / "new", "--cache")
    assert snapshot(pair) == before


def test_the_caller_chooses_the_key(pair: Path) -> None:
    (pair / "cache").write_text("x")
    with pytest.raises(InputError, match=r"^--cache: "):
        run(pair, key="--cache")
