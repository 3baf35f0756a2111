"""Two cores on one perfect connection: every frame is encoded and decoded, every disk commits at once."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random

from crdt.op import Op
from sync import codec
from sync.errors import ProtocolError, Reason
from sync.gossip import Core
from sync.messages import Batch, Message, Push, Received
from sync.ready import Close, Commit, Damaged, Notice, Ready
from tests.sim.disk import Disk, UnknownAuthor
from tests.sim.workload import Writer

MESH = bytes(range(32))
WALL_MS = 1_790_000_000_000


def writer(name: str, seed: int = 1) -> Writer:
    return Writer(name, MESH, Random(f"{name}{seed}"))


def disk(*patterns: str) -> Disk:
    made = Disk(patterns or ("*",))
    made.now_ms = WALL_MS
    return made


def written(disk: Disk, writer: Writer, project: str, count: int) -> list[Op]:
    """`count` new facts by `writer` on `disk`, introduced first if need be."""
    ops = []
    own = [chain[-1].seq for (_, author), chain in disk.chains.items() if author == writer.author]
    disk.last_seq = max(own, default=0)
    if not disk.chains.get(("_mesh", writer.author)):
        ops.append(writer.introduce(disk))
        disk.commit(ops)
    for _ in range(count):
        ops.append(writer.create(disk, project))
        disk.commit(ops[-1:])
    return ops


def copied(ops: Sequence[Op], *disks: Disk) -> None:
    for disk in disks:
        disk.commit(ops)


class Pair:
    """Cores named `a` and `b` on one perfect connection. `log`: (sender, message, bytes of its frame)."""

    def __init__(self, a: Disk, b: Disk, **options: float) -> None:
        self.disks = {"a": a, "b": b}
        self.cores = {name: Core(name, name, MESH, disk, Random(name), **options) for name, disk in self.disks.items()}
        self.now = 0.0
        self.log: list[tuple[str, Message, int]] = []
        self.notices: list[tuple[str, Notice]] = []
        self.closes: list[tuple[str, Close]] = []
        self.commits: list[tuple[str, Commit]] = []
        self.damage: Callable[[bytes], bytes] = lambda frame: frame
        self._frames: deque[tuple[str, str, bytes]] = deque()

    def connect(self, grants: Mapping[str, Sequence[str]] | None = None) -> "Pair":
        """`grants`: what each of the two may read; all, when left out."""
        may = grants or {"a": ("*",), "b": ("*",)}
        self.do("a", self.cores["a"].connected("b", self.now, grants=may["b"]))
        self.do("b", self.cores["b"].connected("a", self.now, grants=may["a"]))
        return self

    def do(self, name: str, ready: Ready) -> None:
        """What a driver does, with a disk that commits at once."""
        for commit in ready.persist:
            self.commits.append((name, commit))
            try:
                fresh = self.disks[name].commit(commit.ops, commit.by_walk)
            except UnknownAuthor:
                unknown = ProtocolError(Reason.BAD_OP, "an author whom nobody introduced")
                self.do(name, self.cores[name].failed(commit.peer, unknown, self.now))
                continue
            self.do(name, self.cores[name].persisted(commit, fresh, self.now))
        for send in ready.send:
            frame = codec.encode(send.message)
            self.log.append((name, send.message, len(frame)))
            self._frames.append((name, send.peer, frame))
        self.notices += [(name, notice) for notice in ready.notify]
        for notice in ready.notify:
            if isinstance(notice, Damaged):
                self.disks[name].mend(notice.project, notice.level, notice.place)
        self.closes += [(name, close) for close in ready.close]

    def settle(self) -> "Pair":
        """Deliver until nobody says anything."""
        while self._frames:
            self.step()
        return self

    def lose(self) -> None:
        """The connection breaks, with whatever is on its way."""
        self._frames.clear()
        self.cores["a"].disconnected("b", self.now)
        self.cores["b"].disconnected("a", self.now)

    def step(self) -> None:
        """Deliver one frame."""
        sender, receiver, frame = self._frames.popleft()
        core = self.cores[receiver]
        try:
            received = read(self.damage(frame))
        except ProtocolError as error:
            self.do(receiver, core.failed(sender, error, self.now))
        else:
            self.do(receiver, core.receive(sender, received, self.now))

    def tick(self, seconds: float, names: str = "ab") -> "Pair":
        self.now += seconds
        for name in names:
            self.do(name, self.cores[name].tick(self.now))
        return self.settle()

    def forget(self) -> "Pair":
        """Look only at what comes from here on."""
        self.log.clear()
        self.notices.clear()
        return self

    @property
    def bytes(self) -> int:
        return sum(size for _, _, size in self.log)

    def kinds(self, *but: type) -> list[str]:
        return [f"{sender} {type(message).__name__}" for sender, message, _ in self.log if not isinstance(message, but)]


def read(frame: bytes) -> Received:
    """What a driver makes of a frame."""
    message = codec.decode(frame)
    return codec.verify(MESH, message) if isinstance(message, Batch | Push) else message


def agree(pair: Pair) -> bool:
    """Whether both hold the same ops of all that both carry."""
    a, b = pair.disks.values()
    return {p: a.known[p].keys() for p in a.projects() if b.carried(p)} == {
        p: b.known[p].keys() for p in b.projects() if a.carried(p)
    }
