"""The table of commands: each is whole, can be parsed, and leads to a function."""

import shlex
from importlib import import_module
from inspect import signature

import pytest

from node import requests
from node.cli import parser
from node.cli_commands import COMMANDS, GROUPS, MAX_DEPTH, MAX_PAGE, MAX_TOP_K, TIME_OPTIONS, Command

PART_1 = """
    init invite join run status doctor config store search get history update retract tag link unlink graph list export
    import peers sync mcp ledger vote votes agent
""".split()


def test_no_command_is_missing_or_there_twice() -> None:
    assert {command.name.split()[0] for command in COMMANDS} == set(PART_1)
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)
    assert {command.name.split()[0] for command in COMMANDS} - {command.name for command in COMMANDS} == GROUPS.keys()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_leads_to_a_function_of_a_call(command: Command) -> None:
    module, _, function = command.does.partition(":")
    assert list(signature(getattr(import_module(f"node.{module}"), function)).parameters) == ["call"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_example_of_a_command_is_one(command: Command) -> None:
    program, *words = shlex.split(command.example.partition(" > ")[0])
    assert program == "cortex-node"
    assert parser().parse_args([word for word in words if word != "-3d" and word != "--as-of"]).command is command


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_argument_is_explained(command: Command) -> None:
    assert command.summary[0].islower() and not command.summary.endswith(".")
    for argument in command.arguments:
        assert argument.options["help"], argument


def test_bounds_are_those_of_the_api() -> None:
    assert (MAX_TOP_K, MAX_PAGE, MAX_DEPTH) == (requests.MAX_TOP_K, requests.MAX_PAGE, requests.MAX_DEPTH)


def test_every_option_that_takes_a_time_is_known_to_the_reader_of_relative_times() -> None:
    names = {name for command in COMMANDS for argument in command.arguments for name in argument.names}
    assert set(TIME_OPTIONS) <= names
    assert {name for name in names if name.startswith("--valid") or name == "--as-of"} == set(TIME_OPTIONS)
