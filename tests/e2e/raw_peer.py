"""A member of the mesh that says whatever a test wants: TLS and WebSocket frames by hand, messages from sync's library.

It has a certificate that the mesh's CA has truly issued, so nothing but its behaviour can be held against it. Its node
id is larger than that of the node it calls, so the node begins the round (sync/gossip.py) and every test knows whose
turn it is.
"""

import os
import socket
import ssl
import struct
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from bench.local_nodes import LOOPBACK, LocalNode
from crdt.fact import FACT, Record, encode_record
from crdt.op import FORMAT, PREV_BYTES, Header, Op, OpClass, seal
from crdt.version import node_id
from node import identity, members, mesh, tls
from node.clock import now_ms
from node.identity import Identity
from node.mesh import Authority, Role
from node.paths import Home
from sync import codec
from sync.merkle import EMPTY_ROOT
from sync.messages import PROTO_MAX, PROTO_MIN, Carries, Hello, Known, Message, Open, Vectors
from sync.overlap import RESERVED, SECRET_BITS, Overlap
from sync.session import MESH_BYTES_TOLD
from sync.transfer import WINDOW

TEXT, BINARY, CLOSE = 1, 2, 8
FIN: Final = 0x80
MASKED: Final = 0x80
NO_MASK: Final = bytes(4)
"""A client masks its frames (RFC 6455 section 5.3); with zeroes the payload stays as it is."""
PATIENCE_S: Final = 40.0
EPOCH: Final = 1

M = TypeVar("M")


def member(place: Path, node: LocalNode, name: str, authority: Authority | None = None) -> Identity:
    """A new member of the mesh of `node`, or of the one whose CA is given."""
    me = identity.load(node.home)
    authority = authority or mesh.load_authority(me)
    while True:
        seed = identity.new_seed()
        key, _ = identity.key_pair(seed)
        if node_id(key) > me.node_id:
            break
    certificate = mesh.issue(authority, key, name, Role.MEMBER, ("*",), now_ms())
    return identity.create(Home(place / name), seed, certificate, authority.ca)


@dataclass(frozen=True)
class Closed:
    """How the node ended the connection: the close frame's code and text; 0 where there was none."""

    code: int
    text: str


class RawPeer:
    """One connection of `me` to the peer port of `node`."""

    def __init__(self, me: Identity, node: LocalNode) -> None:
        self.me = me
        self._seq = 0
        self._heads: dict[str, Op] = {}
        plain = socket.create_connection((LOOPBACK, node.port), PATIENCE_S)
        self.socket = tls.client_context(me).wrap_socket(plain)
        key = b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /sync HTTP/1.1\r\nHost: {node.address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self._file = self.socket.makefile("rb")
        answer = self._file.readline()
        assert b" 101 " in answer, answer
        while self._file.readline().strip():
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self.socket.close()

    # Frames

    def send(self, message: Message) -> None:
        """One message, as sync encodes it."""
        self.send_frame(BINARY, codec.encode(message))

    def send_frame(self, opcode: int, payload: bytes, announced: int | None = None, flags: int = FIN) -> None:
        """One frame, whose header may announce another length than it has."""
        length = len(payload) if announced is None else announced
        self.socket.sendall(struct.pack("!BBQ", flags | opcode, MASKED | 127, length) + NO_MASK + payload)

    def receive(self) -> Message | Closed:
        """The next message, or the end."""
        while True:
            try:
                first, second = self._read(2)
                length = second & 0x7F
                if length >= 126:
                    length = int.from_bytes(self._read(2 if length == 126 else 8), "big")
                payload = self._read(length)
            except (EOFError, ConnectionError, ssl.SSLEOFError):
                return Closed(0, "")
            if (opcode := first & 0x0F) == BINARY:
                return codec.decode(payload)
            if opcode == CLOSE:
                return Closed(int.from_bytes(payload[:2], "big"), payload[2:].decode())

    def until_closed(self) -> Closed:
        """Read on until the node ends it. Raises TimeoutError when it does not."""
        while not isinstance(said := self.receive(), Closed):
            pass
        return said

    def _read(self, many: int) -> bytes:
        data = self._file.read(many)
        if len(data) < many:
            raise EOFError
        return data

    # The protocol, as an honest peer keeps it

    def open(self, **instead: object) -> None:
        """From the first message to the node's first hello. `instead`: fields of our Open."""
        theirs = self._expect(Open)
        overlap = Overlap(("*",), self.me.mesh_id, int.from_bytes(os.urandom(SECRET_BITS // 8), "big") >> 3)
        prefixes, points = overlap.offer()
        fields = {
            "proto_min": PROTO_MIN,
            "proto_max": PROTO_MAX,
            "mesh": self.me.mesh_id[:MESH_BYTES_TOLD],
            "name": self.me.home.path.name,
            "prefixes": prefixes,
            "points": points,
        }
        self.send(Open(**{**fields, **instead}))  # type: ignore[arg-type]
        if instead:
            return
        self._expect(Carries)
        self.send(Carries(*overlap.answer(theirs.prefixes, theirs.points)))
        self._expect(Hello)

    def stream(self) -> Vectors:
        """On to where both sides send ops: we say that we have nothing. What the node says it has."""
        self.open()
        nothing = Known(EMPTY_ROOT, {})
        self.send(Vectors(WINDOW, {RESERVED: nothing, "default": nothing}, ()))
        return self._expect(Vectors)

    def _expect(self, kind: type[M]) -> M:
        message = self.receive()
        assert isinstance(message, kind), message
        return message

    # Ops of our own

    def introduction(self) -> Op:
        """The op by which a member shows its certificate."""
        draft = members.draft(self.me, [])
        assert isinstance(draft.body, bytes)
        return self._op(draft.project, draft.op_class, draft.subject, draft.field, draft.kind, draft.body)

    def fact(self, content: str, project: str = "default", by: Identity | None = None) -> Op:
        """An op that creates a fact; `by`: who signs it."""
        return self._op(project, OpClass.WRITE, "", "", FACT, encode_record(Record(content=content)), by or self.me)

    def _op(
        self, project: str, op_class: OpClass, subject: str, field: str, kind: str, body: bytes,
        by: Identity | None = None,
    ) -> Op:  # fmt: skip
        by = by or self.me
        self._seq += 1
        before = self._heads.get(project)
        header = Header(
            format=FORMAT, project=project, op_class=int(op_class), subject=subject, field=field, node_key=by.node_key,
            epoch=EPOCH, seq=self._seq, prev_seq=before.seq if before else 0,
            prev_hash=before.hash[:PREV_BYTES] if before else b"", timestamp=now_ms() << 16, clock=(), kind=kind,
            body=body,
        )  # fmt: skip
        op = seal(self.me.mesh_id, header, by.secret_key)
        self._heads[project] = op
        return op


Attack = Callable[[RawPeer], None]
