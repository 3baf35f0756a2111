"""Commands on the node itself: what they ask, what they call, and that each says no before it does harm."""

import io
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from node.client import NotRunning
from node.commands import Answer
from node.errors import Problem
from tests.node.command_line import call_for, perform
from tests.node.scripted_node import ScriptedNode, listening

Run = Callable[..., Answer]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with listening(tmp_path / "node.sock") as node:
        yield node


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*words: str, stdin: bytes = b"", environ: dict[str, str] | None = None) -> Answer:
        return perform(call_for(tmp_path, *words, stdin=io.BytesIO(stdin), environ=environ))

    return run


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    """Let `from node import NAME` find these functions: the tests here are about what is called, not what it does."""
    module = ModuleType(f"node.{name}")
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, f"node.{name}", module)
    monkeypatch.setattr(sys.modules["node"], name, module, raising=False)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    calls: list[Any] = []

    def found(home: Path, name: str, hub: bool = True) -> dict[str, str]:
        calls.append(("found", home, name) if hub else ("found", home, name, "no hub"))
        return {"node": "k7", "name": name, "mesh": "ff", "home": str(home)}

    def run(home: Path, overrides: dict[str, Any]) -> int:
        calls.append(("run", home, overrides))
        return 0

    stand_in(monkeypatch, "app", found=found, run=run)
    return calls


def test_init_founds_a_mesh(run: Run, app: list[Any], tmp_path: Path) -> None:
    assert run("init", "--name", "kitchen-pi").document["name"] == "kitchen-pi"
    run("init", environ={"CORTEX_NAME": "from-environment"})
    run("init", "--name", "pi", "--no-hub")
    names = [("kitchen-pi",), ("from-environment",), ("pi", "no hub")]
    assert app == [("found", tmp_path, *name) for name in names]


