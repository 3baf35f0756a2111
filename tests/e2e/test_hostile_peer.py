"""A peer that breaks the protocol: its session ends, it is counted and named, and nobody else notices.

Each attack comes from a member with a true certificate (tests/e2e/raw_peer.py), except where the lack of one is the
attack. Unit tests of sync know every rule; here the whole node keeps them, with real TLS and real memory.
"""

import socket
import ssl
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.local_nodes import LOOPBACK, LocalNode, agree, wait_until
from node import identity, mesh, tls
from node.clock import now_ms
from node.identity import Identity
from sync import codec
from sync.messages import PROTO_MAX, PROTO_MIN, Ack, Batch, Done, Open, Same
from sync.overlap import RESERVED
from tests.e2e.pairs import Pair, ops_on_disk
from tests.e2e.raw_peer import BINARY, TEXT, Attack, Closed, RawPeer, member

GIGABYTE = 1 << 30
PUMPED_BYTES = 64 << 20
"""How much of a forbidden gigabyte is offered to a node that should stop reading at once."""
MEMORY_BYTES = 16 << 20
"""What the node may grow by under all of that."""
IDLE_CONNECTIONS = 60
SERVED_S = 3.0
"""From a write to its arrival on the other node; 0.1 s on a machine with nothing else to do."""


@pytest.fixture(scope="module")
def silent(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawPeer]:
    """Connected first, judged last: it takes the node 20 s to give up somebody who says nothing."""
    me = member(tmp_path_factory.mktemp("silent"), pair.alpha, "silent")
    with RawPeer(me, pair.alpha) as peer:
        yield peer


@pytest.fixture
def nothing_is_stored(pair: Pair) -> Iterator[None]:
    """Neither node has an op more than before."""
    before = pair.alpha.knowledge()
    yield
    assert pair.alpha.knowledge() == before
    assert agree(*pair.both)


# Attacks: what they send once the connection stands


def truncated_op(peer: RawPeer) -> None:
    peer.stream()
    peer.send(Batch(1, RESERVED, (peer.introduction().raw[:-10],)))


def forged_content(peer: RawPeer) -> None:
    peer.stream()
    op = peer.fact("the valve is shut")
    peer.send(Batch(1, "default", (op.raw.replace(b"shut", b"open"),)))


def forged_author(peer: RawPeer) -> None:
    """Our signature under the name of the node itself."""
    peer.stream()
    batch = peer.receive()
    assert isinstance(batch, Batch)
    victim = codec.verify(peer.me.mesh_id, batch).ops[0].header.node_key
    peer.send(Batch(1, "default", (peer.fact("not mine").raw.replace(peer.me.node_key, victim),)))


def unknown_author(peer: RawPeer) -> None:
    """Truly signed, by a key that has no certificate of this mesh."""
    peer.stream()
    seed = identity.new_seed()
    key, secret = identity.key_pair(seed)
    stranger = Identity(peer.me.home, key, secret, b"", peer.me.ca, False)
    peer.send(Batch(1, "default", (peer.fact("who am I?", by=stranger).raw,)))


def op_of_another_project(peer: RawPeer) -> None:
    peer.stream()
    peer.send(Batch(1, "default", (peer.fact("elsewhere", "secret").raw,)))


def project_not_asked_for(peer: RawPeer) -> None:
    peer.stream()
    peer.send(Batch(1, "secret", (peer.fact("elsewhere", "secret").raw,)))


def op_that_it_has(peer: RawPeer) -> None:
    peer.stream()
    batch = peer.receive()
    assert isinstance(batch, Batch)
    peer.send(Batch(1, batch.project, batch.ops))


def batch_out_of_turn(peer: RawPeer) -> None:
    peer.open()
    peer.send(Batch(1, "default", (peer.fact("unasked").raw,)))


def false_acknowledgement(peer: RawPeer) -> None:
    peer.stream()
    peer.send(Ack(9, 1))


def too_large_a_batch(peer: RawPeer) -> None:
    peer.stream()
    peer.send(Batch(1, "default", tuple(peer.fact("x" * 40_000 + str(n)).raw for n in range(3))))


def word_before_open(peer: RawPeer) -> None:
    peer.send(Same())


def open_twice(peer: RawPeer) -> None:
    peer.open()
    peer.send(Open(PROTO_MIN, PROTO_MAX, peer.me.mesh_id[:16], "again", ("*",), ()))


def another_mesh(peer: RawPeer) -> None:
    peer.open(mesh=bytes(16))


def version_of_tomorrow(peer: RawPeer) -> None:
    peer.open(proto_min=9, proto_max=12)


def garbage(peer: RawPeer) -> None:
    peer.open()
    peer.send_frame(BINARY, b"\x00" + bytes(range(255, 0, -1)))


