"""Keys of agents are private, durable, and whole; what is not is told."""

import os
import stat
from pathlib import Path

import pytest

from ledger.ed25519 import is_signed, public_key, sign
from node.errors import Problem
from node.voting.keys import KeyStore


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "agents")


def test_a_key_that_was_made_is_found_again_by_another_process(store: KeyStore) -> None:
    secret = store.create()
    key = public_key(secret)
    again = KeyStore(store.folder)
    assert again.secret(key) == secret
    assert again.keys() == [key]
    assert is_signed(key, b"text", sign(secret, b"text"))


def test_only_the_owner_may_read_and_the_umask_does_not_matter(store: KeyStore) -> None:
    umask = os.umask(0)
    try:
        key = public_key(store.create())
    finally:
        os.umask(umask)
    assert mode(store.folder) == 0o700
    assert mode(store.folder / key.hex()) == 0o600


def test_the_file_and_its_name_are_on_disk_before_the_key_is_known(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    monkeypatch.setattr("os.fsync", look)
    key = public_key(store.create())
    assert synced == [store.folder.parent.name, f".{key.hex()}.new", "agents"]


def test_a_key_that_can_not_be_written_leaves_nothing(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    store.create()
    before = sorted(store.folder.iterdir())
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Problem) as caught:
        store.create()
    assert (caught.value.status, caught.value.code) == (507, "home_unwritable")
    assert sorted(store.folder.iterdir()) == before


def test_what_is_not_here_is_none_and_removing_it_is_no_error(store: KeyStore) -> None:
    assert store.keys() == []
    assert store.secret(bytes(32)) is None
    store.remove(bytes(32))
    key = public_key(store.create())
    store.remove(key)
    assert (store.secret(key), store.keys()) == (None, [])


def test_other_files_are_no_keys(store: KeyStore) -> None:
    key = public_key(store.create())
    (store.folder / f".{key.hex()}.new").write_bytes(b"left by a crash")
    (store.folder / "README").write_bytes(b"")
    assert store.keys() == [key]


def test_a_key_that_others_can_read_is_refused_with_what_to_do(store: KeyStore) -> None:
    key = public_key(store.create())
    (store.folder / key.hex()).chmod(0o640)
    with pytest.raises(Problem, match="open to others") as caught:
        store.secret(key)
    assert caught.value.code == "secret_exposed"
    assert "chmod 600" in caught.value.action


@pytest.mark.parametrize("keep", [0, 60])
def test_a_damaged_key_is_refused_with_what_to_do(store: KeyStore, keep: int) -> None:
    key = public_key(store.create())
    path = store.folder / key.hex()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Problem) as caught:
        store.secret(key)
    assert caught.value.code == "agent_key_damaged"
    assert "backup" in caught.value.action


def test_a_key_under_the_name_of_another_is_refused(store: KeyStore) -> None:
    one, other = public_key(store.create()), public_key(store.create())
    (store.folder / one.hex()).replace(store.folder / other.hex())
    with pytest.raises(Problem, match="another key than its name says"):
        store.secret(other)
