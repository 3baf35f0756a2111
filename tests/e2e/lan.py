"""A local network of namespaces: machines with an interface of their own on one hub, with real multicast.

The interface of each machine is a tap device whose other end is a thread of this process, which passes every frame on
to the others, late, never, out of order or slowly if a cable is bad. (Not every kernel has `netem`.) Nothing of it
touches this machine's own network. It takes root, iproute2 and /dev/net/tun; `usable` says what is missing.
"""

import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.local_nodes import PROGRAM

NETWORK = "10.77.0"
UNIQUE_LOCAL = "fd77::"
TUN = Path("/dev/net/tun")
FRAME_BYTES = 2_048
QUEUE_S = 2.0
"""A slow cable drops what would wait longer than this."""
TUNSETIFF, TUNSETCARRIER = 0x400454CA, 0x400454E2
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


def usable() -> str:
    """Why there can be no such network here; empty when there can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    if not shutil.which("ip"):
        return "`ip` not found: install iproute2"
    if not TUN.exists():
        return f"{TUN} is not there: no tap devices"
    probe = f"cortex-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False, text=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    ip("netns", "del", probe)
    return ""


def ip(*arguments: str) -> None:
    """`ip ARGUMENTS`, which must succeed."""
    done = subprocess.run(["ip", *arguments], capture_output=True, check=False, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@dataclass(frozen=True)
class Cable:
    """What a machine is connected with. `loss`: share of frames; jitter lets frames overtake each other."""

    loss: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = inf


@dataclass(eq=False)
class Machine:
    """One machine of a `Lan`, called `name`, at `address`; `tap` is the other end of its interface."""

    name: str
    namespace: str
    address: str
    tap: int
    cable: Cable = field(default_factory=Cable)
    plugged: bool = True
    free: float = 0.0

    @property
    def program(self) -> tuple[str, ...]:
        """The command line, run on this machine."""
        return ("ip", "netns", "exec", self.namespace, *PROGRAM)

    def unplug(self) -> None:
        """Pull the cable."""
        self.plugged = False
        fcntl.ioctl(self.tap, TUNSETCARRIER, struct.pack("i", 0))

    def plug(self) -> None:
        """Put it back."""
        fcntl.ioctl(self.tap, TUNSETCARRIER, struct.pack("i", 1))
        self.plugged = True

    def move(self, address: str) -> None:
        """Another address, as from another lease; the IPv6 address goes."""
        ip("-n", self.namespace, "addr", "flush", "dev", "eth0", "scope", "global")
        ip("-n", self.namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        self.address = address

    def arrives(self, now: float, size: int, chance: random.Random) -> float:
        """When a frame that enters the cable now comes out; `inf` for never."""
        if not self.plugged or chance.random() < self.cable.loss:
            return inf
        leaves = max(self.free, now) + size / self.cable.bytes_per_s
        if leaves - now > QUEUE_S:
            return inf
        self.free = leaves
        return leaves + self.cable.delay_s + chance.uniform(0, self.cable.jitter_s)


class Lan:
    """A hub, and the machines on it; gone when it is left."""

    def __init__(self) -> None:
        self.machines: list[Machine] = []
        self._tag = f"cx{os.getpid()}"
        self._under_way: list[tuple[float, int, Machine, bytes]] = []
        self._frames = 0
        self._open = True
        self._chance = random.Random(7)
        self._thread = threading.Thread(target=self._pass_on, name="hub", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open = False
        self._thread.join()
        for machine in self.machines:
            os.close(machine.tap)
            ip("netns", "del", machine.namespace)

    def machine(self, name: str) -> Machine:
        """Another machine, plugged in, with an IPv4 and an IPv6 address."""
        number = len(self.machines) + 1
        namespace, device = f"{self._tag}-{name}", f"{self._tag}t{number}"
        tap = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
        ip("netns", "add", namespace)
        ip("link", "set", device, "netns", namespace, "name", "eth0")
        new = Machine(name, namespace, f"{NETWORK}.{number}", tap)
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "addr", "add", f"{new.address}/24", "dev", "eth0")
        ip("-n", namespace, "addr", "add", f"{UNIQUE_LOCAL}{number}/64", "dev", "eth0", "nodad")
        ip("-n", namespace, "link", "set", "eth0", "up")
        self.machines.append(new)
        return new

    def _pass_on(self) -> None:
        while self._open:
            by_tap = {machine.tap: machine for machine in self.machines}
            next_s = self._under_way[0][0] - time.monotonic() if self._under_way else 0.1
            readable, _, _ = select.select(list(by_tap), [], [], min(0.1, max(0.0, next_s)))
            for tap in readable:
                try:
                    self._enter(by_tap[tap], os.read(tap, FRAME_BYTES))
                except OSError:  # the interface is down
                    continue
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                _, _, machine, frame = heapq.heappop(self._under_way)
                try:
                    os.write(machine.tap, frame)
                except OSError:  # likewise, or its queue is full: a frame is lost
                    continue

    def _enter(self, sender: Machine, frame: bytes) -> None:
        now = time.monotonic()
        at_hub = sender.arrives(now, len(frame), self._chance)
        for machine in self.machines:
            if machine is not sender and at_hub < inf:
                arrives = machine.arrives(at_hub, len(frame), self._chance)
                if arrives < inf:
                    self._frames += 1
                    heapq.heappush(self._under_way, (arrives, self._frames, machine, frame))
