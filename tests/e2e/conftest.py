"""Fixtures of tests/e2e. Nodes are started once a module where its tests can share them."""

from collections.abc import Iterator

import pytest

from tests.e2e.pairs import Pair, running_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two nodes that run and agree when the module begins. Short paths: a socket's may have 107 bytes."""
    with running_pair(tmp_path_factory.mktemp("pair")) as pair:
        yield pair
