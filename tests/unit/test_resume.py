# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Going on where a killed run was; and several processes with one output."""

import collections
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import edit_json, make_pair, snapshot

import rejuv_plugin
from rejuv_plugin.checkpoint import apply, materialise, plan_fusion, write
from rejuv_plugin.checkpoint.journal import JOURNAL
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    make_pair(tmp_path, max_shard_size="9KB")
    return tmp_path


def plan(pair: Path, alpha: float = 0.4):
    return plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig(alpha))


def start(pair: Path, call: str, on_progress: str, ready: int = 1) -> subprocess.Popen:
    """Another process that makes ``call``; ``on_progress`` is the body of its progress callback."""
    script = f"""
import json, os, signal, sys, time
from pathlib import Path
from rejuv_plugin.checkpoint import apply, materialise, plan_fusion
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError
pair, wrote = Path(sys.argv[1]), []
def progress(phase, done, total):
    wrote.append(phase)
    {on_progress}
plan = plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig(float(sys.argv[2])))
(pair / f"ready-{{os.getpid()}}").touch()
while len(list(pair.glob("ready-*"))) < {ready}:
    time.sleep(0.01)
try:
    {call}
    print(json.dumps("write" in wrote))
except InputError as error:
    print(json.dumps(str(error)))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(rejuv_plugin.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(pair), "0.4"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def killed(pair: Path, into: str = "out") -> Path:
    """What a run that was killed left; below ``cache`` by `materialise`."""
    # A fork, as a new process would take seconds to import torch.
    child = os.fork()
    if child == 0:

        def die(phase: str, done: int, total: int) -> None:
            if phase == "write" and done > 0.7 * total:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            make = materialise if into == "cache" else apply
            make(plan(pair), pair / into, progress=die)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (left,) = [path for path in pair.rglob("*.tmp-*") if path.is_dir()]
    return left


def outputs(pair: Path) -> list[str]:
    return sorted(path.name for path in pair.iterdir() if path.name not in ("base", "sft"))


def files(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in directory.glob("*.safetensors")}


def test_finished_files_are_kept_and_the_rest_is_written(pair: Path) -> None:
    left = killed(pair)
    done = [json.loads(line)["file"] for line in (left / JOURNAL).read_text().splitlines()[1:]]
    assert 0 < len(done) < len(list((pair / "sft").glob("*.safetensors")))
    before = files(left)
    record = apply(plan(pair), pair / "out", resume=True)
    after = files(pair / "out")
    assert all(after[file] == before[file] for file in done), "a finished file was written again"
    assert outputs(pair) == ["out"]

    whole = apply(plan(pair), pair / "whole")
    assert snapshot(pair / "whole").keys() == snapshot(pair / "out").keys()
    for entry in ("outputs", "inputs", "drift_from_base", "key"):
        assert record[entry] == whole[entry]
    assert {name: data for name, (_, data) in after.items()} == {n: d for n, (_, d) in files(pair / "whole").items()}


def test_without_the_flag_everything_is_done_again(pair: Path) -> None:
    killed(pair)
    called = []
    apply(plan(pair), pair / "out", progress=lambda phase, done, total: called.append(done))
    assert called[0] < min(path.stat().st_size for path in (pair / "sft").glob("*.safetensors"))
    assert outputs(pair) == ["out"]


def test_a_finished_file_that_changed_is_written_again(pair: Path) -> None:
    left = killed(pair)
    file = json.loads((left / JOURNAL).read_text().splitlines()[1])["file"]
    for damage in (lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[:-1], lambda data: b""):
        shutil.copytree(left, pair / "kept")
        (left / file).write_bytes(damage((left / file).read_bytes()))
        apply(plan(pair), pair / "out", resume=True)
        (pair / "out").rename(pair / "first") if not (pair / "first").exists() else shutil.rmtree(pair / "out")
        (pair / "kept").rename(left)
    apply(plan(pair), pair / "whole")
    assert {n: d for n, (_, d) in files(pair / "first").items()} == {
        n: d for n, (_, d) in files(pair / "whole").items()
    }


@pytest.mark.parametrize("change", ["alpha", "config", "weights"])
def test_another_plan_does_not_go_on(pair: Path, change: str) -> None:
    killed(pair)
    if change == "config":
        edit_json(pair / "sft" / "config.json", rope_theta=1.0)
    if change == "weights":
        os.utime(sorted((pair / "base").glob("*.safetensors"))[0], ns=(0, 0))
    called = []
    real = write.write_weights

    def spy(*arguments):
        called.append(arguments[1])
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "write_weights", spy)
        apply(plan(pair, 0.5 if change == "alpha" else 0.4), pair / "out", resume=True)
    assert called == sorted(path.name for path in (pair / "sft").glob("*.safetensors"))
    assert outputs(pair) == ["out"]


@pytest.mark.parametrize("cut", [0, 1, 40, -1, -20])
def test_a_journal_that_was_cut_short(pair: Path, cut: int) -> None:
    left = killed(pair)
    journal = (left / JOURNAL).read_bytes()
    (left / JOURNAL).write_bytes(journal[:cut])
    apply(plan(pair), pair / "out", resume=True)
    apply(plan(pair), pair / "whole")
    assert {n: d for n, (_, d) in files(pair / "out").items()} == {n: d for n, (_, d) in files(pair / "whole").items()}
    assert outputs(pair) == ["out", "whole"]


@pytest.mark.parametrize(
    "line", ["{}", "[]", "7", '{"file": "../x", "output": "", "sft": ""}', '{"file": 1}', "{" * 9999]
)
def test_a_journal_with_a_line_that_is_none(pair: Path, line: str) -> None:
    left = killed(pair)
    lines = (left / JOURNAL).read_text().splitlines(keepends=True)
    (left / JOURNAL).write_text("".join([*lines[:2], line + "\n", *lines[2:]]))
    apply(plan(pair), pair / "out", resume=True)
    assert outputs(pair) == ["out"]


def test_a_death_before_the_journal_is_begun_anew_loses_nothing(pair: Path) -> None:
    left = killed(pair)
    done, before = (left / JOURNAL).read_bytes(), files(left)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The first thing that is written is the journal, and no file may have more bytes than these.
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            apply(plan(pair), pair / "out", resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (left,) = pair.glob("out.tmp-*")
    assert (left / JOURNAL).read_bytes() == done
    apply(plan(pair), pair / "out", resume=True)
    names = [json.loads(line)["file"] for line in done.splitlines()[1:]]
    assert all(files(pair / "out")[name] == before[name] for name in names)


def test_the_cache_goes_on_by_itself(pair: Path) -> None:
    left = killed(pair, "cache")
    before = files(left)
    done = [json.loads(line)["file"] for line in (left / JOURNAL).read_text().splitlines()[1:]]
    result = materialise(plan(pair), pair / "cache")
    assert not result.cached
    assert all(files(result.path)[file] == before[file] for file in done)
    assert [path for path in (pair / "cache").iterdir() if not path.name.startswith(".")] == [result.path]


# The second: of torch without memory, and what Ray's of a node that is gone is, too.
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("Input/output error")], ids=repr)
@pytest.mark.parametrize("resume", [True, False])
def test_a_failure_of_the_system_keeps_the_work_if_asked(pair: Path, resume: bool, error: Exception) -> None:
    def fail(phase: str, done: int, total: int) -> None:
        if done > 0.7 * total:
            raise error

    with pytest.raises(type(error), match="Input/output"):
        apply(plan(pair), pair / "out", progress=fail, resume=resume)
    assert len(outputs(pair)) == int(resume)
    apply(plan(pair), pair / "out", resume=True)
    assert outputs(pair) == ["out"]


def test_of_three_processes_with_one_output_one_works(pair: Path) -> None:
    processes = [start(pair, "apply(plan, pair / 'out', progress=progress)", "time.sleep(0.05)", 3) for _ in range(3)]
    results = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert sorted(results) == [False, False, True]
    assert [name for name in outputs(pair) if not name.startswith("ready")] == ["out"]


def test_who_waited_does_not_take_something_else(pair: Path) -> None:
    other = start(pair, "apply(plan, pair / 'out', progress=progress)", "time.sleep(0.1)")
    while not (pair / ".out.lock").exists():
        assert other.poll() is None
    with pytest.raises(
        InputError, match=r"^--output: expected a new .* or what this run would make, got .* something else"
    ):
        apply(plan(pair, 0.5), pair / "out")
    assert json.loads(other.communicate(timeout=120)[0]) is True


def test_looking_at_an_output_removes_nothing(pair: Path) -> None:
    """The command looks before it has the neurons to reset: the plan by then is not that of the run that was killed."""
    left = killed(pair)
    before = files(left)
    for resume in (True, False):
        write.prepare(plan(pair, 0.5), pair / "out", "--output", resume)
        assert files(left) == before


def test_what_other_runs_left_is_no_reason_for_no_space(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(pair)
    free = made.output_bytes + (4 << 20) - (200 << 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: collections.namedtuple("usage", "free")(free))
    with pytest.raises(InputError, match=r"^--output: expected \d+ bytes free"):
        write.prepare(made, pair / "out", "--output")
    other = pair / "out.tmp-elsewhere-1"
    other.mkdir()
    (other / "model.safetensors").write_bytes(bytes(300 << 10))
    write.prepare(made, pair / "out", "--output")


def test_what_was_finished_is_not_done_again(pair: Path) -> None:
    record = apply(plan(pair), pair / "out")
    before = files(pair / "out")
    assert apply(plan(pair), pair / "out", resume=True) == record
    assert files(pair / "out") == before
    with pytest.raises(InputError, match=r"^--output: .* something else in it"):
        apply(plan(pair, 0.5), pair / "out", resume=True)
    with pytest.raises(InputError, match=r"^--output: .* not empty"):
        apply(plan(pair), pair / "out")


def test_what_was_finished_is_looked_at_with_progress(pair: Path) -> None:
    apply(plan(pair), pair / "out")
    called = []
    apply(plan(pair), pair / "out", resume=True, progress=lambda *told: called.append(told))
    assert {phase for phase, _, _ in called} == {"hash"}
    assert called[-1][1] == called[-1][2] > 0


def test_a_manifest_that_is_nested_without_end_is_something_else(pair: Path) -> None:
    apply(plan(pair), pair / "out")
    (pair / "out" / "rejuvenation.json").write_text("[" * 99999)
    with pytest.raises(InputError, match=r"^--output: .* something else in it"):
        apply(plan(pair), pair / "out", resume=True)


def test_a_finished_output_that_was_cut_is_no_success(pair: Path) -> None:
    apply(plan(pair), pair / "out")
    weights = next((pair / "out").glob("*.safetensors"))
    os.truncate(weights, 1000)
    with pytest.raises(InputError, match=rf"^--output: .*{weights.name} of another size"):
        apply(plan(pair), pair / "out", resume=True)
    weights.unlink()
    with pytest.raises(InputError, match=rf"^--output: .*no {weights.name}"):
        apply(plan(pair), pair / "out", resume=True)


def test_a_file_of_the_output_is_never_emptied(pair: Path) -> None:
    """Under Ray a task that was only thought lost may open a file that another has finished, and be killed then."""
    made = plan(pair)
    apply(made, pair / "out")
    file = sorted((pair / "out").glob("*.safetensors"))[0]
    before = file.read_bytes()
    with write._unfinished(file):
        assert file.read_bytes() == before
