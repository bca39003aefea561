"""What the compiler needs to know of a CPU: vectors, registers, caches, LLVM's name for it."""

import itertools
import os
import platform
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

# From most to least able; `host` takes the first whose features it finds.
_NAMES = ("avx512", "avx2", "neon", "generic")
# CPUs whose units for 512 bits are 256 bits wide.
_HALVED = ("znver4",)
# CPUs that add vectors on other units than those that multiply, as measured there.
_ADDERS = ("znver4",)


@dataclass(frozen=True, slots=True)
class Target:
    """A CPU to compile for; `lanes` float32 a vector, caches in bytes, `l3` of all cores.

    `halved` says that a vector runs as two halves, so that one of half the lanes takes half the
    time; `adders` that additions take no time of the multiply-adds beside them.
    """

    name: str
    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int
    fma: bool
    halved: bool = False
    adders: bool = False
    l1: int = 32 << 10
    l2: int = 512 << 10
    l3: int = 16 << 20
    flops_per_second: float = 100e9
    bytes_per_second: float = 20e9
    cores: int = 2

    @property
    def vector(self) -> str:
        """The LLVM type of one vector."""
        return f"<{self.lanes} x float>"

    @staticmethod
    def named(name: str) -> "Target":
        """The target of that name, for this operating system; ValueError for an unknown name."""
        if name not in _NAMES:
            raise ValueError(f"no target {name!r}; the targets are {', '.join(_NAMES)}")
        x86, arm = _triple("x86_64"), _triple("aarch64")
        return {
            "avx512": Target("avx512", x86, "skylake-avx512", "", 16, 32, fma=True),
            "avx2": Target("avx2", x86, "haswell", "", 8, 16, fma=True),
            "neon": Target("neon", arm, "generic", "+neon", 4, 32, fma=True),
            "generic": Target("generic", "", "", "", 4, 16, fma=False),
        }[name]

    @staticmethod
    @lru_cache(maxsize=1)
    def host() -> "Target":
        """The CPU this process runs on."""
        import llvmlite.binding as llvm

        try:
            features = dict(llvm.get_host_cpu_features())
        except RuntimeError:
            features = {}
        if features.get("avx512f") and features.get("avx512vl") and features.get("avx512dq"):
            name = "avx512"
        elif features.get("avx2") and features.get("fma"):
            name = "avx2"
        elif platform.machine().lower() in ("aarch64", "arm64"):
            name = "neon"
        else:
            name = "generic"
        flat = ",".join(("+" if on else "-") + key for key, on in sorted(features.items()))
        cpu = str(llvm.get_host_cpu_name()) if features else ""
        triple = llvm.get_process_triple()
        return replace(
            Target.named(name),
            triple=triple,
            cpu=cpu,
            features=flat,
            halved=name == "avx512" and cpu in _HALVED,
            adders=name == "avx512" and cpu in _ADDERS,
            l1=_cache_bytes(1) or 32 << 10,
            l2=_cache_bytes(2) or 512 << 10,
            l3=_cache_bytes(3) or 16 << 20,
            cores=os.cpu_count() or 1,
        )

    def runs_here(self) -> bool:
        """Whether this CPU can execute code made for the target."""
        order = ["avx512", "avx2", "generic"]
        host = Target.host().name
        if self.name in order and host in order:
            return order.index(self.name) >= order.index(host)
        return self.name in (host, "generic")


@lru_cache(maxsize=1)
def fingerprint() -> str | None:
    """What `Target.host()` depends on, told without LLVM; None where the system does not say."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            lines = list(itertools.takewhile(str.strip, file))
    except OSError:
        return None
    said = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU", "Features")
    kept = [line.strip() for line in lines if line.startswith(said)]
    if not any(line.startswith(("flags", "Features")) for line in kept):
        return None
    sizes = (*[_cache_bytes(level) for level in (1, 2, 3)], os.cpu_count())
    return "\n".join((platform.machine(), *kept, repr(sizes)))


def _triple(machine: str) -> str:
    system = {"Darwin": "apple-darwin", "Windows": "pc-windows-msvc"}
    return f"{machine}-{system.get(platform.system(), 'unknown-linux-gnu')}"


def _cache_bytes(level: int) -> int | None:
    """The size of the data cache of `level` as the system tells it, or None."""
    name = {
        1: "SC_LEVEL1_DCACHE_SIZE",
        2: "SC_LEVEL2_CACHE_SIZE",
        3: "SC_LEVEL3_CACHE_SIZE",
    }[level]
    try:
        size = os.sysconf(name)
    except (AttributeError, ValueError, OSError):
        size = 0
    if size > 0:
        return size
    try:
        text = Path(f"/sys/devices/system/cpu/cpu0/cache/index{level if level > 1 else 0}/size")
        return int(text.read_text().strip().rstrip("K")) << 10
    except (OSError, ValueError):
        return None
