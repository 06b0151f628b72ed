# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What of a diagnosis or a tuning is kept in git: python keep.py metrics.json > results/diagnosis/seed2.json

Numbers and verdicts. Not kept: curves, values by layer and position, texts that the code repeats, this machine's paths.
"""

import json
import sys
from pathlib import Path

from study import rounded

LEFT_OUT = ("layers", "modules", "positions", "curves", "meaning", "healthy", "source", "advice")
PATHS = ("path", "file", "files", "calibration", "data", "prompts", "reward")


def kept(value: object, key: str = "") -> object:
    """The same without what is left out; of a path its last part."""
    if isinstance(value, dict):
        return {name: kept(each, name) for name, each in value.items() if name not in LEFT_OUT}
    if isinstance(value, list):
        return [kept(each, key) for each in value]
    return Path(value).name if isinstance(value, str) and key in PATHS else value


def main() -> None:
    print(json.dumps(rounded(kept(json.loads(Path(sys.argv[1]).read_text())))))


if __name__ == "__main__":
    main()
