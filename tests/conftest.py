"""What every test shares: how hypothesis searches, and which tests may not run side by side.

`make test` draws the same examples each time, so that only a change can break it; `make test-all` draws ten times as
many, new ones each time, and prints how to repeat a failure.
"""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("thorough", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("repeatable")

E2E = Path(__file__).parent / "e2e"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real processes share ports, network namespaces and two cores: all of tests/e2e goes to one worker of xdist."""
    for item in items:
        if item.path.is_relative_to(E2E) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("e2e"))
