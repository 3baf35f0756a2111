"""The home directory: who decides where it is, and what counts as founded."""

from pathlib import Path

import pytest

from node.paths import Home, default_home

USER = Path("/home/ada")


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({}, "linux", "/home/ada/.local/share/cortex-node"),
        ({"XDG_DATA_HOME": "/data"}, "linux", "/data/cortex-node"),
        ({"XDG_DATA_HOME": "data"}, "linux", "/home/ada/.local/share/cortex-node"),
        ({"XDG_DATA_HOME": ""}, "linux", "/home/ada/.local/share/cortex-node"),
        ({}, "darwin", "/home/ada/Library/Application Support/cortex-node"),
        ({"CORTEX_HOME": "/srv/node", "XDG_DATA_HOME": "/data"}, "linux", "/srv/node"),
        ({"CORTEX_HOME": "/srv/node"}, "darwin", "/srv/node"),
    ],
)
def test_the_default_home(environ: dict[str, str], platform: str, expected: str) -> None:
    assert default_home(environ, USER, platform) == Path(expected)


def test_a_home_is_founded_once_the_node_has_a_certificate(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.key.touch()  # a `join` that was refused leaves a key at most
    assert not home.founded
    home.certificate.touch()
    assert home.founded


def test_every_file_lies_in_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    files = {home.config, home.database, home.lock, home.certificate, home.ca_certificate, *home.secrets, home.agents}
    assert len(files) == 11
    assert {file.parent for file in files} == {tmp_path}
