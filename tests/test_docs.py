"""What is documented exists, and what exists is documented.

REFERENCE.md is made from the program's own tables, so it is enough that it is up to date; every other page may only
name commands, settings, files and metrics that there are.
"""

import re
from pathlib import Path

import pytest

from mcp_edge.tools import TOOLS
from node import reference
from node.cli_commands import COMMANDS, GROUPS
from node.config import KEYS, PREFIX
from node.metrics import Metrics

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("build", "node_modules") for part in path.relative_to(ROOT).parts)
)
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FOUNDATIONS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE")


def test_the_reference_is_up_to_date() -> None:
    assert reference.PATH.read_text(encoding="utf-8") == reference.render(), "run: make reference"


@pytest.mark.parametrize("name", FOUNDATIONS)
def test_the_root_pages_are_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestPage:
    def test_links_lead_somewhere(self, page: Path) -> None:
        targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        assert [target for target in targets if not (page.parent / target).exists()] == []

    def test_commands_exist(self, page: Path) -> None:
        known = {command.name for command in COMMANDS} | set(GROUPS)
        options = r"(?:--(?:home|json)(?:[ =][^\s-]\S*)? )*"
        named = re.findall(rf"cortex-node {options}([a-z]+)", page.read_text(encoding="utf-8"))
        assert {name for name in named if name not in {known_name.split()[0] for known_name in known}} <= {"is", "and"}

    def test_make_targets_exist(self, page: Path) -> None:
        named = re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))
        assert set(named) <= MAKE_TARGETS

    def test_variables_exist(self, page: Path) -> None:
        named = re.findall(rf"\b{PREFIX}[A-Z_]+\b", page.read_text(encoding="utf-8"))
        assert set(named) <= {key.variable for key in KEYS} | {"CORTEX_HOME"}

    def test_metrics_and_tools_exist(self, page: Path) -> None:
        named = re.findall(r"`(cortex_[a-z_]+)", page.read_text(encoding="utf-8"))
        assert set(named) <= {metric.name for metric in Metrics().all()} | {tool.name for tool in TOOLS}


def test_every_test_can_fail() -> None:
    assert PAGES, "no pages were found"
    assert "test" in MAKE_TARGETS
