"""What this process uses of memory and processor, and how much it may use: /proc/self and cgroup files, v1 and v2.

Read directly, because a hardened service (ProcSubset=pid) has no /proc/meminfo and no /proc/stat, which psutil needs.
A file that is missing or odd means: not known, no limit. Of all cgroups around us the one nearest to its limit counts.

Memory here is what the kernel cannot take back: anonymous and shared pages, without files that are mapped or cached.
That is what the kernel kills for. Tests: tests/node/test_usage.py, with trees of files of both versions.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")
NO_LIMIT: Final = 1 << 60
"""cgroup v1 writes a number near 2^63 where there is no limit."""
MEMORY_FILES: Final = (
    ("memory.max", "memory.current", ""),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)
"""Limit, usage, and what the names in memory.stat begin with, of v2 and of v1."""
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """At one moment: this process's memory and processor seconds since its start, and its cgroup's memory and limits.

    None: there is no such group or limit. `cpus` is how many processors may be used at once, 0.5 for half of one.
    """

    memory_bytes: int
    cpu_s: float
    cpus: float
    group_bytes: int | None = None
    group_max_bytes: int | None = None


class Meter:
    """Reads the usage of this process from the files under `root`. Which cgroups there are is looked up once."""

    def __init__(self, root: Path = ROOT) -> None:
        self._statm = root / "proc/self/statm"
        self._memory = list(dict.fromkeys(_folders(root, "memory")))
        self._cpu = list(dict.fromkeys(_folders(root, "cpu")))

    def read(self) -> Usage:
        """The usage now."""
        times = os.times()
        group_bytes, group_max = self._nearest_limit()
        return Usage(
            memory_bytes=self._own_memory(),
            cpu_s=times.user + times.system,
            cpus=self._cpus(),
            group_bytes=group_bytes,
            group_max_bytes=group_max,
        )

    def _own_memory(self) -> int:
        """Resident without what is mapped from files. `shared` of statm has shared memory too, which is little here."""
        _, resident, shared, *_ = map(int, self._statm.read_text().split())
        return (resident - shared) * PAGE_BYTES

    def _nearest_limit(self) -> tuple[int | None, int | None]:
        """Usage and limit of the cgroup that is nearest to its limit."""
        found: list[tuple[float, int, int]] = []
        for folder in self._memory:
            for limit_name, usage_name, prefix in MEMORY_FILES:
                limit = _number(folder / limit_name)
                if limit is None or not 0 < limit < NO_LIMIT:
                    continue
                stat = _pairs(folder / "memory.stat")
                files = stat.get(prefix + "inactive_file", 0) + stat.get(prefix + "active_file", 0)
                used = max(0, (_number(folder / usage_name) or 0) - files)
                found.append((used / limit, used, limit))
        return max(found)[1:] if found else (None, None)

    def _cpus(self) -> float:
        cpus = float(len(os.sched_getaffinity(0)))
        for folder in self._cpu:
            quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
            words = _text(folder / "cpu.max").split()
            if len(words) == 2 and all(word.isdigit() for word in words):
                quota, period = int(words[0]), int(words[1])
            if quota and period and quota > 0:
                cpus = min(cpus, quota / period)
        return cpus


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of our cgroup and those above it that may limit `controller`, as far as they can be seen from here.

    In a container the path that the kernel tells may begin outside of it; then the mount itself is our group.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mounts = (
            ["sys/fs/cgroup"] if not controllers else [f"sys/fs/cgroup/{controllers}", f"sys/fs/cgroup/{controller}"]
        )
        for mount in dict.fromkeys(root / name for name in mounts):
            folder = mount / path.lstrip("/")
            if ".." in folder.parts or not folder.is_dir():
                folder = mount
            while folder.is_dir():
                yield folder
                if folder == mount:
                    break
                folder = folder.parent


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.removeprefix("-").isdigit() else None


def _pairs(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
