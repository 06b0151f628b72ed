# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One rejuvenated checkpoint, all or nothing: written beside its place, flushed to the disk, then renamed."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError
from .compatible import same_checkpoint
from .digest import digest_bytes, identity
from .journal import JOURNAL, Journal, claimed, verified
from .layout import MANIFEST
from .locks import locked
from .plan import Plan
from .progress import Progress
from .provenance import Inputs, check_distinct, content_key, inputs_of, looks_like_one, manifest, read_inputs
from .small_file import read_json
from .stream import Shard, write_weights
from .target import check_output
from .temporary import abandoned, all_or_nothing, durable, flush, named, remove
from .valid import read_valid
from .write_back import begin_flush, reserve

_FLUSH_BYTES = 32 << 20

# Writes weight files of a plan to a directory, durably, and yields each as it is finished, in any order. The last
# argument is called with the bytes written since the last call.
ShardWriter = Callable[[Plan, Sequence[str], Path, Callable[[int], None]], Iterator[Shard]]


def apply(
    plan: Plan,
    output: Path,
    *,
    inputs: Inputs | None = None,
    key: str = "--output",
    progress: Progress | None = None,
    resume: bool = False,
    shards: ShardWriter | None = None,
) -> dict[str, Any]:
    """Write the rejuvenated checkpoint ``plan`` describes to the directory ``output``.

    A reader sees nothing at ``output``, or all of it. A run that raises leaves nothing behind; one that is killed
    leaves ``<output>.tmp-<host>-<pid>``, which the next run on that host removes, or goes on with, and the lock file
    ``.<output>.lock``. Of several processes with one ``output`` one works; the others wait and then use what it made,
    if it is what they would make.

    Args:
        plan: from `plan_fusion`.
        output: a new or empty directory; its parents are created.
        inputs: from `provenance.read_inputs`, for inputs that are hashed already; otherwise they are hashed as they
            are read.
        key: how errors name ``output``: a command-line option or a configuration key.
        progress: called with ``("hash" or "write", bytes done, bytes in all)``.
        resume: go on with what a killed run of the same plan left: its finished files are read and compared with its
            journal, the others written. A run that fails for the system's reasons then also leaves what it did. One
            that had finished is left as it is.
        shards: how the weight files are written; default `local` with all cores.

    Returns:
        The manifest, as written to ``rejuvenation.json``; its fields: `provenance.manifest`.

    Raises:
        InputError: base and SFT are the same weights, or ``output`` cannot be written; see `target.check_output`.
        OSError: an input cannot be read, or changed meanwhile.
    """
    prepare(plan, output, key, resume)
    output = output.resolve()
    with named(output, key):
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = output.with_name(f".{output.name}.lock")
        with locked(lock, key, output, needed=False, leave=False) as waited:
            if (waited or resume) and output.is_dir() and any(output.iterdir()):
                return _made_before(plan, inputs, output, key, progress)
            return write(plan, inputs, output, key=key, progress=progress, resume=resume, shards=shards)


def prepare(plan: Plan, output: Path, key: str, resume: bool = False) -> None:
    """What `apply` does first: check ``output``; for callers with long work to do before they apply.

    Nothing is removed here, without the lock, and perhaps without the neurons that ``plan`` will reset. What other runs
    have written of ``output`` takes no room from this one: it is removed, gone on with, or used.
    """
    output = output.resolve()
    if resume and (output / MANIFEST).is_file():
        # Finished by then; `apply` looks whether it is what it would make.
        return
    check_output(plan, output, key, done=sum(map(_size, abandoned(output, alone=True))))


def write(
    plan: Plan,
    inputs: Inputs | None,
    output: Path,
    *,
    key: str,
    progress: Progress | None,
    alone: bool = False,
    resume: bool = False,
    shards: ShardWriter | None = None,
) -> dict[str, Any]:
    """As `apply`, for a caller that keeps this host's other writers of ``output`` out.

    Args:
        alone: whether it holds a lock that keeps out those of all hosts.
    """
    output = output.resolve()
    adopted = _to_resume(plan, output, alone) if resume else None
    # Before the check: what they left takes the room that it asks for.
    remove([path for path in abandoned(output, alone) if path != adopted])
    done = claimed(adopted, plan) if adopted else {}
    check_output(plan, output, key, done=sum(plan.layout.headers[file].size for file in done))
    if inputs is None and looks_like_one(plan):
        # Rather a second look at the inputs than an error after the work.
        inputs = read_inputs(plan, progress=progress)
    with all_or_nothing(output, key, adopted, keep=resume) as directory:
        return _fill(directory, plan, inputs, progress, shards or local(workers()))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers() -> int:
    """Threads to use when nobody says how many: the cores that this process may use, at most 8."""
    return min(8, cores())


def local(count: int) -> ShardWriter:
    """Write weight files in this process, one after the other, each by ``count`` threads."""

    def write_all(plan: Plan, files: Sequence[str], directory: Path, advance: Callable[[int], None]) -> Iterator[Shard]:
        # The disk takes what is written while the next pieces, and the next file, are fused.
        with ThreadPoolExecutor(1, thread_name_prefix="rejuvenation-flush") as flusher:
            flushing: tuple[Shard, Future[None]] | None = None
            for file in files:
                path = directory / file
                with _unfinished(path) as target:
                    reserve(target.fileno(), plan.layout.headers[file].size)
                    shard = write_weights(plan, file, target, _flushed(path, advance, flusher), count)
                if flushing:
                    flushing[1].result()
                    yield flushing[0]
                flushing = shard, flusher.submit(flush, path)
            if flushing:
                flushing[1].result()
                yield flushing[0]

    return write_all