def unknown_flag(peer: RawPeer) -> None:
    peer.send_frame(BINARY, b"\x77hello")


def empty_frame(peer: RawPeer) -> None:
    peer.send_frame(BINARY, b"")


def text_frame(peer: RawPeer) -> None:
    peer.send_frame(TEXT, b'{"facts": []}')


def reserved_opcode(peer: RawPeer) -> None:
    peer.send_frame(0x0B, b"?")


def compressed_bomb(peer: RawPeer) -> None:
    """64 MiB in 64 KiB."""
    peer.send_frame(BINARY, b"\x01" + zlib.compress(bytes(PUMPED_BYTES)))


def gigabyte(peer: RawPeer) -> None:
    """Announced in one header, and offered for as long as anybody listens."""
    peer.send_frame(BINARY, b"", announced=GIGABYTE)
    pump(peer, bytes(65_536))


def endless_fragments(peer: RawPeer) -> None:
    """Each below every limit of a frame, and never the last one."""
    peer.send_frame(BINARY, b"\x00" + bytes(65_535), flags=0)
    with suppress(OSError):
        for _ in range(PUMPED_BYTES // 65_536):
            peer.send_frame(0, bytes(65_536), flags=0)


def pump(peer: RawPeer, chunk: bytes) -> None:
    with suppress(OSError):  # the node has ended it
        for _ in range(PUMPED_BYTES // len(chunk)):
            peer.socket.sendall(chunk)


# Each with the reason that is counted and, where another rule has the same one, how its detail begins.
ATTACKS: list[tuple[Attack, str]] = [
    (truncated_op, "bad_op: encoding"),
    (forged_content, "bad_op: signature"),
    (forged_author, "bad_op: signature"),
    (unknown_author, "bad_op: node"),
    (op_of_another_project, "not_asked"),
    (project_not_asked_for, "not_asked"),
    (op_that_it_has, "not_asked"),
    (batch_out_of_turn, "unexpected"),
    (false_acknowledgement, "unexpected"),
    (too_large_a_batch, "too_large"),
    (word_before_open, "unexpected"),
    (open_twice, "unexpected"),
    (another_mesh, "mesh"),
    (version_of_tomorrow, "version"),
    (garbage, "malformed"),
    (unknown_flag, "malformed"),
    (empty_frame, "malformed"),
    (text_frame, "malformed"),
    (reserved_opcode, "malformed"),
    (compressed_bomb, "too_large"),
    (gigabyte, "too_large"),
    (endless_fragments, "too_large"),
]


@pytest.mark.usefixtures("silent", "nothing_is_stored")
@pytest.mark.parametrize(("attack", "why"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_the_session_ends_is_counted_and_named(pair: Pair, tmp_path: Path, attack: Attack, why: str) -> None:
    alpha = pair.alpha
    reason, _, detail = why.partition(": ")
    sample = f'cortex_sync_refused_total{{reason="{reason}"}}'
    counted, memory = alpha.metric(sample), psutil.Process(alpha.pid).memory_info().rss
    me = member(tmp_path, alpha, "mallory")
    with RawPeer(me, alpha) as peer:
        attack(peer)
        closed = peer.until_closed()
        shown = wait_until("status names it", lambda: refused_peer(alpha, me))
    assert alpha.metric(sample) == counted + 1
    said = "version" if reason == "version" else "refused"
    assert (shown["state"], shown["reason"], shown["name"]) == ("refused", said, "mallory")
    assert shown["detail"].startswith(detail)
    assert shown["detail"]
    assert any("mallory" in warning["text"] for warning in alpha.status()["warnings"])
    assert psutil.Process(alpha.pid).memory_info().rss < memory + MEMORY_BYTES
    if closed.code == 4000:
        assert closed.text.startswith(reason), "the peer is told why, too"
    else:
        assert reason in ("too_large", "malformed"), closed  # what WebSocket itself forbids has its codes


def test_an_honest_raw_peer_is_served(pair: Pair, tmp_path: Path) -> None:
    """The same client, keeping the rules: what the tests above see is not the client's own fault."""
    me = member(tmp_path, pair.alpha, "honest")
    with RawPeer(me, pair.alpha) as peer:
        peer.stream()
        introduction, fact = peer.introduction(), peer.fact("a raw peer says hello")
        peer.send(Batch(1, RESERVED, (introduction.raw,)))
        peer.send(Batch(2, "default", (fact.raw,)))
        peer.send(Done())
        on_disk = [{(op.author, op.seq, op.hash)} for op in (introduction, fact)]
        acks: list[Ack] = []
        while len(acks) < 2:
            message = peer.receive()
            assert not isinstance(message, Closed), message
            if isinstance(message, Ack):
                assert on_disk[len(acks)] <= ops_on_disk(pair.alpha.home.database), "acknowledged before it was on disk"
                acks.append(message)
        assert acks == [Ack(1, 1), Ack(2, 1)]
        assert pair.alpha.facts()[fact.subject]["author"] == me.node_id
    wait_until("beta has it too, signature and all", lambda: agree(*pair.both))
    assert pair.beta.facts()[fact.subject] == pair.alpha.facts()[fact.subject]


# Who is no member


def test_plain_text_gets_nothing(pair: Pair) -> None:
    with socket.create_connection((LOOPBACK, pair.alpha.port), 10) as plain:
        plain.sendall(b"GET /sync HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in drained(plain)
    assert pair.alpha.text("/readyz") == "ready\n"
    assert pair.alpha.metric('cortex_sync_refused_total{reason="plain_text"}') == 1


def test_no_certificate_no_session(pair: Pair) -> None:
    context = tls.newcomer_context(identity.load(pair.alpha.home).ca)
    with socket.create_connection((LOOPBACK, pair.alpha.port), 10) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(upgrade("/sync"))
        assert drained(connection).startswith(b"HTTP/1.1 403 ")
        assert pair.alpha.metric('cortex_sync_refused_total{reason="certificate"}') >= 1


def test_the_peer_port_serves_no_facts(pair: Pair) -> None:
    context = tls.newcomer_context(identity.load(pair.alpha.home).ca)
    for path in ("/v1/facts", "/v1/export", "/metrics", "/v1/status"):
        with (
            socket.create_connection((LOOPBACK, pair.alpha.port), 10) as plain,
            context.wrap_socket(plain) as connection,
        ):
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert drained(connection).startswith(b"HTTP/1.1 404 ")


def test_a_certificate_of_another_mesh_is_worth_nothing(pair: Pair, tmp_path: Path) -> None:
    foreign = member(tmp_path, pair.alpha, "foreign", mesh.found_authority(now_ms()))
    with pytest.raises((ssl.SSLError, ConnectionError)), RawPeer(foreign, pair.alpha):
        pass  # its own context refuses the node
    context = tls.newcomer_context(identity.load(pair.alpha.home).ca)  # so take one that trusts the node
    context.load_cert_chain(foreign.home.certificate, foreign.home.key)
    plain = socket.create_connection((LOOPBACK, pair.alpha.port), 10)
    try:
        with context.wrap_socket(plain) as connection:
            connection.sendall(upgrade("/sync"))
            said = drained(connection)  # a TLS 1.3 client hears of the refusal when it reads
    except (ssl.SSLError, ConnectionError):
        said = b""
    finally:
        plain.close()
    assert said == b""
    assert pair.alpha.metric('cortex_sync_refused_total{reason="other_mesh"}') >= 1


# Everybody else


def test_others_are_served_meanwhile(pair: Pair, tmp_path: Path) -> None:
    """While connections hang about that say nothing, and a gigabyte is announced."""
    with ExitStack() as ends:
        for _ in range(IDLE_CONNECTIONS):
            ends.enter_context(socket.create_connection((LOOPBACK, pair.alpha.port), 10))
        greedy = ends.enter_context(RawPeer(member(tmp_path, pair.alpha, "greedy"), pair.alpha))
        greedy.send_frame(BINARY, bytes(65_536), announced=GIGABYTE)
        for here, there in (pair.both, pair.both[::-1]):
            began = time.monotonic()
            [fact] = here.store(f"{here.name} writes on")
            wait_until("the other has it", partial(there.client.call, "GET", f"/v1/facts/{fact['id']}"))
            assert time.monotonic() - began < SERVED_S


def test_somebody_who_says_nothing_is_given_up(pair: Pair, silent: RawPeer) -> None:
    assert silent.until_closed() == Closed(4000, "stalled: no word for 20 s while opening")
    shown = wait_until("status names it", lambda: refused_peer(pair.alpha, silent.me))
    assert (shown["reason"], shown["detail"]) == ("offline", "no word for 20 s while opening")
    assert pair.alpha.metric('cortex_sync_refused_total{reason="stalled"}') == 1


def refused_peer(node: LocalNode, who: Identity) -> Any:
    """How `status` shows a peer, once it says what is wrong with it."""
    return next((one for one in node.status()["peers"] if one["id"] == who.node_id and one["reason"]), None)


def upgrade(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def drained(connection: socket.socket) -> bytes:
    """What is said until the other side ends it or has answered."""
    data = b""
    with suppress(TimeoutError, ConnectionError):
        connection.settimeout(3)
        while chunk := connection.recv(65_536):
            data += chunk
            if b"\r\n\r\n" in data:
                break
    return data
