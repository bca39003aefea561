"""How long from the shell to the first answer: `striate classify PHOTO`, cold and warm.

    python benchmarks/startup.py [TIMES]

Every start is a process of its own; they share a code cache that is empty at the first. How long a
network takes from its files to its first answer, beside other engines, is what `striate race` says.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "photos" / "coffee.png"
COMMAND = [sys.executable, "-c", "from striate.cli.main import run; run()", "classify", str(PHOTO)]


def seconds(cache: str) -> float:
    """One start, whose compiled code lies in the folder `cache`."""
    began = time.perf_counter()
    subprocess.run(
        COMMAND, env=os.environ | {"STRIATE_CACHE": cache}, stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - began


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as cache:
        cold = seconds(cache)
        warm = sorted(seconds(cache) for _ in range(times))
    print(f"striate classify: {cold:.2f} s cold, {warm[0]:.2f}-{warm[-1]:.2f} s warm")


if __name__ == "__main__":
    main()
