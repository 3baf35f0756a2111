"""A home is made whole or not at all, and one that can't be trusted is refused with what to do."""

import base64
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from crdt.op import FORMAT, Header, OpClass, seal, verify
from crdt.version import node_id
from node import identity, mesh
from node.errors import Problem
from node.identity import Identity
from node.paths import Home

NOW_MS = 1_780_000_000_000
FILES = {"node.key", "node.crt", "ca.crt", "ca.key", "token"}


@dataclass(frozen=True)
class Parts:
    seed: bytes
    certificate: bytes
    ca: bytes
    ca_seed: bytes

    def into(self, path: Path) -> Identity:
        return identity.create(Home(path), self.seed, self.certificate, self.ca, self.ca_seed)


@pytest.fixture(scope="module")
def parts() -> Parts:
    authority = mesh.found_authority(NOW_MS)
    seed = identity.new_seed()
    key, _ = identity.key_pair(seed)
    certificate = mesh.issue(authority, key, "anna", mesh.Role.ADMIN, ("*",), NOW_MS)
    return Parts(seed, certificate, authority.ca, authority.seed)


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_is_created_is_what_is_loaded(parts: Parts, tmp_path: Path) -> None:
    made = parts.into(tmp_path / "home")
    assert identity.load(made.home) == made
    assert made.founder
    assert made.node_id == node_id(identity.key_pair(parts.seed)[0])
    assert made.mesh_id == identity.mesh_id(parts.ca)
    assert identity.load_ca_seed(made) == parts.ca_seed


def test_who_did_not_found_the_mesh_has_no_ca_key(parts: Parts, tmp_path: Path) -> None:
    made = identity.create(Home(tmp_path), parts.seed, parts.certificate, parts.ca)
    assert not identity.load(made.home).founder
    assert not made.home.ca_key.exists()
    with pytest.raises(Problem, match="can't enrol") as caught:
        identity.load_ca_seed(made)
    assert caught.value.code == "not_the_founder"


def test_every_file_is_private_from_the_start(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr("os.fsync", look)
    umask = os.umask(0)
    try:
        home = parts.into(tmp_path / "home").home
    finally:
        os.umask(umask)
    assert modes == [0o600] * len(FILES) + [0o700]  # each file before it gets its name, then the directory
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.path.iterdir()} == dict.fromkeys(FILES, 0o600)


def test_keys_are_as_other_programs_write_them(parts: Parts, tmp_path: Path) -> None:
    home = parts.into(tmp_path).home
    key = Ed25519PrivateKey.from_private_bytes(parts.seed)
    assert home.key.read_bytes() == key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_the_signing_key_seals_ops(parts: Parts, tmp_path: Path) -> None:
    me = parts.into(tmp_path)
    header = Header(FORMAT, "p", OpClass.APPEND, "", "", me.node_key, 1, 1, 0, b"", 0, (), "note", b"")
    sealed = seal(me.mesh_id, header, me.secret_key)
    assert verify(me.mesh_id, sealed.raw) == sealed


def test_secrets_do_not_show_in_a_log(parts: Parts, tmp_path: Path) -> None:
    me = parts.into(tmp_path)
    assert repr(me.secret_key) not in repr(me)


