"""What a process uses and may use, read from trees of files as the kernel shows them: v1, v2, containers, none."""

import os
from pathlib import Path

import pytest

from node.usage import PAGE_BYTES, Meter

MIB = 1 << 20


def tree(root: Path, files: dict[str, object]) -> Path:
    for name, text in ({"proc/self/statm": "9000 3000 1000 5 0 2000 0"} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def stat(prefix: str, inactive: int, active: int) -> str:
    return f"anon 5\n{prefix}inactive_file {inactive}\n{prefix}active_file {active}\nodd line here"


def test_own_memory_is_what_cannot_be_taken_back(tmp_path: Path) -> None:
    seen = Meter(tree(tmp_path, {})).read()
    assert seen.memory_bytes == 2000 * PAGE_BYTES
    assert (seen.group_bytes, seen.group_max_bytes) == (None, None)
    assert seen.cpus == len(os.sched_getaffinity(0))


def test_version_2_with_a_limit_somewhere_above(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/system.slice/cortex.service"
    meter = Meter(
        tree(
            tmp_path,
            {
                "proc/self/cgroup": "0::/system.slice/cortex.service",
                f"{group}/memory.max": "max",
                f"{group}/memory.current": 90 * MIB,
                f"{group}/cpu.max": "max 100000",
                "sys/fs/cgroup/system.slice/memory.max": 128 * MIB,
                "sys/fs/cgroup/system.slice/memory.current": 100 * MIB,
                "sys/fs/cgroup/system.slice/memory.stat": stat("", 20 * MIB, 10 * MIB),
                "sys/fs/cgroup/system.slice/cpu.max": "50000 100000",
            },
        )
    )
    seen = meter.read()
    assert (seen.group_bytes, seen.group_max_bytes) == (70 * MIB, 128 * MIB)
    assert seen.cpus == 0.5


def test_of_several_limits_the_nearest_counts_and_a_new_one_is_seen(tmp_path: Path) -> None:
    inner = "sys/fs/cgroup/a/b"
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b",
            f"{inner}/memory.max": 100 * MIB,
            f"{inner}/memory.current": 10 * MIB,
            "sys/fs/cgroup/a/memory.max": 1000 * MIB,
            "sys/fs/cgroup/a/memory.current": 900 * MIB,
        },
    )
    meter = Meter(tmp_path)
    assert meter.read().group_max_bytes == 1000 * MIB
    (tmp_path / inner / "memory.max").write_text(str(10 * MIB))
    assert meter.read().group_max_bytes == 10 * MIB


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_version_1(tmp_path: Path, mount: str) -> None:
    memory, cpu = "sys/fs/cgroup/memory/x", f"sys/fs/cgroup/{mount}/x"
    seen = Meter(
        tree(
            tmp_path,
            {
                "proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/x\n9:name=systemd:/x\n0::/",
                f"{memory}/memory.limit_in_bytes": 128 * MIB,
                f"{memory}/memory.usage_in_bytes": 120 * MIB,
                f"{memory}/memory.stat": stat("total_", 10 * MIB, 10 * MIB),
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": 900 * MIB,
                f"{cpu}/cpu.cfs_quota_us": 25000,
                f"{cpu}/cpu.cfs_period_us": 100000,
                f"sys/fs/cgroup/{mount}/cpu.cfs_quota_us": -1,
                f"sys/fs/cgroup/{mount}/cpu.cfs_period_us": 100000,
            },
        )
    ).read()
    assert (seen.group_bytes, seen.group_max_bytes) == (100 * MIB, 128 * MIB)
    assert seen.cpus == 0.25


@pytest.mark.parametrize("path", ["/../../outside", "/docker/of/the/host"])
def test_in_a_container_the_mount_is_our_group(tmp_path: Path, path: str) -> None:
    seen = Meter(
        tree(
            tmp_path,
            {
                "proc/self/cgroup": f"0::{path}",
                "sys/outside/memory.max": 5 * MIB,
                "sys/fs/cgroup/memory.max": 64 * MIB,
                "sys/fs/cgroup/memory.current": 1 * MIB,
            },
        )
    ).read()
    assert seen.group_max_bytes == 64 * MIB


@pytest.mark.parametrize("odd", ["", "lots", "0", "-1", "1 2 3"])
def test_what_is_odd_is_no_limit(tmp_path: Path, odd: str) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": odd, "sys/fs/cgroup/cpu.max": odd})
    seen = Meter(root).read()
    assert seen.group_max_bytes is None
    assert seen.cpus == len(os.sched_getaffinity(0))


def test_on_this_machine() -> None:
    seen = Meter().read()
    assert 0 < seen.memory_bytes < 1 << 34
    assert seen.cpu_s > 0
    assert seen.cpus > 0
