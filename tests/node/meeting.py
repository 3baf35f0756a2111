"""Real stores that meet through the real core, frame by frame, in virtual time, without a network."""

from collections import Counter, deque
from random import Random

from node.audit import Auditor
from node.carrier import Carrier
from node.repairs import Cause
from sync import codec
from sync.gossip import Core
from sync.messages import Batch, Push
from sync.ready import Close, Commit, Damaged, Notice, Ready, Withheld
from tests.node.world import MESH, Node

LATER_S = 700.0
"""Longer than a walk that was in vain is remembered."""


class Meeting:
    """Nodes that are all connected with each other. `notices` and `closes` as (node, what)."""

    def __init__(self, **nodes: Node) -> None:
        self.nodes = nodes
        self.now = 0.0
        self.bytes = 0
        self.notices: list[tuple[str, Notice]] = []
        self.closes: list[tuple[str, Close]] = []
        self.metric: Counter[Cause] = Counter()
        self.cores: dict[str, Core] = {}
        self.auditors: dict[str, Auditor] = {}
        self._frames: deque[tuple[str, str, bytes]] = deque()
        for name, node in nodes.items():
            self.adopt(name, node)

    def adopt(self, name: str, node: Node) -> None:
        """`node` is what runs under that name from now on."""
        self.nodes[name] = node
        carrier = Carrier(node.store, ["*"], lambda: node.now_ms)
        self.cores[name] = Core(name, name, MESH, carrier, Random(name))
        self.auditors[name] = Auditor(node.store, lambda: node.now_ms, repaired=self._count)

    async def connect(self) -> "Meeting":
        """All sessions anew."""
        self._frames.clear()
        for name, core in self.cores.items():
            for peer in self.nodes:
                if peer != name:
                    core.disconnected(peer, self.now)
        for name, core in self.cores.items():
            for peer in self.nodes:
                if peer != name:
                    await self._do(name, core.connected(peer, self.now))
        return await self.settle()

    async def settle(self) -> "Meeting":
        """Deliver until nobody says anything."""
        while self._frames:
            sender, receiver, frame = self._frames.popleft()
            message = codec.decode(frame)
            received = codec.verify(MESH, message) if isinstance(message, Batch | Push) else message
            await self._do(receiver, self.cores[receiver].receive(sender, received, self.now))
        return self

    async def later(self, times: int = 2, seconds: float = LATER_S) -> "Meeting":
        """So much later."""
        for _ in range(times):
            self.now += seconds
            for name, core in self.cores.items():
                await self._do(name, core.tick(self.now))
            await self.settle()
        return self

    async def _do(self, name: str, ready: Ready) -> None:
        for commit in ready.persist:
            await self._commit(name, commit)
        for send in ready.send:
            frame = codec.encode(send.message)
            self.bytes += len(frame)
            self._frames.append((name, send.peer, frame))
        for notice in ready.notify:
            self.notices.append((name, notice))
            if isinstance(notice, Damaged):
                await self.auditors[name].mend(notice.project, notice.level, notice.place, notice.peer)
            if isinstance(notice, Withheld):
                self.nodes[name].store.withheld(notice.project, notice.author)
        self.closes += [(name, close) for close in ready.close]

    async def _commit(self, name: str, commit: Commit) -> None:
        node = self.nodes[name]
        merged = await node.database.write(lambda c: node.store.merge(c, commit.ops, node.now_ms, commit.peer))
        self.auditors[name].heard(merged.repaired, commit.peer)
        await self._do(name, self.cores[name].persisted(commit, len(merged.new), self.now))

    def _count(self, cause: Cause, ops: int) -> None:
        self.metric[cause] += ops