def test_run_needs_a_node_or_init(run: Run, app: list[Any], tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        run("run")
    assert caught.value.code == "no_node"
    assert not app
    run("run", "--init", "--name", "pi", "--limits-tags", "3", "--projects", "a", "--projects", "b")
    settings = {"name": "pi", "projects": ("a", "b"), "limits.tags": 3}
    assert app == [("found", tmp_path, "pi"), ("run", tmp_path, settings)]


def test_run_starts_the_node_that_is_there(run: Run, app: list[Any], tmp_path: Path) -> None:
    (tmp_path / "node.crt").touch()
    answer = run("run", "--init")
    assert app == [("run", tmp_path, {})]
    assert (answer.document, answer.show, answer.code) == (None, None, 0)


def test_run_refuses_bad_settings_before_it_makes_anything(run: Run, app: list[Any], tmp_path: Path) -> None:
    with pytest.raises(Problem, match="gossip_interval_s"):
        run("run", "--init", "--gossip-interval-s", "0")
    (tmp_path / "node.toml").write_text("lisen = 1")
    with pytest.raises(Problem, match="lisen"):
        run("run", "--init")
    assert not app


@pytest.fixture
def enrol(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    calls: list[Any] = []

    async def join(home: Any, code: str, name: str, now_ms: int) -> Any:
        calls.append((home.path, code, name, now_ms))
        return SimpleNamespace(
            identity=SimpleNamespace(node_id="k7", mesh_id=b"\xff\x00"),
            member=SimpleNamespace(name=name, role="reader"),
            peers=("10.0.0.1:7400",),
        )

    stand_in(monkeypatch, "enrol", join=join)
    return calls


def test_join_enrols_and_remembers_its_first_peers(run: Run, enrol: list[Any], tmp_path: Path) -> None:
    answer = run("join", "CORTEX1-ABC", "--name", "laptop")
    assert enrol[0][:3] == (tmp_path, "CORTEX1-ABC", "laptop")
    expected = {"node": "k7", "name": "laptop", "mesh": "ff00", "role": "reader", "peers_written": True}
    assert answer.document.items() >= expected.items()
    written = tomllib.loads((tmp_path / "node.toml").read_text())
    assert (written["name"], written["peers"]) == ("laptop", ["10.0.0.1:7400"])


def test_join_reads_the_code_from_stdin_and_leaves_a_node_toml_alone(
    run: Run, enrol: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "node.toml").write_text('name = "mine"\n')
    answer = run("join", "-", stdin=b"CORTEX1-ABC\n")
    assert enrol[0][1:3] == ("CORTEX1-ABC", "mine")
    assert answer.document["peers_written"] is False
    assert (tmp_path / "node.toml").read_text() == 'name = "mine"\n'


def test_invite(node: ScriptedNode, run: Run) -> None:
    node.answer("POST", "/v1/invitations", (201, {"code": "CORTEX1-ABC"}))
    run("invite")
    run("invite", "--role", "reader", "--project", "a", "--project", "team/*", "--ttl", "1h")
    assert [asked.body for asked in node.asked] == [
        {"role": "member", "projects": ["*"], "ttl_s": 600},
        {"role": "reader", "projects": ["a", "team/*"], "ttl_s": 3600},
    ]


def test_peers(node: ScriptedNode, run: Run) -> None:
    node.answer("GET", "/v1/peers", {"peers": []})
    node.answer("POST", "/v1/peers", (201, {"peers": []}))
    node.answer("DELETE", "/v1/peers/%5Bfd00%3A%3A5%5D%3A7400", {"peers": []})
    run("peers")
    run("peers", "add", "hub:7400")
    run("peers", "remove", "[fd00::5]:7400")
    assert [(asked.method, asked.body) for asked in node.asked] == [
        ("GET", None),
        ("POST", {"address": "hub:7400"}),
        ("DELETE", None),
    ]


@pytest.mark.parametrize(
    ("reasons", "code"), [([], 0), ([None], 0), (["offline", None], 0), (["offline"], 1), (["offline", "busy"], 1)]
)
def test_sync_fails_when_no_peer_was_reached(
    node: ScriptedNode, run: Run, reasons: list[str | None], code: int
) -> None:
    node.answer("POST", "/v1/sync", {"rounds": [{"peer": "x", "reason": reason} for reason in reasons]})
    assert run("sync").code == code
    assert run("sync", "--all").code == code
    assert run("sync", "hub").code == code
    assert [asked.body for asked in node.asked] == [{}, {}, {"peer": "hub"}]


@pytest.mark.parametrize(
    "words",
    [("status",), ("peers",), ("sync",), ("invite",), ("get", "x"), ("store", "x"), ("export", "-"), ("list",)],
    ids=" ".join,
)
def test_what_needs_the_node_says_that_it_is_not_running(run: Run, words: tuple[str, ...]) -> None:
    with pytest.raises(NotRunning):
        run(*words)


def test_config_shows_every_key_and_where_it_comes_from(run: Run, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("store_max_mb = 50\n")
    document = run("config", "--listen", "127.0.0.1:1", environ={"CORTEX_PROFILE": "hub"}).document
    found = {setting["key"]: (setting["value"], setting["source"]) for setting in document["settings"]}
    assert found["store_max_mb"] == (50, str(tmp_path / "node.toml"))
    assert found["listen"] == ("127.0.0.1:1", "flag")
    assert found["profile"] == ("hub", "CORTEX_PROFILE")
    assert found["api"] == ("127.0.0.1:7401", "default")


def test_config_prints_a_template(run: Run) -> None:
    template = tomllib.loads(run("config", "--template").document["template"])
    assert not any(template.values()), "everything is commented out"


def test_doctor_fails_when_a_check_fails(run: Run, tmp_path: Path) -> None:
    free = {"CORTEX_LISTEN": "127.0.0.1:0", "CORTEX_API": "127.0.0.1:0"}
    healthy = run("doctor", environ=free)
    assert (healthy.code, healthy.document["ok"]) == (0, True)
    (tmp_path / "node.toml").write_text("lisen = 1")
    ailing = run("doctor", environ=free)
    assert (ailing.code, ailing.document["ok"]) == (1, False)
