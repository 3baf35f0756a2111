"""The settings of a node: one table of keys, and where each effective value comes from.

A value is taken from the first place that names its key: a flag of the command line, the environment, HOME/node.toml,
the profile, the default. `KEYS` is the only definition: flags, variables, checks, `cortex-node config` and the
commented node.toml are made from it, and `Config` gives its values to the program.

Nothing is guessed. An unknown key is an error that names the nearest one; a value that doesn't fit names its key, where
it stands and what would fit. A variable CORTEX_... that resembles no key is left alone: other programs use the prefix.

Limits under `limits` bind what this node accepts from its own users. What it may receive from peers is bounded by
constants of the protocol, since validity must not depend on a node's settings (crdt/op.py).

Tests: tests/node/test_config.py.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from node.errors import Problem
from node.kinds import Address, Choice, Kind, ListOf, Number, OrNothing, Switch, Text, toml
from node.paths import HOME_VARIABLE, Home

PREFIX = "CORTEX_"
PROFILES = ("node", "edge", "hub")

# difflib's measure from which two names count as a slip of the finger: `lisen` and `listen` have 0.91.
NEAR = 0.75


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `name` is dotted where the key lies in a table; `by_profile` are defaults that a profile changes."""

    name: str
    kind: Kind
    default: Any
    doc: str
    by_profile: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variable(self) -> str:
        return PREFIX + self.name.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace(".", "-").replace("_", "-")


KEYS: tuple[Key, ...] = (
    Key("name", Text(64), "", "What this node is called in `peers` and `status`. Empty: the machine's name."),
    Key("listen", Address(), "0.0.0.0:7400", "Where peers reach this node (TLS 1.3 with both certificates)."),
    Key("api", Address(), "127.0.0.1:7401", "Where REST is served over TCP, with the token in HOME/token."),
    Key(
        "projects",
        ListOf(Text(128, least=1), 1, 224),
        ("*",),
        'Projects that this node carries: names, or patterns such as "team/*".',
    ),
    Key("peers", ListOf(Address(), 0, 64), (), "Addresses of nodes to stay connected to, besides `peers add`."),
    Key(
        "advertise",
        ListOf(Address(), 0, 16),
        (),
        "Addresses that are put into invitations. Empty: every address of this machine, with the port of `listen`.",
    ),
    Key(
        "gossip_interval_s",
        Number(0.1, 3600, "s", whole=False),
        30,
        "The longest wait between two rounds with a peer; after something differed rounds come sooner.",
    ),
    Key("metered", Switch(), False, "Whether each byte is paid for: then rounds are at most every 300 s."),
    Key(
        "bytes_per_second",
        Number(0, 10**9, "bytes/s"),
        0,
        "The most that is sent to all peers together; fresh writes go first. 0: as fast as the network is.",
    ),
    Key("mdns", Switch(), True, "Whether to find peers on the local network, and be found there (mDNS)."),
    Key(
        "interfaces",
        ListOf(Text(15, least=1), 0, 16),
        (),
        "Network interfaces for mDNS. Empty: every one that leads to another machine.",
    ),
    Key("profile", Choice(PROFILES), "node", "Which defaults apply: an ordinary machine, a small one, or a hub."),
    Key(
        "store_max_mb",
        Number(16, 1_048_576, "MB"),
        1024,
        "The most disk that the database may take; beyond it writes are refused.",
        {"hub": 5120},
    ),
    Key(
        "memory_max_mb",
        Number(32, 1_048_576, "MB"),
        128,
        "The most memory that this node may take; before it is used up, caches, audits and bulk work give way.",
        {"hub": 256},
    ),
    Key(
        "rate_per_second",
        Number(0, 1_000_000, "calls/s"),
        10_000,
        "The most calls of one client, over REST or MCP; beyond it: 429. 0: no limit.",
    ),
    Key(
        "concurrent_calls",
        Number(1, 10_000, "calls"),
        64,
        "Calls that work at a time; others wait in a fair queue.",
    ),
    Key(
        "request_timeout_s",
        Number(1, 3600, "s"),
        30,
        "A call that is not done by then, waiting included, is given up: 503.",
    ),
    Key(
        "cache_entries",
        Number(0, 1_000_000, "answers"),
        2_000,
        "Answers kept in memory until they change. 0: none.",
        {"edge": 500, "hub": 20_000},
    ),
    Key(
        "cache_max_mb",
        Number(1, 65_536, "MB"),
        8,
        "The most memory that kept answers may take.",
        {"edge": 4, "hub": 32},
    ),
    Key(
        "embedding",
        Choice(("table", "minilm", "none")),
        "table",
        "What search by meaning is done with: the table in this package, MiniLM (extra `hub`), or nothing.",
    ),
    Key(
        "api_tls",
        Choice(("auto", "on", "off")),
        "auto",
        "TLS on `api`, with this node's certificate. auto: unless it is bound to loopback only.",
    ),
    Key(
        "http2",
        OrNothing(Address()),
        "",
        "Where a hub serves MCP over HTTP/2 besides (needs the extra `hub`). Empty: nowhere.",
    ),
    Key(
        "mcp.autostart",
        Switch(),
        True,
        "Whether `cortex-node mcp` starts this node when it doesn't run.",
    ),
    Key(
        "cache.redis",
        Text(500),
        "",
        "A Redis that keeps answers besides, such as redis://127.0.0.1:6379/0 (extra `redis`). Empty: none.",
    ),
    Key(
        "anchor.tsa_url",
        Text(500),
        "",
        "Who stamps checkpoints with a time (RFC 3161) when `ledger anchor` asks (extra `anchor`). Empty: nobody.",
    ),
    Key(
        "quorum.engine",
        Choice(("none", "solo")),
        "none",
        "How this node commits votes, if the mesh grants it: solo is a quorum of one, its own disk.",
    ),
    Key("limits.content_bytes", Number(1, 65_536, "bytes"), 65_536, "The longest `content` of a fact, as UTF-8."),
    Key("limits.body_bytes", Number(0, 1_048_576, "bytes"), 1_048_576, "The longest `body` of a fact, as UTF-8."),
    Key("limits.tags", Number(0, 64, "tags"), 64, "The most tags that a fact may have."),
    Key("limits.tag_bytes", Number(1, 128, "bytes"), 128, "The longest tag, as UTF-8."),
    Key("limits.query_chars", Number(1, 2000, "characters"), 2000, "The longest query of a search."),
    Key("limits.batch", Number(1, 1000, "facts"), 1000, "The most facts that one request may store."),
)


