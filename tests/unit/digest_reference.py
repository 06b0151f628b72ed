# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The digest of a file, by its description and the plainest code."""

import json
from pathlib import Path

import xxhash

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def digest_reference(path: Path) -> str:
    """XXH3-128 of a file; of a weight file over the digests of its header and of 2 ** 18 elements at a time."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return xxhash.xxh3_128_hexdigest(data)
    start = 8 + int.from_bytes(data[:8], "little")
    entries = [entry for name, entry in json.loads(data[8:start]).items() if name != "__metadata__"]
    pieces = [data[:start]]
    for entry in sorted(entries, key=lambda entry: entry["data_offsets"]):
        first, last = entry["data_offsets"]
        # Of tensors that are not floating-point, 512 KiB at a time.
        step = 2**18 * WIDTHS[entry["dtype"]] if entry["dtype"] in WIDTHS else 2**19
        pieces += [data[start + i : start + min(i + step, last)] for i in range(first, last, step)]
    return xxhash.xxh3_128_hexdigest(b"".join(map(xxhash.xxh3_128_digest, pieces)))
