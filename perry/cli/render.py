"""Everything that perry shows of results: tables, sessions, conversations, JSON.

The one file that prints them, so that what is shown is decided once: on a terminal with colour and
columns cut to fit; in a pipe as plain lines with every value whole. Commands hand
it results and know nothing of widths; it must not ask engines or workers for anything.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import msgspec
import typer

from perry.cli import diagnosis as diagnosis_lines
from perry.cli.fleet import NONE_RUNNING, Archived, Found, Gathered, short_ids, whereabouts
from perry.cli.snapshots import notes
from perry.cli.text import (
    Column,
    ago,
    counted,
    harmless,
    iso_ago,
    one_line,
    table,
)
from perry.cli.transcript import BOLD, DIM, GREEN, RED, YELLOW, transcript_lines
from perry.errors import PerryError, UsageError
from perry.workspace import names

if TYPE_CHECKING:
    from perry.cli.snapshots import Taken
    from perry.client.agent_client import AgentStatus
    from perry.sessions.models import Message, Session
    from perry.workspace.doctor.finding import Finding
    from perry.workspace.models import Installed, Overlooked, Ready, Removed, Worker


def line(text: str = "", *, stream: TextIO | None = None) -> None:
    """Print one line of our own words (not of others': those must be made harmless first)."""
    print(text, file=stream or sys.stdout)  # the one place that prints results


def as_json(value: object) -> None:
    """Print a value as indented JSON; structs become what they are on the wire."""
    built = msgspec.to_builtins(value)
    # Titles may hold lone surrogates, which no encoding can print: as escapes they are valid JSON.
    whole = json.dumps(built, indent=2, ensure_ascii=False)
    if any("\ud800" <= letter <= "\udfff" for letter in whole):
        whole = json.dumps(built, indent=2)
    line(whole)


def warn(text: str) -> None:
    """Say on stderr what didn't stop the command and should be known."""
    line(f"{styled('warning:', YELLOW, sys.stderr)} {harmless(text)}", stream=sys.stderr)


def note(text: str) -> None:
    """Say on stderr what is good to know."""
    line(f"{styled('note:', DIM, sys.stderr)} {harmless(text)}", stream=sys.stderr)


def taken(name: str, snapshot: Taken | None) -> None:
    """Say on stderr that a place was read from a snapshot, if it was."""
    for text in () if snapshot is None else notes(name, snapshot, time.time()):
        note(text)


def read_from(found: Found) -> None:
    """Say on stderr that a session was read from a snapshot or the archive, if it was, and why."""
    taken(found.place.name, found.taken)
    if isinstance(found.place, Archived):
        text = one_line(f"from the archive: {found.place.reason}")
        line(f"{styled('note:', DIM, sys.stderr)} {text}", stream=sys.stderr)


def failed(error: PerryError) -> None:
    """Say on stderr that one of several things failed; the others go on."""
    line(f"{styled('perry:', RED, sys.stderr)} {harmless(error.message)}", stream=sys.stderr)
    if error.hint:
        line(harmless(error.hint), stream=sys.stderr)


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """Colour text where the stream is a terminal that wants it (NO_COLOR and dumb ones don't)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not (stream or sys.stdout).isatty():
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def room() -> int | None:
    """Tell the columns of the terminal on stdout; None where stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is lost; `yes` is the answer given beforehand.

    Raises UsageError where there is nobody to ask, and ends with exit code 1 on a no.
    """
    if yes:
        return
    require_somebody(question)
    sys.stderr.write(f"{harmless(question)}? [y/N] ")
    sys.stderr.flush()
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        line(stream=sys.stderr)  # what is said next doesn't belong behind the question
        raise
    if answer.strip().lower() not in {"y", "yes"}:
        line("Nothing was changed.", stream=sys.stderr)
        raise typer.Exit(1)


def require_somebody(question: str) -> None:
    """Raise UsageError where a question can't be answered."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"{question}? There is nobody to ask: stdin is no terminal.", hint="Say --yes."
        )


# Workspaces


def ready(result: Ready) -> None:
    """Show where a workspace's worker answers and what it found, and what to do next."""
    name = result.workspace.name
    if result.worker is None:
        line(f"workspace {styled(name, BOLD)} is {result.workspace.state}, without a worker")
        without_worker(result)
        return
    found = counted(result.worker.session_count, "session")
    line(f"workspace {styled(name, BOLD)} is ready: worker {_place(result.worker)}, {found}")
    without_worker(result)


def _place(worker: Worker) -> str:
    return "reached through docker exec" if worker.rung == "exec" else f"at {worker.address}"


def without_worker(result: Ready) -> None:
    """Say on stderr what `ready` would, for those who read JSON on stdout."""
    reason = result.warning or (
        "" if result.worker else "it has no worker; its sessions stay unread"
    )
    if reason:
        warn(f"{result.workspace.name}: {reason}")


