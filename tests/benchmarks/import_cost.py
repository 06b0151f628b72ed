# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""CPU time that the plugin adds to ``import verl``: python tests/benchmarks/import_cost.py [pairs]

Fresh processes with and without our entry points, alternating; prints the median of the paired ratios and their spread.
"""

import os
import resource
import statistics
import subprocess
import sys


def cpu_seconds(plugins: str) -> float:
    env = {
        **os.environ,
        "VERL_USE_EXTERNAL_PLUGINS": plugins,
        "VERL_PLATFORM": "cpu" if plugins == "auto" else "nvidia",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import verl"], env=env, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    cpu_seconds("none")  # fill the page cache
    added, without = [], []
    for _ in range(pairs):
        plain, plugged = cpu_seconds("none"), cpu_seconds("auto")
        without.append(plain)
        added.append(plugged / plain - 1)
    print(
        f"import verl: {statistics.median(without):.2f} s CPU without; with both entry points "
        f"{100 * statistics.median(added):+.1f} % (median of {pairs} pairs, range "
        f"{100 * min(added):+.1f} to {100 * max(added):+.1f} %)"
    )


if __name__ == "__main__":
    main()
