"""Over real handshakes, in memory: who gets in, who doesn't, and by what name."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from node import identity, mesh, tls
from node.clock import now_ms
from node.errors import Problem
from node.identity import Identity
from node.mesh import BadCertificate, Role
from node.paths import Home

Enlist = Callable[..., Identity]


@pytest.fixture
def anna(tmp_path: Path) -> Identity:
    return mesh.found(Home(tmp_path / "anna"), "anna", now_ms())


@pytest.fixture
def enlist(anna: Identity, tmp_path: Path) -> Enlist:
    """Another node of anna's mesh."""

    def make(name: str, role: Role = Role.MEMBER, projects: tuple[str, ...] = ("*",)) -> Identity:
        seed = identity.new_seed()
        key, _ = identity.key_pair(seed)
        certificate = mesh.issue(mesh.load_authority(anna), key, name, role, projects, now_ms())
        return identity.create(Home(tmp_path / name), seed, certificate, anna.ca)

    return make


def meet(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a connection, after the handshake and a byte in each direction."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    near, far = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    for side in (near, far, near, far):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    for sender, receiver in ((near, far), (far, near)):
        sender.write(b"x")
        assert receiver.read(1) == b"x"
    return near, far


def test_two_members_know_each_other(anna: Identity, enlist: Enlist) -> None:
    bert = enlist("bert, the 2nd: ü*", Role.READER, ("a", "team/*"))
    near, far = meet(tls.client_context(bert), tls.server_context(anna))
    assert tls.peer_of(far) == mesh.check_member(anna.ca, bert.certificate)
    assert tls.peer_of(near) == mesh.check_member(anna.ca, anna.certificate)
    assert near.version() == "TLSv1.3"


def test_a_newcomer_gets_in_as_nobody(anna: Identity) -> None:
    near, far = meet(tls.newcomer_context(anna.ca), tls.server_context(anna))
    assert tls.peer_of(far) is None
    member = tls.peer_of(near)
    assert member is not None
    assert member.node_id == anna.node_id


def test_a_server_whose_ca_is_not_known_yet_has_no_name(anna: Identity) -> None:
    near, _ = meet(tls.newcomer_context(ca=None), tls.server_context(anna))
    with pytest.raises(BadCertificate, match="nobody has checked"):
        tls.peer_of(near)


@pytest.mark.parametrize("context", [tls.client_context, lambda me: tls.newcomer_context(me.ca)])
def test_a_server_of_another_mesh_is_refused(
    anna: Identity, tmp_path: Path, context: Callable[[Identity], ssl.SSLContext]
) -> None:
    stranger = mesh.found(Home(tmp_path / "stranger"), "anna", now_ms())
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(context(anna), tls.server_context(stranger))


def test_a_client_of_another_mesh_is_refused(anna: Identity, tmp_path: Path) -> None:
    stranger = mesh.found(Home(tmp_path / "stranger"), "anna", now_ms())
    context = tls.client_context(stranger)
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(context, tls.server_context(anna))


def test_an_expired_certificate_is_refused_on_both_sides(
    anna: Identity, enlist: Enlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert = enlist("bert")
    monkeypatch.setattr(mesh, "NODE_LIFETIME", -mesh.CA_LIFETIME / 20)
    late = enlist("late")
    for client, server in ((late, bert), (bert, late)):
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            meet(tls.client_context(client), tls.server_context(server))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2])
def test_an_older_tls_is_refused(anna: Identity, version: ssl.TLSVersion) -> None:
    context = tls.newcomer_context(anna.ca)
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError, match="PROTOCOL"):
        meet(context, tls.server_context(anna))


def test_no_session_is_resumed(anna: Identity, enlist: Enlist) -> None:
    near, _ = meet(tls.client_context(enlist("bert")), tls.server_context(anna))
    assert near.session is None or not near.session.has_ticket


def test_nobody_but_the_mesh_is_trusted(anna: Identity) -> None:
    for context in (tls.client_context(anna), tls.server_context(anna), tls.newcomer_context(anna.ca)):
        assert len(context.get_ca_certs()) == 1
    assert tls.newcomer_context(None).get_ca_certs() == []


def test_a_server_that_is_no_node_is_no_peer(anna: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The CA also certifies the servers of etcd and PostgreSQL."""
    monkeypatch.setattr(mesh, "_uris", lambda *_: ["https://etcd.example.org/"])
    seed = identity.new_seed()
    certificate = mesh.issue(
        mesh.load_authority(anna), identity.key_pair(seed)[0], "etcd", Role.MEMBER, ("*",), now_ms()
    )
    etcd = identity.create(Home(tmp_path / "etcd"), seed, certificate, anna.ca)
    _, far = meet(tls.client_context(etcd), tls.server_context(anna))
    with pytest.raises(BadCertificate, match="does not name one node"):
        tls.peer_of(far)


def test_a_node_that_names_itself_otherwise_is_no_peer(
    anna: Identity, enlist: Enlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = mesh._uris
    monkeypatch.setattr(mesh, "_uris", lambda key, *rest: uris(anna.node_key, *rest))
    impostor = enlist("impostor")
    _, far = meet(tls.client_context(impostor), tls.server_context(anna))
    with pytest.raises(BadCertificate, match="its key is that of"):
        tls.peer_of(far)
    with pytest.raises(Problem) as caught:
        tls.examine(impostor)
    assert caught.value.code == "certificate_refused"


def test_a_node_examines_itself_as_its_peers_will(anna: Identity, enlist: Enlist) -> None:
    bert = enlist("bert", Role.READER, ("a",))
    assert tls.examine(anna) == mesh.check_member(anna.ca, anna.certificate)
    assert tls.examine(bert) == mesh.check_member(anna.ca, bert.certificate)


def test_a_node_that_has_expired_hears_it_first(enlist: Enlist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "NODE_LIFETIME", -mesh.CA_LIFETIME / 20)
    with pytest.raises(Problem, match="expired") as caught:
        tls.examine(enlist("late"))
    assert caught.value.code == "certificate_expired"
    assert "clock" in caught.value.action


def test_a_ca_certificate_of_another_mesh_in_the_home_is_noticed(enlist: Enlist, tmp_path: Path) -> None:
    bert = enlist("bert")
    stranger = mesh.found(Home(tmp_path / "stranger"), "anna", now_ms())
    bert.home.ca_certificate.write_bytes(stranger.home.ca_certificate.read_bytes())
    with pytest.raises(Problem) as caught:
        tls.examine(identity.load(bert.home))
    assert caught.value.code == "certificate_refused"


def test_the_files_of_another_member_in_the_home_are_noticed(anna: Identity, enlist: Enlist) -> None:
    bert = enlist("bert")
    for name in ("node.key", "node.crt"):
        (anna.home.path / name).write_bytes((bert.home.path / name).read_bytes())
    with pytest.raises(Problem, match="another node"):
        tls.examine(anna)


@pytest.mark.parametrize("name", ["node.crt", "node.key"])
@pytest.mark.parametrize("context", [tls.server_context, tls.client_context])
def test_a_file_lost_since_the_start_is_a_problem(
    anna: Identity, name: str, context: Callable[[Identity], ssl.SSLContext]
) -> None:
    (anna.home.path / name).unlink()
    with pytest.raises(Problem) as caught:
        context(anna)
    assert caught.value.code == "home_damaged"
