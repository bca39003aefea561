"""How many threads this process should use: what the scheduler and the container let it have."""

import math
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

ENVIRONMENT = "STRIATE_THREADS"
# One team has this many places at most.
MOST_THREADS = 1024


def default_threads(root: Path | None = None) -> int:
    """The number of threads to run on: STRIATE_THREADS if set, else the cores allowed.

    These are the cores of the affinity mask, but no more than the cgroup's quota of CPU time
    (rounded up), which is read once unless `root` says where to find /proc and /sys. Raises
    ValueError for a bad variable.
    """
    asked = os.environ.get(ENVIRONMENT, "").strip()
    if asked:
        if not asked.isdecimal() or not 1 <= int(asked) <= MOST_THREADS:
            raise ValueError(
                f"{ENVIRONMENT} is {asked!r}, expected a whole number from 1 to {MOST_THREADS}; "
                "unset it to use all allowed cores"
            )
        return int(asked)
    allowed = allowed_cores()
    quota = _process_quota() if root is None else cgroup_cores(root)
    if quota is not None:
        allowed = min(allowed, max(1, math.ceil(quota)))
    return min(allowed, MOST_THREADS)


def allowed_cores() -> int:
    """The cores that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def _process_quota() -> float | None:
    return cgroup_cores()


def cgroup_cores(root: Path = Path("/")) -> float | None:
    """The CPU quota (in cores) of this process's control group, or None without one.

    A group is also bound by the groups around it, so the least quota on the way up counts.
    """
    quotas = [quota for folder in _cpu_groups(root) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _cpu_groups(root: Path) -> Iterator[Path]:
    """The folders of this process's groups that may hold a CPU quota, innermost first.

    A line of /proc/self/cgroup is `number:controllers:path`; version 2 has number 0 and none. In a
    container the path may be the host's and not exist here; then the mount itself is the group.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            names = ["", "unified"]
        elif "cpu" in controllers.split(","):
            names = [controllers, "cpu"]
        else:
            continue
        for name in names:
            if (mounts / name).is_dir():
                parts = [part for part in path.split("/") if part not in ("", "..")]
                for depth in range(len(parts), -1, -1):
                    yield (mounts / name).joinpath(*parts[:depth])


def _quota(folder: Path) -> float | None:
    """The quota in cores that `folder` sets, in the words of version 2 or 1."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None
