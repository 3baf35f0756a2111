"""A local network of namespaces: machines with an interface of their own on one switch, with real multicast.

Nothing of it touches this machine's own network. It takes root and iproute2; `usable` says what is missing.
"""

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from bench.local_nodes import PROGRAM

NETWORK = "10.77.0"
UNIQUE_LOCAL = "fd77::"


def usable() -> str:
    """Why there can be no namespaces here; empty when there can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    if missing := [tool for tool in ("ip", "tc") if not shutil.which(tool)]:
        return f"{' and '.join(missing)} not found: install iproute2"
    probe = f"cortex-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False, text=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    ip("netns", "del", probe)
    return ""


def ip(*arguments: str) -> str:
    """`ip ARGUMENTS`, which must succeed."""
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass
class Machine:
    """One machine of a `Lan`, called `name`, at `address`."""

    name: str
    namespace: str
    switch: str
    address: str

    @property
    def program(self) -> tuple[str, ...]:
        """The command line, run on this machine."""
        return ("ip", "netns", "exec", self.namespace, *PROGRAM)

    @property
    def port(self) -> str:
        """Its socket on the switch."""
        return f"port-{self.name}"

    def unplug(self) -> None:
        """Pull the cable."""
        ip("-n", self.switch, "link", "set", self.port, "down")

    def plug(self) -> None:
        """Put it back."""
        ip("-n", self.switch, "link", "set", self.port, "up")

    def move(self, address: str) -> None:
        """Another address, as from another lease; the IPv6 address goes."""
        ip("-n", self.namespace, "addr", "flush", "dev", "eth0", "scope", "global")
        ip("-n", self.namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        self.address = address

    def shape(self, *how: str) -> None:
        """What `tc` does to everything that this machine sends and gets; nothing, without arguments."""
        for namespace, device in ((self.namespace, "eth0"), (self.switch, self.port)):
            with suppress(RuntimeError):
                _run("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")
            if how:
                _run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", *how)


@dataclass
class Lan:
    """A switch, and the machines on it; gone when it is left."""

    tag: str = field(default_factory=lambda: f"cx{os.getpid()}")
    machines: list[Machine] = field(default_factory=list)

    @property
    def switch(self) -> str:
        return f"{self.tag}-switch"

    def __enter__(self) -> Self:
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        ip("-n", self.switch, "link", "set", "br0", "up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for namespace in (*(machine.namespace for machine in self.machines), self.switch):
            ip("netns", "del", namespace)

    def machine(self, name: str) -> Machine:
        """Another machine, plugged in, with an IPv4 and an IPv6 address."""
        number = len(self.machines) + 1
        new = Machine(name, f"{self.tag}-{name}", self.switch, f"{NETWORK}.{number}")
        ip("netns", "add", new.namespace)
        self.machines.append(new)
        veth = ("type", "veth", "peer", "name", "eth0", "netns", new.namespace)
        ip("-n", self.switch, "link", "add", new.port, *veth)
        ip("-n", self.switch, "link", "set", new.port, "master", "br0", "up")
        ip("-n", new.namespace, "link", "set", "lo", "up")
        ip("-n", new.namespace, "addr", "add", f"{new.address}/24", "dev", "eth0")
        ip("-n", new.namespace, "addr", "add", f"{UNIQUE_LOCAL}{number}/64", "dev", "eth0", "nodad")
        ip("-n", new.namespace, "link", "set", "eth0", "up")
        return new