def next_steps(name: str) -> None:
    """Say what a person may want to do with a new workspace."""
    line()
    shell, sessions = f"perry workspace shell {name}", f"perry session list --workspace {name}"
    line(f"  {shell:<{len(sessions)}}  a shell in it")
    line(f"  {sessions}  its coding agents' sessions")


RUNGS = {
    "address": "address (the container's own)",
    "published": "published (a port of this machine)",
    "exec": "exec (a stream through Docker)",
}

HEALTH = {"healthy": GREEN, "none": YELLOW, "unreachable": RED, "stopped": DIM}


def workspaces(views: Sequence[Mapping[str, Any]]) -> None:
    """Show workspaces as a table; a view has the keys of `workspace list --json`."""
    if not views:
        line("no workspaces; make one: perry workspace init NAME")
        return
    now = time.time()
    columns = [
        Column("NAME", least=12),
        Column("STATE"),
        Column("IMAGE", least=14, keeps_end=True),
        Column("WORKER"),
        Column("SESSIONS", right=True),
        Column("CREATED"),
    ]
    rows = [
        (
            view["name"],
            view["state"] + (", adopted" if view["adopted"] else ""),
            view["image"],
            "-" if view["health"] == "stopped" else view["health"],
            str(view["worker"]["sessionCount"]) if view["worker"] else "-",
            iso_ago(view["createdAt"], now),
        )
        for view in views
    ]
    print_table(columns, rows)


def overlooked(found: Sequence[Overlooked]) -> None:
    """Say on stderr which containers claim in vain to be a workspace."""
    for one in found:
        warn(f"{one_line(one.reason)}.\n{one_line(one.hint)}")


def workspace(view: Mapping[str, Any]) -> None:
    """Show all that is known of one workspace, one fact a line."""
    now = time.time()
    worker = view["worker"]
    facts = {
        "name": view["name"],
        "state": view["state"],
        "image": view["image"],
        "container": view["containerId"][:12],
        "adopted": "yes: perry didn't make it, and remove only lets go of it"
        if view["adopted"]
        else "",
        "created": f"{iso_ago(view['createdAt'], now)} ({view['createdAt']})",
        "started": f"{iso_ago(view['startedAt'], now)} ({view['startedAt']})"
        if view["startedAt"]
        else "",
        "user": view["user"] or "root",
        "home": view["home"],
        "home volume": view["homeVolume"] or "",
        "addresses": ", ".join(view["addresses"]),
        "ports": ", ".join(view["ports"]),
        "worker": f"{worker['address']}, version {worker['version']}, {worker['digest'][:12]}"
        if worker
        else view["health"],
        "reached via": RUNGS[worker["via"]] if worker else "",
        "sessions": str(worker["sessionCount"]) if worker else "",
        "revived": _revived(view["revival"], now),
        "problem": view["problem"] or "",
    }
    for name, fact in facts.items():
        if fact:
            line(f"{name:<12} {one_line(fact)}")


def _revived(revival: Mapping[str, Any] | None, now: float) -> str:
    if revival is None:
        return ""
    return f"{ago(revival['at'], now)}, in {revival['seconds']:.2f} s: {revival['reason']}"


def agent(status: AgentStatus, url: str) -> None:
    """Show how the agent daemon is, and a line for each place."""
    now = time.time()
    line(f"agent daemon at {url}, version {one_line(status.version)}, process {status.pid}")
    line(f"started {ago(status.started_at, now)}")
    if not status.engine.reachable:
        warn(f"the Docker engine can't be reached: {status.engine.error}")
    if status.archive.error:
        warn(f"nothing is archived: {status.archive.error}")
    elif status.archive.pending:
        line(f"{status.archive.pending:,} sessions are still to be archived")
    columns = [Column("NAME", least=12), Column("STATE"), Column("READ VIA"), Column("AS OF")]
    rows = [(one.name, one.state, one.via, _as_of(one.as_of, now)) for one in status.places]
    line()
    print_table(columns, rows)
    for one in status.places:
        if one.error:
            warn(f"{one.name}: {one.error}")


def _as_of(moment: int | None, now: float) -> str:
    if moment is None:
        return "now"
    return ago(moment, now) if moment else "never"


def removed(result: Removed) -> None:
    """Show what was removed with a workspace, by name, or that it was let go of."""
    if result.warning:
        warn(f"{result.name}: {result.warning}")
    if result.let_go:
        line(f"let go of {result.name}: the container {one_line(result.let_go)} stays as it is")
        return
    gone = [*result.containers, *result.volumes]
    line(
        f"removed {result.name}: {', '.join(gone)}" if gone else f"{result.name}: nothing was left"
    )


def installation(there: Installed) -> None:
    """Show what perry put on the engine, one thing a line."""
    for kind in ("containers", "volumes", "images"):
        for name in getattr(there, kind):
            line(f"{kind[:-1]:<9} {one_line(name)}")