DEFAULTS: Mapping[str, Any] = {key.name: key.default for key in KEYS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The effective values of KEYS, under the same names; a dot is an underscore here."""

    name: str
    listen: str
    api: str
    projects: tuple[str, ...]
    peers: tuple[str, ...]
    advertise: tuple[str, ...]
    gossip_interval_s: float
    metered: bool
    bytes_per_second: int
    mdns: bool
    interfaces: tuple[str, ...]
    profile: str
    store_max_mb: int
    memory_max_mb: int
    rate_per_second: int
    concurrent_calls: int
    request_timeout_s: int
    cache_entries: int
    cache_max_mb: int
    embedding: str
    api_tls: str
    http2: str
    mcp_autostart: bool
    cache_redis: str
    anchor_tsa_url: str
    quorum_engine: str
    limits: Mapping[str, int]
    """The fields of node.requests.Limits."""

    @property
    def is_hub(self) -> bool:
        """Whether peers should prefer this node: it gathers a fleet, or commits votes."""
        return self.profile == "hub" or self.quorum_engine != "none"


@dataclass(frozen=True, slots=True)
class Setting:
    """An effective value and where it comes from: `flag`, a variable, a file, `profile hub`, or `default`."""

    key: Key
    value: Any
    source: str


def load(home: Home, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """The effective settings of the node in `home`. `flags`: values by the name of their key. Raises Problem."""
    values = {setting.key.name: setting.value for setting in effective(home, environ, flags)}
    limits = {name.removeprefix("limits."): values.pop(name) for name in list(values) if name.startswith("limits.")}
    return Config(**{name.replace(".", "_"): value for name, value in values.items()}, limits=limits)


def effective(home: Home, environ: Mapping[str, str], flags: Mapping[str, Any]) -> list[Setting]:
    """Every key with its effective value, in the order of KEYS. Raises Problem for anything that doesn't fit."""
    places = (
        {name: ("flag", value) for name, value in flags.items()},
        _from_environment(environ),
        {name: (str(home.config), value) for name, value in _from_file(home)},
    )
    names = [key.name for key in KEYS]
    for place in places:
        for name, (source, _) in place.items():
            if name not in names:
                raise _unknown(source, name, names)
    checked = [
        {key.name: Setting(key, _fit(key, *place[key.name]), place[key.name][0]) for key in KEYS if key.name in place}
        for place in places
    ]
    told = checked[2] | checked[1] | checked[0]
    profile = told["profile"].value if "profile" in told else _key("profile").default
    if "name" in told and not told["name"].value:
        del told["name"]
    settings = [told.get(key.name) or _default(key, profile) for key in KEYS]
    _check_ports({setting.key.name: setting for setting in settings})
    return settings


def template(**values: Any) -> str:
    """A node.toml that explains every key and sets those given, by their dotted names. Raises Problem."""
    chosen = {name: _fit(_key(name), "the value given", value) for name, value in values.items()}
    lines = [
        "# Settings of this cortex-node. What is commented out shows its default.",
        "# A flag or a CORTEX_... variable goes before this file; `cortex-node config` shows what is in effect.",
        "# Changes take effect when the node starts.",
    ]
    table = ""
    for key in KEYS:
        above, _, last = key.name.rpartition(".")
        if above != table:
            lines += ["", f"[{above}]"]
            table = above
        unless = "".join(f" With profile {profile}: {toml(value)}." for profile, value in key.by_profile.items())
        lines += ["", f"# {key.doc}{unless}", f"# {key.kind.expected[0].upper()}{key.kind.expected[1:]}."]
        set_here = bool(chosen.get(key.name))
        lines.append(f"{'' if set_here else '#'}{last} = {toml(chosen[key.name] if set_here else key.default)}")
    return "\n".join(lines) + "\n"


def write_template(home: Home, **values: Any) -> bool:
    """Write `template` to HOME/node.toml unless there is one; False if there is. Raises Problem."""
    text = template(**values)
    try:
        with home.config.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        action = "free some space, or make the directory writable"
        raise Problem(507, "config_unwritable", f"{home.config} can't be written: {error}", action) from error
    return True


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    keys = {key.variable: key for key in KEYS}
    found: dict[str, tuple[str, Any]] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == HOME_VARIABLE:
            continue
        if key := keys.get(variable):
            found[key.name] = (variable, _read(key, variable, text))
        elif _nearest(variable.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in keys]):
            raise _unknown("the environment", variable, list(keys))
    return found


