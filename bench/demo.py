"""Two real nodes, in one terminal: both are cut off, both write, they meet, and both hold the same. Then they vote:
what a hub commits stands on both, and one changed byte of the ledger is found.

    make demo                  `alpha$` and `beta$` are cortex-node with the --home of that node; output is as it comes
    make demo ARGS=--keep      leaves both homes, to look around in

alpha and beta are processes of their own on this machine. Each is to be found at the end of a line that this process
can cut (bench/local_nodes.py): both run on, and neither can reach the other. What they write meanwhile is
bench/corpus.jsonl, half of it each, and edits of the same facts.

A sentence after `ok` was checked just then. The exit code is 0 when all of them held, 1 when one did not.
Run by tests/e2e/test_demo.py.
"""

import argparse
import json
import shlex
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.local_nodes import Line, LocalNode, agree, enrol, found, wait_until
from node.errors import EXIT_INTEGRITY

CORPUS = Path(__file__).with_name("corpus.jsonl")
ASKED_ON_ALPHA = ("when is the concert with the Fauré Requiem", 299)
ASKED_ON_BETA = ("what does alarm E-217 on Press 4 look like", 1)
"""The answer is that line of the corpus, counted from 0, and was stored on the other node."""
NOTES = "Shift notes for Press 4\n\n- oil level checked on Monday\n- hour counter at 1204\n"
APPENDED = "- accumulator bled, red tag hung"
TAMPERED = 40
"""The byte of an entry that is changed: one of its time, which decides nothing, and yet nobody may touch."""
MAX_SHOWN_CHARS = 118


@dataclass
class Story:
    """What is printed, and how much of it was so."""

    began: float
    checked: int = 0
    wrong: int = 0

    def chapter(self, title: str) -> None:
        print(f"\n{title}\n", flush=True)

    def line(self, text: str) -> None:
        print(f"  {text}", flush=True)

    def check(self, claim: str, holds: bool) -> None:
        """Tell whether it is so."""
        self.checked += 1
        self.wrong += not holds
        self.line(f"{'ok    ' if holds else 'NOT SO'}  {claim}")

    def command(self, node: LocalNode, *arguments: str, editor: str | None = None) -> str:
        """Run one command, show it with what it prints, and return that. A command that fails ends the demo."""
        before = f"EDITOR={shlex.quote(editor)} " if editor else ""
        self.line(_short(f"{node.name}$ {before}{shlex.join(arguments)}"))
        done = node.run(*arguments, environment={"EDITOR": editor, "VISUAL": editor} if editor else None)
        for line in (done.stdout + done.stderr).splitlines():
            self.line(_short(f"    {line}".rstrip()))
        if done.returncode:
            raise SystemExit(f"the command ended with code {done.returncode}")
        return done.stdout

    def result(self) -> int:
        """The last line, and the exit code."""
        seconds = time.monotonic() - self.began
        so = f"{self.checked} checks, all ok" if not self.wrong else f"{self.wrong} of {self.checked} checks: NOT SO"
        print(f"\n{so}, in {seconds:.1f} s", flush=True)
        return 1 if self.wrong else 0


@dataclass(frozen=True)
class Shared:
    """Ids of the facts that both have before they are cut off, by what will happen to them."""

    disputed: str
    withdrawn: str
    notes: str


