"""Fixtures of tests/e2e. Nodes are started once a module where its tests can share them."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.pairs import Pair, running_pair


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one instead of pytest's own: the path of a node's socket may have 107 bytes."""
    with TemporaryDirectory(prefix="cortex-e2e-") as place:
        yield Path(place)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two nodes that run and agree when the module begins."""
    with TemporaryDirectory(prefix="cortex-e2e-") as place, running_pair(Path(place)) as pair:
        yield pair
