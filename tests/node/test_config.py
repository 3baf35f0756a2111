"""Settings: which place wins, what is refused and how, and that the template says what is true."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from node import config, requests
from node.config import KEYS, Config, effective, load, read_flag, template, write_template
from node.errors import Problem
from node.kinds import ListOf
from node.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def key(name: str) -> config.Key:
    return next(key for key in KEYS if key.name == name)


def refused(home: Home, environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None) -> Problem:
    with pytest.raises(Problem) as caught:
        load(home, environ or {}, flags or {})
    assert caught.value.exit_code == 2
    return caught.value


def test_the_table_and_what_the_program_reads_have_the_same_names() -> None:
    fields = {field.name for field in dataclasses.fields(Config)} - {"limits"}
    assert {key.name.replace(".", "_") for key in KEYS if not key.name.startswith("limits.")} == fields
    assert len({key.name for key in KEYS}) == len({key.variable for key in KEYS}) == len({key.flag for key in KEYS})


def test_the_limits_are_those_that_requests_are_held_to(home: Home) -> None:
    ours, most = load(home, {}, {}).limits, dataclasses.asdict(requests.Limits())
    assert ours.keys() == most.keys()
    assert all(ours[name] <= most[name] for name in most)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_every_default_fits_and_is_documented(key: config.Key) -> None:
    for default in (key.default, *key.by_profile.values()):
        assert key.kind.fit(default) == default
    assert key.doc.endswith(".")


def test_a_flag_goes_before_a_variable_before_the_file_before_the_default(home: Home) -> None:
    def gossip(environ: dict[str, str], flags: dict[str, Any]) -> tuple[float, str]:
        setting = next(s for s in effective(home, environ, flags) if s.key.name == "gossip_interval_s")
        return setting.value, setting.source

    assert gossip({}, {}) == (30, "default")
    home.config.write_text("gossip_interval_s = 5\n")
    assert gossip({}, {}) == (5, str(home.config))
    variable = {"CORTEX_GOSSIP_INTERVAL_S": "2.5"}
    assert gossip(variable, {}) == (2.5, "CORTEX_GOSSIP_INTERVAL_S")
    assert gossip(variable, {"gossip_interval_s": 1}) == (1, "flag")


def test_a_profile_changes_defaults_only(home: Home) -> None:
    def store(**flags: Any) -> tuple[int, str]:
        setting = next(s for s in effective(home, {}, flags) if s.key.name == "store_max_mb")
        return setting.value, setting.source

    assert store(profile="edge") == (1024, "default")
    assert store(profile="hub") == (5120, "profile hub")
    assert store(profile="hub", store_max_mb=100) == (100, "flag")


def test_tables_are_read(home: Home) -> None:
    home.config.write_text("[limits]\ntags = 3\n")
    assert load(home, {}, {}).limits["tags"] == 3
    assert load(home, {"CORTEX_LIMITS_TAGS": "4"}, {}).limits["tags"] == 4


def test_without_a_name_the_node_is_called_like_its_machine(home: Home) -> None:
    machine = load(home, {}, {}).name
    assert machine
    assert load(home, {}, {"name": ""}).name == machine
    assert load(home, {}, {"name": "kitchen-pi"}).name == "kitchen-pi"


@pytest.mark.parametrize(
    ("text", "near"),
    [("lisen = 1", "listen"), ("Listen = 1", "listen"), ("[limits]\ntag_byte = 1", "limits.tag_bytes"),
     ("tag_bytes = 1", "limits.tag_bytes"), ("gossip_interval = 1", "gossip_interval_s")],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest(home: Home, text: str, near: str) -> None:
    home.config.write_text(text)
    problem = refused(home)
    assert problem.code == "config_unknown_key"
    assert str(home.config) in problem.detail
    assert problem.action == f"did you mean {near}?"


def test_an_unknown_key_that_resembles_none_points_to_the_list(home: Home) -> None:
    home.config.write_text("zzz = 1")
    assert "cortex-node config" in refused(home).action


def test_a_slip_in_a_variable_is_named_and_variables_of_other_programs_are_not(home: Home) -> None:
    assert refused(home, {"CORTEX_LISEN": "x"}).action == "did you mean CORTEX_LISTEN?"
    load(home, {"CORTEX_RULER_STORAGE_BACKEND": "s3", "CORTEX_HOME": "/x", "PATH": "/bin"}, {})


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("gossip_interval_s = 0", "gossip_interval_s", "from 0.1 to 3600 (s)"),
        ('gossip_interval_s = "30"', "gossip_interval_s", "a number"),
        ("store_max_mb = 1.5", "store_max_mb", "a whole number from 16 to 1048576 (MB)"),
        ("store_max_mb = true", "store_max_mb", "a whole number"),
        ('listen = "here"', "listen", "HOST:PORT"),
        ('profile = "big"', "profile", '"node", "edge", "hub"'),
        ('projects = "home"', "projects", "a list of 1 to 224"),
        ("projects = []", "projects", "a list of 1 to 224"),
        ("name = 2020-01-01", "name", "text"),
        ("[listen]\nat = 2020-01-01", "listen", "HOST:PORT"),
    ],
)
def test_a_value_that_does_not_fit_names_key_file_and_range(home: Home, text: str, name: str, expected: str) -> None:
    home.config.write_text(text)
    problem = refused(home)
    assert problem.field == name
    assert str(home.config) in problem.detail
    assert name in problem.detail
    assert expected in problem.detail


def test_a_variable_that_does_not_fit_is_named(home: Home) -> None:
    problem = refused(home, {"CORTEX_STORE_MAX_MB": "plenty"})
    assert "CORTEX_STORE_MAX_MB" in problem.detail
    assert "16 to 1048576" in problem.detail


def test_a_flag_that_does_not_fit_is_named() -> None:
    with pytest.raises(Problem, match="--store-max-mb"):
        read_flag(key("store_max_mb"), ["1"])


def test_flags_of_a_list_may_be_repeated() -> None:
    assert read_flag(key("projects"), ["a,b", "c"]) == ("a", "b", "c")
    assert read_flag(key("listen"), ["a:1", "b:2"]) == "b:2"
    assert isinstance(key("projects").kind, ListOf)


@pytest.mark.parametrize("text", ["listen = ", "listen", "[limits", "a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_told_with_its_name(home: Home, text: str) -> None:
    home.config.write_text(text)
    problem = refused(home)
    assert problem.code == "config_syntax"
    assert str(home.config) in problem.detail


def test_a_file_that_cannot_be_read_is_told(home: Home) -> None:
    home.config.write_bytes(b"\xff")
    with pytest.raises(Problem, match=r"node\.toml"):
        load(home, {}, {})


@pytest.mark.parametrize(
    ("listen", "api", "fits"),
    [
        ("0.0.0.0:7400", "127.0.0.1:7400", False),
        ("127.0.0.1:7400", "127.0.0.1:7400", False),
        ("10.0.0.1:7400", "127.0.0.1:7400", True),
        ("0.0.0.0:0", "127.0.0.1:0", True),
    ],
)
def test_peers_and_api_need_two_ports(home: Home, listen: str, api: str, fits: bool) -> None:
    if fits:
        load(home, {}, {"listen": listen, "api": api})
    else:
        assert refused(home, flags={"listen": listen, "api": api}).code == "config_ports"


def test_the_template_changes_nothing_and_explains_every_key(home: Home) -> None:
    home.config.write_text(template())
    assert {setting.source for setting in effective(home, {}, {})} == {"default"}
    lines = template().splitlines()
    for known in KEYS:
        assert f"# {known.doc}" in "\n".join(lines)


def test_the_template_shows_the_true_defaults(home: Home) -> None:
    told = [
        line.removeprefix("#") for line in template().splitlines() if line.startswith(("#", "[")) and line[1:2] != " "
    ]
    home.config.write_text("\n".join(told))
    settings = effective(home, {}, {"name": "x"})
    assert [setting.value for setting in settings[1:]] == [known.default for known in KEYS[1:]]
    assert {setting.source for setting in settings[1:]} == {str(home.config)}


TABLES: dict[str, Any] = {"limits": {}, "mcp": {}, "cache": {}, "anchor": {}, "quorum": {}}


def test_the_template_takes_values_of_tables(home: Home) -> None:
    assert write_template(home, **{"quorum.engine": "solo"})
    assert load(home, {}, {}).quorum_engine == "solo"
    assert tomllib.loads(home.config.read_text())["quorum"] == {"engine": "solo"}


def test_the_template_takes_values(home: Home) -> None:
    assert write_template(home, name='the "pi"', peers=("10.0.0.1:7400",))
    assert tomllib.loads(home.config.read_text()) == {"name": 'the "pi"', "peers": ["10.0.0.1:7400"]} | TABLES


def test_a_file_that_is_there_is_never_overwritten(home: Home) -> None:
    home.config.write_text("# mine\n")
    assert not write_template(home, name="pi")
    assert home.config.read_text() == "# mine\n"


def test_a_name_that_does_not_fit_is_refused_before_anything_is_written(home: Home) -> None:
    with pytest.raises(Problem):
        write_template(home, name="a\nb")
    assert not home.config.exists()