def main() -> int:
    """Play it in a directory of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the homes of both nodes")
    keep = parser.parse_args().keep
    signal.signal(signal.SIGTERM, _end)  # as Ctrl-C does: by way of every `finally`
    place = Path(tempfile.mkdtemp(prefix="cortex-demo-"))
    story = Story(time.monotonic())
    try:
        play(story, place)
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
    if keep:
        print(f"\nthe homes are left in {place}; start one again with: cortex-node --home {place / 'alpha'} run")
    return story.result()


def play(story: Story, place: Path) -> None:
    """The whole story. Both nodes and the line between them are gone when it returns."""
    halves = _halves(place)
    with ExitStack() as ends:
        story.chapter("1. A mesh of two nodes")
        line, way_back = ends.enter_context(Line()), ends.enter_context(Line())
        alpha = ends.enter_context(found(place / "alpha", "alpha", advertise=line.address, mdns="false"))
        story.line(f"alpha$ init --name alpha      founds the mesh, in {alpha.home.path}")
        line.target = alpha.start().port
        story.line(f"alpha$ run                    is process {alpha.pid}")
        beta = ends.enter_context(enrol(place / "beta", "beta", alpha, advertise=way_back.address, mdns="false"))
        story.line("alpha$ invite                 prints a one-time code")
        story.line(f"beta$  join CORTEX1-...       has its certificate, in {beta.home.path}")
        way_back.target = beta.start().port
        story.line(f"beta$  run                    is process {beta.pid}")
        shared = _share(story, alpha, beta)

        story.chapter("2. The line between them is cut; both run on")
        line.cut()
        way_back.cut()
        wait_until("both have noticed", lambda: not alpha.connected() and not beta.connected())
        for node in (alpha, beta):
            story.command(node, "peers")

        story.chapter("3. Both write")
        _write_apart(story, alpha, beta, shared, halves)
        story.check("they differ now", not agree(alpha, beta))

        story.chapter("4. The line is whole again")
        began = time.monotonic()
        line.mend()
        way_back.mend()
        story.line("(beta tries again by itself, ever less often; this makes it try now)")
        story.command(beta, "peers", "add", line.address)
        wait_until("both hold the same", lambda: agree(alpha, beta), 60)
        story.line(f"after {time.monotonic() - began:.1f} s:")
        _compare(story, alpha, beta, shared)

        story.chapter("5. What one stored, the other finds")
        _search(story, alpha, *ASKED_ON_ALPHA)
        _search(story, beta, *ASKED_ON_BETA)

        story.chapter("6. They vote; alpha is the hub that commits, and beta gets the receipts")
        _vote(story, alpha, beta, shared.disputed)
        for node in (beta, alpha):
            story.check(f"{node.name} stops cleanly", node.stop() == 0)

        story.chapter("7. Somebody changes one byte of alpha's ledger")
        _tamper(story, alpha)


def _share(story: Story, alpha: LocalNode, beta: LocalNode) -> Shared:
    """Three facts that both have."""
    notes = alpha.home.path.with_name("notes.md")
    notes.write_text(NOTES)
    alpha_first = story.command(alpha, "store", "Press 4 may be restarted by the shift leader", "--tag", "press")
    order = story.command(alpha, "store", "Order new seals for Press 4", "--tag", "press")
    body = story.command(alpha, "store", "--body", str(notes), "--project", "factory-7")
    wait_until("beta has them", lambda: agree(alpha, beta))
    story.check("beta has them too", len(beta.facts()) == 3)
    return Shared(alpha_first.strip(), order.strip(), body.strip())


def _write_apart(story: Story, alpha: LocalNode, beta: LocalNode, shared: Shared, halves: tuple[Path, Path]) -> None:
    """Half the corpus each, and edits of one and the same fact, tag set and text."""
    story.command(alpha, "import", "jsonl", str(halves[0]))
    story.command(alpha, "update", shared.disputed, "Press 4 may be restarted by the electrician on duty")
    story.command(alpha, "tag", shared.disputed, "--add", "safety", "--remove", "press")
    story.command(alpha, "update", shared.notes, "--append", APPENDED)
    story.command(alpha, "retract", shared.withdrawn, "--reason", "they came on Tuesday")
    story.command(beta, "import", "jsonl", str(halves[1]))
    story.command(beta, "update", shared.disputed, "Press 4 may be restarted by nobody but maintenance")
    story.command(beta, "tag", shared.disputed, "--add", "hydraulics")
    story.command(beta, "update", shared.notes, "--edit", editor="sed -i s/1204/1219/")


def _compare(story: Story, alpha: LocalNode, beta: LocalNode, shared: Shared) -> None:
    """Everything that has to be equal, and what became of the edits."""
    for project, (root, _) in sorted(alpha.knowledge().items()):
        story.check(f"one root for {project:<16} {root}", beta.knowledge()[project][0] == root)
    facts = alpha.facts()
    story.check(f"both hold the same {len(facts)} facts", beta.facts() == facts and len(facts) == 2 + _corpus_size())
    disputed = facts[shared.disputed]
    shown = story.command(alpha, "get", shared.disputed)
    story.check("beta shows the same", story.command(beta, "get", shared.disputed) == shown)
    story.check("its content is in conflict, and says so", disputed["conflict"] is True)
    for node in (alpha, beta):
        losers = [one["value"] for one in node.history(shared.disputed) if one["state"] == "conflicting"]
        story.check(f"the loser is in the history on {node.name}: {', '.join(losers)}", len(losers) == 1)
    story.check("tags: one was removed, one added on each side", set(disputed["tags"]) == {"safety", "hydraulics"})
    story.check("the fact that alpha retracted is gone on both", shared.withdrawn not in facts)
    body = facts[shared.notes]["body"]
    story.check("the notes hold both edits", body == NOTES.replace("1204", "1219") + APPENDED)


def _search(story: Story, node: LocalNode, question: str, answer: int) -> None:
    story.command(node, "search", question, "-k", "1")
    best: Any = node.tell("search", question, "-k", "1")["results"]
    story.check("that is the answer", [one["fact"]["content"] for one in best] == [_corpus()[answer]["content"]])


def _vote(story: Story, alpha: LocalNode, beta: LocalNode, fact: str) -> None:
    """Both agree on what the fact says now; the owner's vote decides."""
    story.command(beta, "vote", fact, "up", "--reason", "asked maintenance")
    wait_until("the hub has both", lambda: alpha.status()["votes_pending"] == beta.status()["votes_pending"] == 0)
    said = story.command(alpha, "vote", fact, "up")
    story.check("alpha's vote is committed", said.startswith("committed #"))
    wait_until("beta has it", lambda: _trust(beta, fact) == "verified")
    story.check("the fact is verified on both", _trust(alpha, fact) == "verified")
    story.command(beta, "votes", fact)
    story.command(alpha, "ledger", "verify")
    story.command(beta, "ledger", "verify")
    story.check("both hold the same entries", _entries(alpha) == _entries(beta))


