"""Starts in fresh processes: from files to the first answer, cold and warm, and peak memory.

    python -m striate.race.starts ENGINE NETWORK BATCH THREADS ALGORITHM FILES KEPT

is the fresh process; it prints one JSON object. Files are in the system's cache in either case:
"cold" means that nothing is compiled yet, "warm" that the engine finds what it kept of the time
before (our compiled network in a file, OpenVINO's model cache; the others keep nothing).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from striate.compiler.cache import ENVIRONMENT
from striate.race.cases import Case, UnavailableError

_PROCESS_SECONDS = 600.0
_WARM = 2


@dataclass(frozen=True, slots=True)
class Start:
    """One process: seconds from files to the first answer and of a later call; peak memory."""

    first_answer: float
    call: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Starts:
    """A cold start, and the least of some warm ones; or the problem that there was."""

    case: Case
    engine: str
    cold: Start | None = None
    warm: Start | None = None
    problem: str = ""


def measure(case: Case, engine: str, algorithm: str, files: Path) -> Starts:
    """A cold start of `engine` in a process of its own, then warm ones; its files must be there."""
    with tempfile.TemporaryDirectory(prefix="striate-start-") as kept:
        try:
            cold, *warm = (_process(case, engine, algorithm, files, kept) for _ in range(1 + _WARM))
        except UnavailableError as error:
            return Starts(case, engine, problem=str(error))
    return Starts(case, engine, cold, min(warm, key=lambda start: start.first_answer))


def _process(case: Case, engine: str, algorithm: str, files: Path, kept: str) -> Start:
    given = [engine, case.network, case.batch, case.threads, algorithm, files, kept]
    command = [sys.executable, "-m", "striate.race.starts", *map(str, given)]
    environment = os.environ | {ENVIRONMENT: kept}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROCESS_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"no answer within {_PROCESS_SECONDS:.0f} s") from None
    if done.returncode:
        raise UnavailableError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return Start(**json.loads(done.stdout.splitlines()[-1]))


def start_here(case: Case, engine: str, algorithm: str, files: Path, kept: Path) -> Start:
    """Load and run `case` in this process, which must be a new one."""
    import numpy  # noqa: F401  no engine's time

    from striate.race.engines import find
    from striate.race.files import Files

    folder = Files(files)
    adapter = find(engine, algorithm)
    began = time.perf_counter()
    run = adapter.load(folder, case, kept)
    run()
    first = time.perf_counter()
    run()
    start = Start(first - began, time.perf_counter() - first, peak_bytes())
    adapter.keep(folder, case, kept)
    return start


def peak_bytes() -> int:
    """The most memory that this process has held (resident, bytes)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main(engine: str, network: str, batch: str, threads: str, *rest: str) -> None:
    """The fresh process."""
    algorithm, files, kept = rest
    case = Case(network, int(batch), int(threads))
    print(json.dumps(asdict(start_here(case, engine, algorithm, Path(files), Path(kept)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
