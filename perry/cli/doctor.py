"""`perry doctor`: looks at everything that perry needs, and says what to do where it is wrong.

What is looked at, and how it is judged, is known to the workspace package; nothing is changed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from perry.cli import render
from perry.cli.options import Json, examples
from perry.errors import AgentError, AgentUnreachable
from perry.protocol import AGENT_PORT

if TYPE_CHECKING:
    from perry.client.agent_client import AgentStatus
    from perry.workspace.doctor.finding import Finding

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command(epilog=examples("perry doctor", "perry doctor --json"))
def doctor(json: Json = False) -> None:
    """Check this machine, the engine and every workspace, and say what to do.

    Exit code 1 where something doesn't work; warnings alone are 0.
    """
    from perry.workspace.doctor.examination import examine  # noqa: PLC0415  # loads Docker
    from perry.workspace.doctor.finding import worst  # noqa: PLC0415  # as above

    findings: list[Finding] = []
    for finding in examine(daemon=ask_daemon):
        if not json:
            render.finding(finding, after=findings[-1] if findings else None)
            sys.stdout.flush()
        findings.append(finding)
    if json:
        render.as_json({"level": worst(findings), "findings": findings})
    else:
        render.diagnosis(findings)
    if worst(findings) == "failure":
        raise typer.Exit(1)


def ask_daemon() -> AgentStatus | None:
    """Ask this user's agent daemon how it is; None where none runs. Raises AgentError."""
    from perry.cli.agent import connect  # noqa: PLC0415  # only this question needs it

    try:
        with connect(AGENT_PORT) as client:
            return client.status()
    except AgentUnreachable:
        return None
    except OSError as error:
        raise AgentError(
            f"The agent daemon's token can't be read: {error}",
            hint="See that its directory is yours, or set XDG_STATE_HOME.",
        ) from error
