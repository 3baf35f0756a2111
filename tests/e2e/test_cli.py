"""Every command once for real, as people and as scripts use it, with the exit codes that are promised.

The table of commands says what there is; a command that no case here runs fails `test_no_command_is_left_out`.
"""

import json
import os
import pty
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.local_nodes import LOOPBACK, PROGRAM, LocalNode, clean_environment, found, wait_until
from node.cli_commands import COMMANDS
from node.requests import FactDraft
from tests.e2e.pairs import Pair
from tests.node.cortex import Cortex

WITHOUT_A_NODE = frozenset({"doctor", "config"})
"""These work when no node runs; every other command below ends with 4 then."""


@dataclass(frozen=True)
class Case:
    """One command. `{first}`, `{second}` and so on in its arguments are filled in; `keys` are in its document."""

    command: str
    arguments: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
    says: str = ""
    given: bytes = b""


def case(command: str, *arguments: str, keys: str = "", says: str = "", given: bytes = b"") -> Case:
    return Case(command, arguments, frozenset(keys.split()), says, given)


CASES = (
    case("status", keys="node resources projects peers warnings", says="profile node"),
    case("doctor", keys="ok checks", says="sqlite"),
    case("config", keys="home file settings", says="gossip_interval_s"),
    case("config", "--template", keys="template", says="# Settings of this cortex-node"),
    case(
        "invite",
        "--ttl",
        "1h",
        "--project",
        "lab/*",
        keys="code addresses ca_fingerprint role expires_at",
        says="CORTEX1-",
    ),
    case("store", "stored by a case", "--tag", "t", "--type", "idea", keys="id content tags version", says="-"),
    case("store", "-", keys="id", says="-", given="from stdin: größer\n".encode()),
    case("store", "--body", "-", keys="id body", says="-", given=b"# A title\n\nand a text\n"),
    case("search", "spare key", "-k", "3", keys="results mode as_of freshness", says="The spare key is with Ada"),
    case("search", "spare key", "--as-of", "-1d", keys="results", says="nothing found"),
    case("search", "-", keys="results", says="The spare key is with Ada", given=b"spare key\n"),
    case("get", "{first}", keys="id content tags links conflict author", says="The spare key is with Ada"),
    case("history", "{first}", keys="id versions", says="current"),
    case(
        "update",
        "{second}",
        "The lock was changed",
        "--add-tag",
        "lock",
        keys="id version",
        says="The lock was changed",
    ),
    case("tag", "{second}", "--add", "a", "--add", "b", "--remove", "a", keys="tags", says="#b"),
    case("link", "{second}", "replaces", "{first}", keys="links", says="{second}"),
    case("graph", "{second}", "--depth", "1", keys="nodes edges truncated", says="replaces -> {first}"),
    case("unlink", "{second}", "replaces", "{first}", keys="links", says="{second}"),
    case("list", "--limit", "2", keys="facts next_cursor", says="more with: --cursor"),
    case("retract", "{third}", "--reason", "it was wrong", keys="retracted", says="it was wrong"),
    case("export", "{place}/facts.jsonl", keys="file facts", says="facts written to"),
    case("import jsonl", "{place}/facts.jsonl", keys="stored already_stored links bad", says="stored"),
    case("import cortex", "{place}/cortex.db", keys="stored already_stored votes bad missing", says="stored"),
    case("peers", keys="peers", says="beta"),
    case("peers add", f"{LOOPBACK}:1", keys="address", says="added"),
    case("peers remove", f"{LOOPBACK}:1", keys="address removed", says="removed"),
    case("sync", keys="rounds", says="same"),
    case("sync", "beta", keys="rounds", says="same"),
    case("vote", "{first}", "up", "--reason", "saw it", keys="vote_id state entry proof trust", says="committed #"),
    case("vote", "{second}", "withdraw", "--agent", "scout", keys="state own", says="committed #"),
    case("votes", "{first}", keys="fact_id version votes next_counter", says="{first}"),
    case("agent add", "scout", "--about", "walks the halls", keys="name key state", says="walks the halls"),
    case("agent list", keys="agents", says="owner"),
    case("agent show", "owner", keys="name reputation weight reputations", says="1000 of 1000"),
    case("agent rotate", "scout", keys="name key principal", says="first key"),
    case("agent revoke", "scout", "--void-from", "3", keys="name state", says="revoked"),
    case("ledger status", keys="ledger size votes root checkpoint epoch", says="here     whole"),
    case("ledger checkpoint", "--local", keys="origin size root checkpoint", says="cortex-node/ledger/"),
    case("ledger entries", "--limit", "2", keys="entries next", says="more with: --start 2"),
    case("ledger proof", "1", keys="index entry size hashes receipt", says="c2sp.org/tlog-proof"),
    case("ledger proof", "1", "--out", "{place}/1.tlog-proof", keys="file index", says="entry 1 of"),
    case("ledger verify", keys="ok checked findings", says="ok: "),
    case("ledger export", "{place}/ledger", keys="ok folder files", says="anybody can check it"),
)
ELSEWHERE = {"init", "join", "run", "mcp", "mcp install", "ledger anchor", "ledger takeover"}
"""Done for real wherever a node is made (bench/local_nodes.py, and below), by the tests of mcp_edge and of anchoring,
and where a hub is lost (tests/e2e/test_votes.py)."""


