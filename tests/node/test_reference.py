"""The reference names everything that the program has."""

from node import reference
from node.cli_commands import COMMANDS
from node.config import KEYS
from node.metrics import Metrics


def test_it_names_every_command_with_every_argument() -> None:
    page = reference.render()
    for command in COMMANDS:
        assert f"**`{command.name}`**" in page
        for argument in command.arguments:
            assert argument.names[-1] in page or argument.options["metavar"] in page


def test_it_names_every_setting_and_metric() -> None:
    page = reference.render()
    for name in [key.name for key in KEYS] + [key.variable for key in KEYS] + [m.name for m in Metrics().all()]:
        assert f"`{name}`" in page


def test_bars_in_a_cell_do_not_end_it() -> None:
    assert list(reference._table(("a",), [("x|y",)]))[2] == "| x\\|y |"
