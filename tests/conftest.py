"""What every test shares: how hypothesis searches, and which tests may not run side by side.

`make test` draws the same examples each time, so that only a change can break it; `make test-all` draws ten times as
many, new ones each time, and prints how to repeat a failure.
"""

from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("thorough", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("repeatable")

E2E = "tests/e2e/"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Real processes share ports, network namespaces and two cores: all of tests/e2e goes to one worker of xdist.

    By a scheduler, since marks do nothing here: xdist 3.8 writes a test's group into an attribute that pytest 9.2 no
    longer reads.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneWorkerForRealProcesses(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return E2E if nodeid.startswith(E2E) else nodeid

    return OneWorkerForRealProcesses(config, log)