def uninstalled(gone: Installed) -> None:
    """Show what was taken off the engine."""
    if not any((gone.containers, gone.volumes, gone.images)):
        line("nothing of perry's is on this engine")
        return
    line("removed from the engine:")
    installation(gone)


def finding(one: Finding, *, after: Finding | None) -> None:
    """Show what a check found, below a heading where it is about something else than `after`."""
    if after is None or (after.subject, after.workspace) != (one.subject, one.workspace):
        if after is not None:
            line()
        line(diagnosis_lines.heading(one, styled))
    for text in diagnosis_lines.lines(one, room(), styled):
        line(text)


def diagnosis(findings: Sequence[Finding]) -> None:
    """Show, after all findings, how many are bad."""
    line()
    line(diagnosis_lines.summary(findings))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Show rows below their columns' names, as wide as the terminal allows."""
    title, *lines = table(columns, rows, room())
    line(styled(title, BOLD))
    for one in lines:
        line(one)


# Sessions


def sessions(gathered: Gathered, *, everywhere: bool, standing: bool = False) -> None:
    """Show sessions as a table, and on stderr what else is to be told, or that there are none.

    `everywhere` says that all places were meant; `standing` tells where each session stands.
    """
    asides(gathered)
    if not gathered.found:
        if not gathered.failures:
            line(nothing("no sessions", gathered.asked, everywhere=everywhere), stream=sys.stderr)
        return
    now = time.time()
    ids = [one.session.id for one in gathered.found]
    told = short_ids(ids) if room() else dict(zip(ids, ids, strict=True))
    columns = [
        Column("ID"),
        Column("WORKSPACE", least=9),
        Column("AGENT"),
        Column("TITLE", least=12 if standing else 14),
        Column("DIRECTORY", least=4 if standing else 10, keeps_end=True),
        Column("MSGS", right=True),
        Column("ACTIVE"),
        *([Column("STANDING")] if standing else []),
    ]
    rows = [
        (
            told[one.session.id],
            one.place.name,
            one.session.agent_type,
            one.session.title,
            _below_home(one.session.directory, one.place.home),
            str(one.session.message_count),
            ago(one.session.last_activity, now),
            *([one.standing] if standing else []),
        )
        for one in gathered.found
    ]
    print_table(columns, rows)


def asides(gathered: Gathered) -> None:
    """Say on stderr who was read from a snapshot, and who didn't answer, and why."""
    for name, snapshot in sorted(gathered.taken.items()):
        taken(name, snapshot)
    for name, error in sorted(gathered.failures.items()):
        text = error.message if name in error.message else f"{name}: {error.message}"
        warn(f"{text}\n{error.hint}" if error.hint else text)


def nothing(what: str, asked: Sequence[str], *, everywhere: bool) -> str:
    """Say that there is nothing, where, and what a newcomer could do."""
    told = f"{what} {whereabouts(asked)}"
    return f"{told}; {NONE_RUNNING}" if everywhere and asked == (names.HOST,) else told


def _below_home(directory: str, home: str) -> str:
    if home not in {"", "/"} and (directory == home or directory.startswith(f"{home}/")):
        return "~" + directory[len(home) :]
    return directory


CHILDREN = 10
"""Sessions started by one that are listed at its head; `session list --children` has them all."""


def session_head(found: Found, children: Sequence[Session]) -> None:
    """Show what a session is, and the sessions it started."""
    session, now = found.session, time.time()
    facts = [
        session.agent_type,
        found.place.name,
        _below_home(session.directory, found.place.home),
        counted(session.message_count, "message"),
        ago(session.last_activity, now),
    ]
    line(styled(one_line(session.title), BOLD))
    line(one_line(" · ".join(fact for fact in facts if fact)))
    more = {"id": session.id, "branch": session.git_branch, "model": session.model}
    tokens = {"tokens in": session.input_tokens, "out": session.output_tokens}
    more |= {key: f"{value:,}" for key, value in tokens.items() if value is not None}
    line(
        styled(one_line(" · ".join(f"{key} {value}" for key, value in more.items() if value)), DIM)
    )
    if session.parent_id:
        line(styled(one_line(f"started by session {session.parent_id}"), DIM))
    for child in children[:CHILDREN]:
        line(styled(one_line(f"started session {child.id}: {child.title}"), DIM))
    if len(children) > CHILDREN:
        line(styled(f"started {len(children) - CHILDREN} more sessions", DIM))
    if session.skipped_lines:
        warn(f"{counted(session.skipped_lines, 'line')} of its file could not be read")


def conversation(messages: Iterable[Message], *, full: bool) -> None:
    """Show messages in their order: roles apart, a tool's call or result a line unless `full`."""
    for text in transcript_lines(messages, full=full, columns=room(), paint=styled):
        line(text)