def _unfinished(path: Path) -> BinaryIO:
    """A file to write, not emptied: under Ray, a task that was only thought lost may come after another has finished
    the file, and writes the very same bytes."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb")


def _flushed(path: Path, advance: Callable[[int], None], flusher: ThreadPoolExecutor) -> Callable[[int], None]:
    """``advance``, with the disk told to begin with the bytes that it counts."""
    begun = written = 0

    def advance_and_flush(count: int) -> None:
        nonlocal begun, written
        advance(count)
        written += count
        if written - begun >= _FLUSH_BYTES:
            flusher.submit(begin_flush, path, begun, written - begun)
            begun = written

    return advance_and_flush


def _fill(
    directory: Path, plan: Plan, inputs: Inputs | None, progress: Progress | None, shards: ShardWriter
) -> dict[str, Any]:
    began, done, total = time.monotonic(), 0, plan.output_bytes

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress("write", done, total)

    before = {path: identity(path) for path in plan.input_paths}
    finished = verified(directory, plan)
    # The journal too: without it a run that is killed now would leave nothing to go on with.
    _clear(directory, keep={JOURNAL, *finished})
    advance(sum(plan.layout.headers[file].size for file in finished))
    journal = Journal(directory, plan, finished)
    # Before the weights: one that cannot be read must not cost the work.
    side_files = dict(_copied(plan, directory, advance))
    todo = [file for file in plan.layout.headers if file not in finished]
    for shard in shards(plan, todo, directory, advance):
        journal.add(shard)
        finished[shard.file] = shard
    parts = [finished[file] for file in plan.layout.headers]
    # Sharded another way, equal checkpoints have unequal files; only now is it known.
    if not any(drift.moved for shard in parts for drift in shard.drift_sft.values()):
        raise _nothing_moved(plan)
    digests = {shard.file: shard.output for shard in parts} | side_files
    read = inputs_of(plan, parts, digests)
    changed = [path for path, was in before.items() if identity(path) != was]
    if inputs is not None:
        # Else the content key, which other runs find this output by, would be that of other content.
        changed += [plan.base.root / file for file in read.base if inputs.base[file] != read.base[file]]
        changed += [plan.sft_paths[file] for file in read.sft if inputs.sft[file] != read.sft[file]]
    if changed:
        raise OSError(f"{changed[0]} changed while it was read")
    check_distinct(plan, read)
    record = manifest(plan, read, digests, parts, time.monotonic() - began)
    with durable(directory / MANIFEST) as target:
        target.write(json.dumps(record, indent=2, allow_nan=False).encode() + b"\n")
    journal.remove()
    return record


def _copied(plan: Plan, directory: Path, advance: Callable[[int], None]) -> Iterator[tuple[str, str]]:
    """Copy the side files; yields the name and the digest of each."""
    for name, source in plan.side_files.items():
        data = source.read_bytes()
        (directory / name).parent.mkdir(exist_ok=True)
        with durable(directory / name) as target:
            target.write(data)
        advance(len(data))
        yield name, digest_bytes(data)


def _size(directory: Path) -> int:
    """Bytes that a directory takes on the disk; 0 if it disappears meanwhile."""
    with suppress(OSError):
        return sum(path.stat().st_blocks * 512 for path in directory.iterdir())
    return 0


def _clear(directory: Path, keep: set[str]) -> None:
    """Remove what a killed run left unfinished in its directory."""
    for path in directory.iterdir():
        if path.is_dir():
            remove([path])
        elif path.name not in keep:
            path.unlink()


def _to_resume(plan: Plan, output: Path, alone: bool) -> Path | None:
    """Of what killed runs left, the one that got furthest with this very plan."""
    found = {path: claimed(path, plan) for path in abandoned(output, alone) if (path / JOURNAL).is_file()}
    return max((path for path in found if found[path]), key=lambda path: len(found[path]), default=None)


def _nothing_moved(plan: Plan) -> InputError:
    if any(copied.why == "left out" for copied in plan.copied):
        return InputError(
            plan.sft.key,
            "other weights than the base's in the tensors that are fused",
            f"the base's in all {len(plan.fused)}",
            "leave in some that SFT has changed",
        )
    return same_checkpoint(plan.base, f"{plan.base.root}, which has the weights of {plan.sft.key}")


def _made_before(
    plan: Plan, inputs: Inputs | None, output: Path, key: str, progress: Progress | None
) -> dict[str, Any]:
    """The manifest of what another process has made, if it is what this one would make."""
    try:
        found = read_json(output / MANIFEST)["key"]
    except (OSError, ValueError, LookupError, TypeError):
        found = None
    address = content_key(plan, inputs or read_inputs(plan, progress=progress))
    if found != address:
        raise InputError(
            key,
            "a new or empty directory, or what this run would make",
            f"{output}, which has something else in it",
            "give another directory",
        )
    return read_valid(output, address, key)