def _from_file(home: Home) -> Iterator[tuple[str, Any]]:
    import tomllib  # the command line knows KEYS, and seldom reads a file

    try:
        text = home.config.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(500, "config_unreadable", f"{home.config} can't be read: {error}", "make it readable") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        action = "mend the line; `cortex-node config --template` prints an example"
        raise Problem(400, "config_syntax", f"{home.config} is not TOML: {error}", action) from error
    tables = {key.name.partition(".")[0] for key in KEYS if "." in key.name}
    for name, value in document.items():
        if isinstance(value, dict) and name in tables:
            yield from ((f"{name}.{inner}", inside) for inner, inside in value.items())
        else:
            yield name, value


def read_flag(key: Key, texts: list[str]) -> Any:
    """The value of a flag, which may be repeated where the key is a list. Raises Problem."""
    if isinstance(key.kind, ListOf):
        return tuple(part for text in texts for part in _read(key, "flag", text))
    return _read(key, "flag", texts[-1])


def _read(key: Key, source: str, text: str) -> Any:
    try:
        return key.kind.read(text)
    except ValueError:
        raise _misfit(key, source, text) from None


def _fit(key: Key, source: str, value: Any) -> Any:
    try:
        return key.kind.fit(value)
    except ValueError:
        raise _misfit(key, source, value) from None


def _misfit(key: Key, source: str, value: Any) -> Problem:
    where = f"flag {key.flag}" if source == "flag" else source
    detail = f"{where}: {key.name} = {toml(value)} does not fit: expected {key.kind.expected}"
    return Problem(400, "config_value", detail, f"the default is {toml(key.default)}", key.name)


def _unknown(source: str, name: str, names: list[str]) -> Problem:
    near = _nearest(name, names)
    action = f"did you mean {near}?" if near else "`cortex-node config` lists every key"
    return Problem(400, "config_unknown_key", f"{source}: there is no key {name}", action, name)


def _nearest(name: str, names: list[str]) -> str | None:
    from difflib import get_close_matches  # only to explain a mistake

    whole = get_close_matches(name.lower(), [other.lower() for other in names], 1, NEAR)
    if whole:
        return next(other for other in names if other.lower() == whole[0])
    last = get_close_matches(name.lower(), [other.rpartition(".")[2].lower() for other in names], 1, NEAR)
    return next((other for other in names if last and other.rpartition(".")[2].lower() == last[0]), None)


def _key(name: str) -> Key:
    return next(key for key in KEYS if key.name == name)


def _default(key: Key, profile: str) -> Setting:
    if key.name == "name":
        machine = os.uname().nodename.partition(".")[0][:64]
        return Setting(key, machine or "node", "default")
    if profile in key.by_profile:
        return Setting(key, key.by_profile[profile], f"profile {profile}")
    return Setting(key, key.default, "default")


def _check_ports(settings: Mapping[str, Setting]) -> None:
    listen, api = settings["listen"], settings["api"]
    (peer_host, peer_port), (api_host, api_port) = (Address.split(setting.value) for setting in (listen, api))
    everywhere = {"0.0.0.0", "::"}
    overlap = peer_host == api_host or peer_host in everywhere or api_host in everywhere
    if peer_port and peer_port == api_port and overlap:
        detail = f"listen ({listen.value}, {listen.source}) and api ({api.value}, {api.source}) take the same port"
        raise Problem(400, "config_ports", detail, "give one of them another port", "api")
