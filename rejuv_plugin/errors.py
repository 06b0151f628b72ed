# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Errors a user can act on: what was expected, what was found, and how to fix it."""


class InputError(ValueError):
    """Bad input, found before anything was written.

    The message is always one line, ``<key>: expected X, got Y. Fix: Z.``, where ``key`` is a dotted configuration key,
    a command-line option, a file or a tensor name. The command line exits with code 2 on it.

    The four parts are kept as attributes, and the error survives pickling (Ray carries it between processes).
    """

    def __init__(self, key: str, expected: str, got: str, fix: str) -> None:
        self.key, self.expected, self.got, self.fix = key, expected, got, fix
        message = f"{key}: expected {expected}, got {got}. Fix: {fix.rstrip('.')}."
        # Names of files and tensors may have line breaks in them, and come from elsewhere.
        super().__init__(" ".join(message.splitlines()))

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str, str]]:
        return type(self), (self.key, self.expected, self.got, self.fix)


def not_readable(key: str, path: object) -> InputError:
    """For a file that is there and may not be opened: nothing is wrong with what is in it."""
    return InputError(key, f"{path} to be readable", "no permission", "have it made readable")


def one_line(error: object, most: int = 200) -> str:
    """The beginning of what another library says, in at most ``most`` letters, without line breaks."""
    return " ".join(str(error).split())[:most]
