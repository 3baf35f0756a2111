"""Every command of the command line, in one table: its name, arguments, an example, and which function does it.

Parsers and help (node/cli.py) are made from `COMMANDS`, and the test of the documentation enumerates it. The functions
are in node/commands.py, node/commands_facts.py and node/commands_files.py; they are named here as text, so that reading
the table imports none of them.

Tests: tests/node/test_cli_commands.py.
"""

import argparse
from dataclasses import dataclass
from typing import Any, Final

from node import arguments

MAX_TOP_K: Final = 500  # as the API has it (node/requests.py)
MAX_PAGE: Final = 500
MAX_DEPTH: Final = 8
MAX_ENTRIES: Final = 256  # as the API has it (node/voting/reads.py)
MAX_INDEX: Final = (1 << 62) - 1

TIME_OPTIONS: Final = ("--as-of", "--valid-from", "--valid-until")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a command, as argparse's add_argument takes it."""

    names: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `does` is `module:function`; with `settings` every key of node.toml is a flag."""

    name: str
    summary: str
    example: str
    does: str
    arguments: tuple[Argument, ...] = ()
    settings: bool = False
    more: str = ""


def _arg(*names: str, **options: Any) -> Argument:
    return Argument(names, options)


def _repeated(name: str, metavar: str, what: str, **options: Any) -> Argument:
    return _arg(name, metavar=metavar, action="append", help=f"{what}; may be repeated", **options)


_TIMES: Final = "Times: 2026-05-11T08:30:00Z, 2026-05-11, now, -3d (three days ago), 2h (in two hours)."

_ID = _arg("id", metavar="ID", help="the fact's id")
_PROJECT = _arg("--project", "-p", metavar="P", help="only this project; all when left out")
_RETRACTED = _arg("--include-retracted", action="store_true", help="show retracted facts too")
_NAME = _arg("--name", metavar="N", help="what to call this node; the machine's name when left out")
_ADDRESS = _arg("address", metavar="HOST:PORT", type=arguments.address, help="where the peer listens")
_AGENT = _arg("name", metavar="NAME", help="its name, or the first digits of its key")
_REPUTATION = _arg("--project", "-p", metavar="P", help="the project whose reputations to show (`default`)")
_VERSION = _arg("--of-version", metavar="V", help="of another version than the one that is shown")
_LOCAL = _arg("--local", action="store_true", help="what is here, however old, instead of asking a hub")


def _fact_fields(read_time: Any, also: str = "") -> tuple[Argument, ...]:
    absent = argparse.SUPPRESS
    return (
        _arg("--type", metavar="T", default=absent, help="knowledge, decision, error, rule, idea, event, ..."),
        _arg(
            "--source",
            metavar="S",
            default=absent,
            help="where it comes from" + (also and "; an empty text takes it back"),
        ),
        _arg("--confidence", metavar="C", default=absent, help="how sure it is: a word of your own, such as stated"),
        _arg("--valid-from", metavar="T", type=read_time, default=absent, help=f"when it began to be true{also}"),
        _arg("--valid-until", metavar="T", type=read_time, default=absent, help=f"when it stopped being true{also}"),
        _arg("--meta", metavar="JSON", type=arguments.json_object, default=absent, help="an object of your own"),
    )


GROUPS: Final = {
    "import": "store the facts of a file",
    "agent": "who votes: agents, their keys and reputation",
    "ledger": "the committed votes: status, proofs, verification, exports",
}
"""Words that are no command themselves, but the first word of some."""
ALIASES: Final = {"ledger": ("vote-ledger",)}
"""What users of the earlier system call them."""

COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "init",
        "found a mesh on this machine",
        "cortex-node init --name kitchen-pi",
        "commands:init",
        (_NAME, _arg("--no-hub", action="store_true", help="let nobody commit votes until `ledger takeover`")),
    ),
    Command(
        "invite",
        "let another machine join: prints a one-time code",
        "cortex-node invite --role reader --project factory-7 --ttl 1h",
        "commands:invite",
        (
            _arg("--role", choices=("admin", "member", "reader"), default="member", help="what it may do (member)"),
            _repeated("--project", "P", "a project it may have, or a pattern such as 'team/*'; all when left out"),
            _arg("--ttl", metavar="TIME", type=arguments.seconds, default=600, help="how long the code holds (10m)"),
        ),
    ),
    Command(
        "join",
        "enrol this machine with a code from `invite`",
        "cortex-node join CORTEX1-... --name field-laptop",
        "commands:join",
        (_arg("code", metavar="CODE", help="the code; - reads it from stdin"), _NAME),
    ),
    Command(
        "run",
        "run the node in the foreground",
        "cortex-node run --listen 0.0.0.0:7500",
        "commands:run",
        (
            _arg("--init", action="store_true", help="found a mesh first if there is no node here yet"),
            _arg("--on-demand", action="store_true", help="only if mcp.autostart allows it; for `cortex-node mcp`"),
        ),
        settings=True,
    ),
    Command(
        "status",
        "how the node and its peers are, and what needs attention",
        "cortex-node status --watch",
        "commands:status",
        (_arg("--watch", action="store_true", help="show it again and again, until Ctrl-C"),),
    ),
    Command("doctor", "check the installation, and say how to mend it", "cortex-node doctor --json", "commands:doctor"),
    Command(
        "config",
        "the effective settings, and where each comes from",
        "cortex-node config --template > node.toml",
        "commands:config",
        (_arg("--template", action="store_true", help="print a node.toml that explains every key instead"),),
        settings=True,
        more="The first that has a value counts: flag, environment (CORTEX_...), node.toml, profile, default.",
    ),
    Command(
        "store",
        "store a fact, and print its id",
        'cortex-node store "The spare key is with Ada" --project home --tag keys',
        "commands_facts:store",
        (
            _arg(
                "text", metavar="TEXT", nargs="?", help="the fact; - reads stdin; when left out: first line of the body"
            ),
            _arg("--body", metavar="FILE", help="a long text to go with it; - reads stdin"),
            _arg("--project", "-p", metavar="P", help="where it belongs (default)"),
            _repeated("--tag", "T", "a tag"),
            *_fact_fields(arguments.time),
        ),
        more=_TIMES,
    ),
    Command(
        "search",
        "find facts, the best match first",
        'cortex-node search "who has the spare key" --as-of -3d',
        "commands_facts:search",
        (
            _arg("query", metavar="QUERY", help="words to look for; - reads stdin"),
            _PROJECT,
            _arg("--type", metavar="T", help="only facts of this type"),
            _repeated("--tag", "T", "only facts with this tag"),
            _arg("--top-k", "-k", metavar="N", type=arguments.count(1, MAX_TOP_K), default=10, help="how many (10)"),
            _arg("--as-of", metavar="T", type=arguments.time, help="what was valid and known then"),
        ),
        more=_TIMES,
    ),
    Command(
        "get",
        "show one fact",
        "cortex-node get k7q2m4zx5tvb3nya-17",
        "commands_facts:get",
        (_ID, _RETRACTED),
    ),
    Command(
        "history",
        "every version of a fact, with author and time",
        "cortex-node history k7q2m4zx5tvb3nya-17",
        "commands_facts:history",
        (_ID,),
    ),
    Command(
        "update",
        "change a fact; what it said before stays in its history",
        'cortex-node update k7q2m4zx5tvb3nya-17 "The spare key is with Bo" --add-tag moved',
        "commands_facts:update",
        (
            _ID,
            _arg("text", metavar="TEXT", nargs="?", help="the new content; - reads stdin"),
            _arg("--append", metavar="TEXT", help="add to the end of the body; - reads stdin"),
            _arg("--body", metavar="FILE", help="replace the body; - reads stdin"),
            _arg("--edit", action="store_true", help="edit the body in $VISUAL or $EDITOR; edits of others are kept"),
            _repeated("--tag", "T", "the tags it shall have, instead of those it has; --tag '' for none"),
            _repeated("--add-tag", "T", "a tag to add", default=[]),
            _repeated("--remove-tag", "T", "a tag to remove", default=[]),
            *_fact_fields(arguments.time_or_none, also="; none takes it back"),
            _arg("--restore", action="store_true", help="take its retraction back"),
            _arg("--if-version", metavar="V", help="only if its content is still of this version"),
        ),
        more=_TIMES,
    ),
    Command(
        "retract",
        "withdraw a fact; it stays in its history",
        'cortex-node retract k7q2m4zx5tvb3nya-17 --reason "lock was changed"',
        "commands_facts:retract",
        (_ID, _arg("--reason", metavar="R", help="why")),
    ),
    Command(
        "tag",
        "add and remove tags",
        "cortex-node tag k7q2m4zx5tvb3nya-17 --add keys --remove draft",
        "commands_facts:tag",
        (
            _ID,
            _repeated("--add", "T", "a tag to add", default=[]),
            _repeated("--remove", "T", "one to remove", default=[]),
        ),
    ),
    Command(
        "link",
        "link a fact to another",
        "cortex-node link k7q2m4zx5tvb3nya-17 depends-on k7q2m4zx5tvb3nya-4",
        "commands_facts:link",
        (_ID, _arg("relation", metavar="REL", help="how they relate"), _arg("to", metavar="ID", help="the other fact")),
    ),
    Command(
        "unlink",
        "take a link away",
        "cortex-node unlink k7q2m4zx5tvb3nya-17 depends-on k7q2m4zx5tvb3nya-4",
        "commands_facts:unlink",
        (_ID, _arg("relation", metavar="REL", help="the relation"), _arg("to", metavar="ID", help="the other fact")),
    ),
    Command(
        "graph",
        "the facts linked around one",
        "cortex-node graph k7q2m4zx5tvb3nya-17 --depth 3",
        "commands_facts:graph",
        (
            _ID,
            _arg("--depth", metavar="N", type=arguments.count(0, MAX_DEPTH), default=2, help="how many links away (2)"),
        ),
    ),
    Command(
        "list",
        "list facts, the newest first",
        "cortex-node list --project home --limit 20",
        "commands_facts:list_facts",
        (
            _PROJECT,
            _arg("--limit", metavar="N", type=arguments.count(1, MAX_PAGE), default=100, help="how many (100)"),
            _arg("--cursor", metavar="C", help="go on where the page before ended"),
            _RETRACTED,
        ),
    ),
    Command(
        "export",
        "write every fact as a JSON line",
        "cortex-node export facts.jsonl",
        "commands_files:export",
        (_arg("file", metavar="FILE", help="where to; - is stdout"),),
    ),
    Command(
        "import jsonl",
        "store the facts of a file of JSON lines",
        "cortex-node import jsonl facts.jsonl",
        "commands_files:import_jsonl",
        (
            _arg("path", metavar="PATH", help="the file; - is stdin"),
            _arg("--skip-bad", action="store_true", help="leave bad lines out, instead of storing nothing"),
        ),
        more='A line is an object: {"content": "...", "project": "...", "tags": ["..."]}; other keys go into meta.\n'
        "Importing the same file again within a day stores nothing twice.",
    ),
    Command(
        "import cortex",
        "store the facts and votes of the earlier system's database",
        "cortex-node import cortex ~/.cortex/cortex.db",
        "commands_files:import_cortex",
        (
            _arg("path", metavar="PATH", help="its SQLite file; it is only read"),
            _arg("--skip-bad", action="store_true", help="leave facts out that don't fit, instead of storing nothing"),
        ),
        more="Facts keep their old ids, which every command takes. Old votes are not signed: they weigh nothing and\n"
        "count in the linear score only. Importing again stores only what is new.",
    ),
    Command(
        "mcp",
        "speak MCP over stdio, for MCP clients; starts the node if none runs",
        "cortex-node mcp",
        "commands_mcp:serve",
        more="A client starts it; to tell one to, see `cortex-node mcp install`.",
    ),
    Command(
        "mcp install",
        "add this node to the settings of an MCP client, and show the difference",
        "cortex-node mcp install claude",
        "commands_mcp:install",
        (
            _arg("client", metavar="CLIENT", choices=("claude", "vscode", "cursor"), help="claude, vscode or cursor"),
            _arg("--file", metavar="FILE", help="its settings, when they are not in the usual place"),
            _arg("--dry-run", action="store_true", help="only show the difference"),
            _arg("--undo", action="store_true", help="put back what was there before"),
        ),
    ),
    Command(
        "vote",
        "vote on a fact: says `committed` with its entry, or `pending`",
        'cortex-node vote k7q2m4zx5tvb3nya-17 up --reason "tried it"',
        "commands_votes:vote",
        (
            _ID,
            _arg("value", metavar="VALUE", choices=("up", "down", "withdraw"), help="up, down or withdraw"),
            _arg(
                "--agent", metavar="NAME", help="who votes: the owner on the founder's machine, else the machine's own"
            ),
            _arg("--reason", metavar="R", help="why; everybody can read it"),
            _VERSION,
        ),
        more="Pending is no failure: the vote counts provisionally, and a hub will commit it.",
    ),
    Command(
        "votes",
        "the votes on a fact, and what each weighs",
        "cortex-node votes k7q2m4zx5tvb3nya-17",
        "commands_votes:votes",
        (_ID, _VERSION),
    ),
    Command(
        "agent add",
        "enrol an agent of this machine, or change what it says of itself",
        'cortex-node agent add pump-watcher --about "reads the gauges"',
        "commands_votes:agent_add",
        (
            _arg("name", metavar="NAME", help="what to call it"),
            _arg("--about", metavar="TEXT", help="what it says of itself"),
        ),
    ),
    Command("agent list", "all agents", "cortex-node agent list", "commands_votes:agent_list", (_REPUTATION,)),
    Command(
        "agent show",
        "one agent, and what its votes weigh",
        "cortex-node agent show pump-watcher",
        "commands_votes:agent_show",
        (_AGENT, _REPUTATION),
    ),
    Command(
        "agent rotate",
        "give an agent a new key; its reputation goes on",
        "cortex-node agent rotate pump-watcher",
        "commands_votes:agent_rotate",
        (_AGENT,),
    ),
    Command(
        "agent revoke",
        "end an agent: it votes no more",
        "cortex-node agent revoke pump-watcher --void-from 1200",
        "commands_votes:agent_revoke",
        (
            _AGENT,
            _arg(
                "--void-from",
                metavar="INDEX",
                type=arguments.count(0, 999_999_999),
                help="its votes from this entry of the ledger on are void, too",
            ),
        ),
    ),
    Command("ledger status", "how the ledger is", "cortex-node ledger status", "commands_ledger:status", (_LOCAL,)),
    Command(
        "ledger checkpoint",
        "the newest checkpoint: what the ledger holds, signed; keep it",
        "cortex-node ledger checkpoint > kept-checkpoint",
        "commands_ledger:checkpoint",
        (_LOCAL,),
        more="With --json also who has signed it, the policy to check it by, and the time stamps.",
    ),
    Command(
        "ledger entries",
        "entries of the ledger, by index",
        "cortex-node ledger entries --start 1000",
        "commands_ledger:entries",
        (
            _arg("--start", metavar="INDEX", type=arguments.count(0, MAX_INDEX), default=0, help="the first (0)"),
            _arg("--limit", metavar="N", type=arguments.count(1, MAX_ENTRIES), default=50, help="how many (50)"),
            _LOCAL,
        ),
    ),
    Command(
        "ledger proof",
        "a receipt: proof that an entry is in the ledger",
        "cortex-node ledger proof 17 --out 17.tlog-proof",
        "commands_ledger:proof",
        (
            _arg("index", metavar="INDEX", type=arguments.count(0, MAX_INDEX), help="the entry, as `vote` tells it"),
            _arg("--out", metavar="FILE", help="write it to a file"),
            _LOCAL,
        ),
    ),
    Command(
        "ledger verify",
        "check everything: this node's ledger, or an export or a receipt without a node",
        "cortex-node ledger verify export/ --policy policy",
        "commands_ledger:verify",
        (
            _arg(
                "path",
                metavar="PATH",
                nargs="?",
                help="the folder of an export, or a .tlog-proof file; when left out: the ledger of this node",
            ),
            _arg("--policy", metavar="FILE", help="whose signatures count; an export brings one: is it from a friend?"),
            _arg("--checkpoint", metavar="FILE", help="a checkpoint that you kept: the ledger must continue it"),
            _arg("--tsa-cert", metavar="FILE", help="of a time-stamping authority, in PEM: its stamps are checked"),
        ),
        more="Exit code 3, and what is wrong where, when anything was tampered with or is damaged.",
    ),
    Command(
        "ledger export",
        "write the ledger as files that other programs can check, and check them",
        "cortex-node ledger export export/",
        "commands_ledger:export",
        (
            _arg("folder", metavar="DIR", help="a new or empty folder"),
            _arg("--project", "-p", metavar="P", help="with the texts of this project's votes only"),
        ),
    ),
    Command(
        "ledger anchor",
        "have the newest checkpoint stamped with a time by somebody outside (RFC 3161)",
        "cortex-node ledger anchor",
        "commands_ledger:anchor",
        more="Whom it asks: `tsa_url` under [anchor] in node.toml. Needs the extra `anchor`.",
    ),
    Command(
        "ledger takeover",
        "make this node the hub of the ledger, when the one that was is lost for good",
        "cortex-node ledger takeover --ca-key /media/usb/ca.key",
        "commands_ledger:takeover",
        (
            _arg("--ca-key", metavar="FILE", help="the key of the mesh's CA, where it is not in this home"),
            _arg("--abandon", action="store_true", help="go on without entries that nobody has any more"),
            _arg("--yes", action="store_true", help="don't ask"),
        ),
    ),
    Command("peers", "the peers of this node", "cortex-node peers", "commands:peers"),
    Command(
        "peers add",
        "stay connected to another node of this mesh",
        "cortex-node peers add 192.168.1.20:7400",
        "commands:peers_add",
        (_ADDRESS,),
    ),
    Command(
        "peers remove",
        "forget the address of a peer",
        "cortex-node peers remove 192.168.1.20:7400",
        "commands:peers_remove",
        (_ADDRESS,),
    ),
    Command(
        "sync",
        "exchange with peers now, and say what moved",
        "cortex-node sync",
        "commands:sync",
        (
            _arg("peer", metavar="PEER", nargs="?", help="id, name or address of one peer; all when left out"),
            _arg("--all", action="store_true", help="all peers, which is also the default"),
        ),
    ),
)