def _tamper(story: Story, alpha: LocalNode) -> None:
    """A byte of the last entry, the one with the owner's vote."""
    with closing(sqlite3.connect(alpha.home.database)) as connection, connection:
        [(last, raw)] = connection.execute("SELECT id, raw FROM ledger_entries ORDER BY id DESC LIMIT 1")
        changed = raw[:TAMPERED] + bytes([raw[TAMPERED] ^ 1]) + raw[TAMPERED + 1 :]
        connection.execute("UPDATE ledger_entries SET raw = ? WHERE id = ?", (changed, last))
    story.line(f"in alpha's database, entry {last}: {raw[TAMPERED]:02x} becomes {changed[TAMPERED]:02x}")
    alpha.start()
    done = alpha.run("ledger", "verify")
    story.line("alpha$ ledger verify")
    for line in (done.stdout + done.stderr).splitlines():
        story.line(_short(f"    {line}".rstrip()))
    story.check("it is found, and named", done.returncode == EXIT_INTEGRITY and f"entry {last}" in done.stdout)
    story.check("alpha stops cleanly", alpha.stop() == 0)


def _trust(node: LocalNode, fact: str) -> str:
    return str(node.client.call("GET", f"/v1/facts/{fact}")["trust"])


def _entries(node: LocalNode) -> list[Any]:
    with closing(sqlite3.connect(f"{node.home.database.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT id, raw FROM ledger_entries ORDER BY id").fetchall()


def _corpus() -> list[Any]:
    return [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


def _corpus_size() -> int:
    return len(_corpus())


def _halves(place: Path) -> tuple[Path, Path]:
    """The corpus, in two files."""
    lines = CORPUS.read_text(encoding="utf-8").splitlines(keepends=True)
    middle = len(lines) // 2
    first, second = place / "first-half.jsonl", place / "second-half.jsonl"
    first.write_text("".join(lines[:middle]), encoding="utf-8")
    second.write_text("".join(lines[middle:]), encoding="utf-8")
    return first, second


def _short(line: str) -> str:
    return line if len(line) <= MAX_SHOWN_CHARS else line[: MAX_SHOWN_CHARS - 4] + " ..."


def _end(*_: object) -> NoReturn:
    raise SystemExit(143)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