@pytest.fixture(scope="module")
def ids(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Facts to work on, and a place for files."""
    first, second, third = pair.alpha.store("The spare key is with Ada", "The lock is old", "The door is green")
    place = tmp_path_factory.mktemp("files")
    pair.alpha.run("export", str(place / "facts.jsonl"))
    Cortex(place / "cortex.db").fact()
    return {"first": first["id"], "second": second["id"], "third": third["id"], "place": str(place)}


def test_no_command_is_left_out() -> None:
    assert {command.name for command in COMMANDS} - {case.command for case in CASES} - ELSEWHERE == set()


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("case", CASES, ids=[" ".join((case.command, *case.arguments)) for case in CASES])
def test_it_does_what_it_says(pair: Pair, ids: dict[str, str], case: Case, as_json: bool) -> None:
    words = [*case.command.split(), *(word.format(**ids) for word in case.arguments)]
    prepare(pair.alpha, ids, case)
    done = pair.alpha.run(*words, *(["--json"] if as_json else []), given=case.given)
    assert (done.returncode, done.stderr) == (0, "")
    if as_json:
        assert case.keys <= json.loads(done.stdout).keys()
    else:
        assert case.says.format(**ids) in done.stdout


def prepare(node: LocalNode, ids: dict[str, str], case: Case) -> None:
    """What the command takes away has to be there, also the second time, and what it makes has to be gone."""
    link = {"relation": "replaces", "to": ids["first"]}
    if "scout" in case.arguments and case.command != "agent add":
        node.client.call("POST", "/v1/agents", {"name": "scout"})
    match case.command:
        case "ledger export":
            shutil.rmtree(Path(ids["place"], "ledger"), ignore_errors=True)
        case "unlink":
            node.client.call("POST", f"/v1/facts/{ids['second']}/links", link)
        case "retract":
            node.client.call("PATCH", f"/v1/facts/{ids['third']}", {"restore": True})
        case "peers remove":
            node.client.call("POST", "/v1/peers", {"address": f"{LOOPBACK}:1"})
        case _:
            pass


# Without a node


@pytest.mark.parametrize("name", sorted({case.command for case in CASES} - WITHOUT_A_NODE))
def test_code_4_when_the_node_is_not_running(tmp_path: Path, name: str) -> None:
    example = next(case for case in CASES if case.command == name)
    ids = dict.fromkeys(("first", "second", "third"), "aaaaaaaaaaaaaaaa-1") | {"place": str(tmp_path)}
    (tmp_path / "facts.jsonl").write_text('{"content": "x"}\n')
    Cortex(tmp_path / "cortex.db").fact()
    words = [*name.split(), *(word.format(**ids) for word in example.arguments)]
    done = LocalNode(tmp_path / "none", {}).run(*words, "--json", given=example.given)
    assert done.returncode == 4
    assert "cortex-node run" in done.stderr
    assert json.loads(done.stdout)["code"] == "not_running"


def test_what_works_without_a_running_node(tmp_path: Path) -> None:
    node = found(tmp_path / "n", "n")
    assert node.run("config").returncode == 0
    assert node.run("doctor").returncode == 0, node.run("doctor").stdout
    assert "cortex-node init" in LocalNode(tmp_path / "none", {}).run("doctor").stdout
    node.home.key.chmod(0o644)
    assert node.run("doctor").returncode == 1, "a key that others can read is a failed check"
    node.home.key.chmod(0o600)
    again = node.run("init")
    assert again.returncode == 1
    assert LocalNode(tmp_path / "none", {}).run("run").returncode == 1


def test_help_version_and_mistakes(tmp_path: Path) -> None:
    node = LocalNode(tmp_path / "none", {})
    assert node.run("--help").returncode == 0
    assert node.run("--version").stdout.startswith("cortex-node ")
    assert node.run().returncode == 2
    assert node.run("serach", "x").returncode == 2
    for command in COMMANDS:
        if command.name.startswith("peers"):
            done = node.run(*command.name.split(), "--help")
            assert done.returncode == 0
            assert command.example in done.stdout


def test_run_init_founds_a_mesh_and_greets_in_five_lines(tmp_path: Path) -> None:
    with LocalNode(tmp_path / "fresh", {"name": "fresh"}) as node:
        node.home.path.mkdir()
        node.start("--init")
        greeting = wait_until("it has greeted", lambda: node.read_log().splitlines()[:5])
        assert [line.split()[0] for line in greeting] == ["node", "data", "REST", "peers", "MCP"]
        assert node.run("store", "The first fact").returncode == 0
        assert node.stop() == 0
        assert not node.home.socket.exists()


# Files, pipes, signals


def test_an_export_imported_into_a_fresh_mesh_gives_the_same_facts(pair: Pair, tmp_path: Path) -> None:
    alpha = pair.alpha
    alpha.store(
        {"content": 'quoted "text" with ünïcode and a\nline end', "tags": ["a b", "c"], "project": "p/q"},
        {"content": "dated", "valid_from": "2026-01-01T00:00:00Z", "valid_until": "2026-02-01T00:00:00Z"},
        {"content": "with a body", "body": "line one\nline two\n", "meta": {"deep": {"list": [1, 2.5, None]}}},
    )
    exported = alpha.run("export", "-")
    assert exported.returncode == 0
    with found(tmp_path / "fresh", "fresh").start() as fresh:
        done = fresh.run("import", "jsonl", "-", given=exported.stdout.encode())
        assert done.returncode == 0, done.stderr
        assert sorted(map(told, fresh.facts().values())) == sorted(map(told, alpha.facts().values()))
        links = {name_of(alpha, link) for link in links_of(alpha)}
        assert {name_of(fresh, link) for link in links_of(fresh)} == links
        again = fresh.tell("import", "jsonl", "-", given=exported.stdout.encode())
        assert (again["stored"], again["already_stored"]) == (0, len(alpha.facts()))


def told(fact: dict[str, Any]) -> str:
    """What a user has said, without what the node says about it."""
    meta = {name: value for name, value in fact["meta"].items() if name != "imported"}
    return json.dumps({name: fact[name] for name in FactDraft.__struct_fields__} | {"meta": meta}, sort_keys=True)


def links_of(node: LocalNode) -> list[tuple[str, str, str]]:
    return [(fact["id"], one["relation"], one["to"]) for fact in node.facts().values() for one in fact["links"]]


def name_of(node: LocalNode, link: tuple[str, str, str]) -> tuple[str, str, str]:
    """A link by the contents of its ends: ids differ from mesh to mesh."""
    facts = node.facts()
    return facts[link[0]]["content"], link[1], facts[link[2]]["content"]


def test_a_bad_line_stores_nothing(pair: Pair) -> None:
    before = pair.alpha.knowledge()
    lines = b'{"content": "good"}\n{"content": ""}\nno json\n'
    done = pair.alpha.run("import", "jsonl", "-", given=lines)
    assert done.returncode == 2
    assert "line 2" in done.stdout
    assert "line 3" in done.stdout
    assert pair.alpha.knowledge() == before
    report = pair.alpha.tell("import", "jsonl", "-", "--skip-bad", given=lines)
    assert (report["stored"], report["bad_lines"]) == (1, 2)


def test_a_pipe_that_closes_early_is_no_error(pair: Pair) -> None:
    many = pair.alpha.store(*({"content": "x" * 1_000, "project": "pipes"} for _ in range(300)))
    for command in ("list --project pipes --limit 300", "export -", "list --project pipes --limit 300 --json"):
        shell = f"{' '.join(PROGRAM)} --home '{pair.alpha.home.path}' {command} | head -n 1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", shell], env=clean_environment(), capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "0"
    assert len(many) == 300


def test_ctrl_c_ends_a_command_with_130(pair: Pair) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--home", str(pair.alpha.home.path), "status", "--watch"],
        env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as watching:  # fmt: skip
        assert watching.stdout
        assert watching.stderr
        assert watching.stdout.readline().startswith("alpha")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
        assert watching.stderr.read() == ""


def test_ctrl_c_stops_a_node_cleanly(tmp_path: Path) -> None:
    with found(tmp_path / "n", "n").start() as node:
        assert node.process
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(20) == 0
        assert not node.home.socket.exists()


def test_on_a_terminal_a_watched_status_is_drawn_anew(pair: Pair) -> None:
    parent, child = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, "--home", str(pair.alpha.home.path), "status", "--watch"],
        env=clean_environment(TERM="xterm"), stdin=child, stdout=child, stderr=child,
    ) as watching:  # fmt: skip
        os.close(child)
        seen = b""
        while b"alpha" not in seen:
            seen += os.read(parent, 4_096)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    os.close(parent)
    assert b"\x1b[2J" in seen


def test_sync_with_somebody_who_is_away_says_so(pair: Pair) -> None:
    done = pair.alpha.run("sync", "gamma")
    assert done.returncode == 5
    assert "gamma" in done.stderr