@pytest.mark.parametrize("name", [*sorted(FILES), "cortex.db"])
def test_nothing_is_ever_overwritten(parts: Parts, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(Problem) as caught:
        parts.into(tmp_path)
    assert caught.value.code == ("home_exists" if name == "node.crt" else "home_partial")
    assert caught.value.action
    assert tree(tmp_path) == {name: b"mine"}


def test_other_files_in_the_directory_stay(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("name = 'anna'")
    (tmp_path / ".node.key.new").write_text("left by a process that was killed")
    parts.into(tmp_path)
    assert set(tree(tmp_path)) == FILES | {"node.toml"}


@pytest.mark.parametrize("failing", range(len(FILES)))
@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_nothing_behind(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, failing: int
) -> None:
    calls = iter(range(len(FILES) + 1))
    real: Callable[..., object] = os.fsync if call == "os.fsync" else Path.replace

    def fails(*args: object) -> object:
        if next(calls) == failing:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(call, fails)
    with pytest.raises(Problem, match="No space left") as caught:
        parts.into(tmp_path / "far" / "home")
    assert caught.value.status == 507
    assert list(tmp_path.iterdir()) == []


def test_it_is_a_home_only_when_all_is_there(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any moment: what is there is no node yet, and is never taken for one."""
    home = Home(tmp_path)
    before: list[set[str]] = []
    replace = Path.replace

    def look(self: Path, target: Path) -> Path:
        before.append({path.name for path in tmp_path.iterdir()} & FILES)
        assert not home.founded
        return replace(self, target)

    monkeypatch.setattr("pathlib.Path.replace", look)
    parts.into(tmp_path)
    assert [len(names) for names in before] == list(range(len(FILES)))


def test_a_directory_that_was_there_stays(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr("os.fsync", fails)
    (tmp_path / "home").mkdir()
    with pytest.raises(Problem, match="Permission denied"):
        parts.into(tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("name", ["home", "home/below"])
def test_a_home_that_is_a_file(parts: Parts, tmp_path: Path, name: str) -> None:
    (tmp_path / "home").write_text("a file")
    for attempt in (parts.into, lambda path: identity.require_vacant(Home(path))):
        with pytest.raises(Problem) as caught:
            attempt(tmp_path / name)
        assert caught.value.code == "home_unwritable"
    assert tree(tmp_path) == {"home": b"a file"}


def test_a_home_that_may_not_be_written_is_known_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda folder, mode: folder != tmp_path)  # root may write everywhere
    for path in (tmp_path, tmp_path / "far" / "home"):
        with pytest.raises(Problem) as caught:
            identity.require_vacant(Home(path))
        assert caught.value.code == "home_unwritable"


def test_two_at_once_do_not_mix_their_files(parts: Parts, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(Problem) as caught:
            parts.into(tmp_path)
    finally:
        os.close(descriptor)
    assert caught.value.code == "home_busy"
    assert tree(tmp_path) == {}


def test_an_empty_directory_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no node") as caught:
        identity.load(Home(tmp_path / "nowhere"))
    assert caught.value.code == "no_home"
    assert "init" in caught.value.action


@pytest.mark.parametrize("name", sorted(FILES - {"ca.key"}))
def test_a_missing_file_is_named(parts: Parts, tmp_path: Path, name: str) -> None:
    home = parts.into(tmp_path).home
    (tmp_path / name).unlink()
    with pytest.raises(Problem, match=f"{name} is missing") as caught:
        identity.load(home)
    assert caught.value.code == "home_damaged"


@pytest.mark.parametrize("name", ["node.key", "ca.key", "token"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_an_open_secret_is_refused(parts: Parts, tmp_path: Path, name: str, mode: int) -> None:
    home = parts.into(tmp_path).home
    (tmp_path / name).chmod(mode)
    with pytest.raises(Problem) as caught:
        identity.load(home)
    assert caught.value.code == "secret_exposed"
    assert f"chmod 600 {tmp_path / name}" in caught.value.action


@pytest.mark.parametrize("name", ["node.key", "ca.key", "node.crt", "ca.crt"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"\n", b"\n!", 1),
        lambda content: content.replace(b"BEGIN ", b"BEGIN EC "),
        lambda content: content + content,
        lambda content: content * 200,
        lambda content: b"\xff\x00" * 100,
    ],
)
def test_a_damaged_file_is_named(parts: Parts, tmp_path: Path, name: str, damage: object) -> None:
    home = parts.into(tmp_path).home
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(Problem, match=name) as caught:
        identity.load(home)
    assert caught.value.code == "home_damaged"


@pytest.mark.parametrize("name", ["node.key", "ca.key"])
def test_a_key_of_another_kind_is_refused(parts: Parts, tmp_path: Path, name: str) -> None:
    home = parts.into(tmp_path).home
    subprocess.run(["openssl", "genpkey", "-algorithm", "x25519", "-out", tmp_path / name], check=True)
    with pytest.raises(Problem, match="Ed25519"):
        identity.load(home)


@pytest.mark.parametrize("change", [lambda der: der[:-1], lambda der: der + b"x"])
def test_a_key_of_another_length_is_refused(parts: Parts, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    home = parts.into(tmp_path).home
    der = change(base64.b64decode(home.key.read_text().splitlines()[1]))
    home.key.write_text(f"-----BEGIN PRIVATE KEY-----\n{base64.b64encode(der).decode()}\n-----END PRIVATE KEY-----\n")
    with pytest.raises(Problem, match="Ed25519"):
        identity.load(home)


@pytest.mark.parametrize(("name", "pair"), [("node.key", "node.crt"), ("ca.key", "ca.crt")])
def test_a_key_of_somebody_else_is_refused(parts: Parts, tmp_path: Path, name: str, pair: str) -> None:
    home = parts.into(tmp_path / "mine").home
    other = Ed25519PrivateKey.from_private_bytes(identity.new_seed())
    (home.path / name).write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(Problem, match=f"{pair} is for another key than {name}"):
        identity.load(home)


def test_an_unreadable_file_is_told_apart(parts: Parts, tmp_path: Path) -> None:
    home = parts.into(tmp_path).home
    home.key.unlink()
    home.key.mkdir()
    with pytest.raises(Problem, match="Is a directory") as caught:
        identity.load(home)
    assert caught.value.code == "home_unreadable"


def test_a_running_node_does_not_pay_for_making_certificates() -> None:
    program = (
        "import sys; import node.identity, node.mesh, node.invitation, node.tls;"
        "print(sorted({'cryptography', 'segno'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
