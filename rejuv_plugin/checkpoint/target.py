# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether an output can be written, asked before anything is."""

import os
import shutil
from pathlib import Path

from ..errors import InputError
from .plan import Plan

# The manifest and what a file system needs for directories and partial blocks.
_SLACK_BYTES = 4 << 20


def check_output(plan: Plan, output: Path, key: str, done: int = 0) -> None:
    """Check the directory ``output``, which need not exist yet; nothing is written.

    Args:
        plan: what will be written.
        output: where.
        key: how errors name it.
        done: bytes that are on its disk already, of a run to go on with.

    Raises:
        InputError: named ``key``; it has something in it, lies in an input, or its disk is full or not writable.
    """
    output = output.resolve()
    check_outside(plan, output, key)
    if output.exists() and not output.is_dir():
        raise InputError(key, "a directory", f"{output}, which is a file", "give another path")
    if output.is_dir() and any(output.iterdir()):
        raise not_empty(output, key)
    if os.path.ismount(output):
        # It is written beside its place, which here is another disk, and nothing can be renamed to a mount point.
        raise InputError(key, "a directory on a disk", f"{output}, where one is mounted", "give a directory below it")
    check_room(plan, check_writable(output.parent, key), key, done)


def check_room(plan: Plan, directory: Path, key: str, done: int = 0) -> None:
    """Check that the disk of ``directory``, which exists, has room for the output of ``plan`` but for ``done`` bytes.

    Raises:
        InputError: named ``key``.
    """
    needed, free = plan.output_bytes - done + _SLACK_BYTES, shutil.disk_usage(directory).free
    if free < needed:
        raise no_space(key, f"{needed} bytes free at {directory}", f"{free} bytes")


def check_outside(plan: Plan, directory: Path, key: str) -> None:
    """Refuse a directory, absolute and free of symbolic links, that is an input or lies in one."""
    for side in (plan.base, plan.sft):
        if directory.is_relative_to(side.root):
            raise InputError(
                key, f"a place outside of {side.key} ({side.root})", str(directory), "give another directory"
            )


def not_empty(output: Path, key: str) -> InputError:
    """The error for an output that would mix with what is there."""
    return InputError(key, "a new or empty directory", f"{output}, which is not empty", "give another or empty it")


def no_space(key: str, expected: str, got: str) -> InputError:
    """The error for a full disk."""
    return InputError(key, expected, got, f"free some space there or set {key} to a larger disk")


def check_new(path: Path, key: str, fix: str = "remove it, or give another path") -> None:
    """Check, before any work, that a file can be written to ``path``.

    Raises:
        InputError: named ``key``; something is there already, or its directory cannot be written.
    """
    if os.path.lexists(path):
        raise InputError(key, "a file that does not exist", f"{path}, which does", fix)
    check_writable(path.resolve().parent, key)


def check_writable(directory: Path, key: str) -> Path:
    """The nearest existing ancestor of ``directory`` (or itself), checked to be a directory we may write into."""
    ancestor = directory
    while not os.path.lexists(ancestor):
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise InputError(key, "a directory that can be written", f"{ancestor}, which is a file", f"set {key} elsewhere")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise InputError(
            key, "a directory that can be written", f"{ancestor}, which is not writable", f"set {key} elsewhere"
        )
    return ancestor
