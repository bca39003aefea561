"""How many threads: the environment, the affinity mask, the control group's quota."""

import os
from pathlib import Path

import pytest

from striate.runtime.cores import allowed_cores, cgroup_cores, default_threads


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIATE_THREADS", raising=False)


def test_version_2_takes_the_least_quota_on_the_way_up(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/user.slice/app\n")
    groups = tmp_path / "sys/fs/cgroup"
    write(groups / "user.slice/app/cpu.max", "max 100000\n")
    assert cgroup_cores(tmp_path) is None
    write(groups / "user.slice/cpu.max", "150000 100000\n")
    assert cgroup_cores(tmp_path) == 1.5
    write(groups / "user.slice/app/cpu.max", "50000 100000\n")
    assert cgroup_cores(tmp_path) == 0.5
    write(groups / "cpu.max", "20000 100000\n")
    assert cgroup_cores(tmp_path) == 0.2


def test_version_2_in_a_container_that_sees_the_hosts_path(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/../../kubepods/pod1\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "250000 100000\n")
    assert cgroup_cores(tmp_path) == 2.5


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_version_1(tmp_path: Path, mount: str) -> None:
    lines = "12:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n3:cpuset:/docker/a\n0::/\n"
    write(tmp_path / "proc/self/cgroup", lines)
    group = tmp_path / "sys/fs/cgroup" / mount / "docker/a"
    write(group / "cpu.cfs_period_us", "100000\n")
    write(group / "cpu.cfs_quota_us", "-1\n")
    assert cgroup_cores(tmp_path) is None
    write(group / "cpu.cfs_quota_us", "310000\n")
    assert cgroup_cores(tmp_path) == 3.1


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "ten 100000", "100000 0"])
def test_what_cannot_be_read_is_no_quota(tmp_path: Path, text: str) -> None:
    assert cgroup_cores(tmp_path) is None
    write(tmp_path / "proc/self/cgroup", "0::/a\nodd line\n")
    write(tmp_path / "sys/fs/cgroup/a/cpu.max", text)
    assert cgroup_cores(tmp_path) is None


def test_the_default_rounds_the_quota_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("striate.runtime.cores.allowed_cores", lambda: 6)
    assert default_threads(tmp_path) == 6
    write(tmp_path / "proc/self/cgroup", "0::/a\n")
    for quota, expected in (("210000", 3), ("200000", 2), ("1000", 1), ("6000000", 6)):
        write(tmp_path / "sys/fs/cgroup/a/cpu.max", f"{quota} 100000\n")
        assert default_threads(tmp_path) == expected


def test_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIATE_THREADS", " 5 ")
    assert default_threads(tmp_path) == 5
    for text in ("0", "-1", "two", "1.5", "100000", "²"):
        monkeypatch.setenv("STRIATE_THREADS", text)
        with pytest.raises(ValueError, match=r"STRIATE_THREADS is .* expected a whole number"):
            default_threads(tmp_path)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_the_affinity_mask_counts() -> None:
    before = os.sched_getaffinity(0)
    assert allowed_cores() == len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
