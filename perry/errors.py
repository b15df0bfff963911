"""The one error tree of perry.

    PerryError
    ├── UsageError               what was asked for can't be (exit code 2)
    ├── PortInUse                a port to listen on is another process's
    ├── EngineError              the Docker engine
    │   ├── EngineUnreachable      none answers, or its socket may not be used
    │   └── EngineFailure          it answered with an error that nothing else names
    ├── BuildError               an image or the bundle could not be made
    ├── WorkspaceError           one workspace (carries its name)
    │   ├── WorkspaceNotFound
    │   ├── WorkspaceConflict      it exists, and differs from what was asked for
    │   ├── WorkspaceNotRunning
    │   ├── ForeignContainer       a container of that name that isn't perry's
    │   ├── ImageUnusable          no such image, or of another architecture
    │   ├── PortTaken
    │   ├── SnapshotFailed         its files can't be kept on this machine
    │   └── CloneFailed
    ├── WorkerError              the worker of one workspace
    │   ├── WorkerCannotRun        it could not be started, or died before it was healthy
    │   ├── WorkerUnreachable      nothing answers at its address, or too late
    │   ├── WorkerUntrusted        what answers doesn't know the workspace's token
    │   └── WorkerFailure          it answered with an error
    ├── AgentError               the agent daemon
    │   ├── AgentUnreachable       none answers at its address, or it is another user's
    │   ├── AgentRefusal           it answered with an error
    │   ├── AgentRunning           one runs there already
    │   └── LedgerUnwritable       what changed can't be kept, as on a full disk
    ├── ArchiveError             the archive of sessions
    │   ├── ArchiveUnusable        its file can't be read or written now
    │   └── ArchiveBroken          its file is damaged
    └── SessionError
        ├── SessionNotFound
        ├── SessionAmbiguous       a shortened id fits several (carries them)
        ├── SessionNotKept         it isn't deleted, as it can't be kept for being restored
        └── SessionInTheWay        it isn't restored, as something is where it was

Every error says what happened, to which workspace, and what to do now: `message` is the first,
`hint` the last. Foreign errors become these in `workspace/engine/`, `client/` and
`archive/database.py` only. This module knows nothing but the words.
"""

from __future__ import annotations


class PerryError(Exception):
    """Anything perry says to its user instead of a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", workspace: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.workspace = workspace

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(PerryError):
    """What was asked for can't be: a bad name, a bad option."""

    exit_code = 2


class PortInUse(PerryError):
    """A port to listen on is another process's."""


class EngineError(PerryError):
    """The Docker engine."""


class EngineUnreachable(EngineError):
    """No engine answers, or its socket may not be used."""


class EngineFailure(EngineError):
    """The engine answered with an error that no other class names.

    `status` is the engine's HTTP status, or 0 where there was none.
    """

    def __init__(self, message: str, *, status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class BuildError(PerryError):
    """An image or the bundle could not be made."""


class WorkspaceError(PerryError):
    """One workspace, named by `workspace`."""


class WorkspaceNotFound(WorkspaceError):
    """There is no such workspace."""


class WorkspaceConflict(WorkspaceError):
    """The workspace exists and differs from what was asked for."""


class WorkspaceNotRunning(WorkspaceError):
    """The workspace is stopped, and what was asked for needs it running."""


class ForeignContainer(WorkspaceError):
    """A container that perry didn't make has the workspace's container name."""


class ImageUnusable(WorkspaceError):
    """The image doesn't exist or is made for another architecture."""


class PortTaken(WorkspaceError):
    """A port that should be published is in use."""


class SnapshotFailed(WorkspaceError):
    """What is read of the workspace's files can't be kept on this machine."""


class CloneFailed(WorkspaceError):
    """The repository could not be cloned into the workspace."""


class WorkerError(PerryError):
    """The worker of one workspace, named by `workspace`."""


class WorkerCannotRun(WorkerError):
    """The worker could not be started, or died before it was healthy."""


class WorkerUnreachable(WorkerError):
    """Nothing answers at the worker's address, or too late."""


class WorkerUntrusted(WorkerError):
    """What answers at the worker's address doesn't know the workspace's token."""


class WorkerFailure(WorkerError):
    """The worker answered with an error; `status` is its HTTP status."""

    def __init__(
        self, message: str, *, status: int, hint: str = "", workspace: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, workspace=workspace)
        self.status = status


class AgentError(PerryError):
    """The agent daemon."""


class AgentUnreachable(AgentError):
    """No agent daemon answers at an address, or one that doesn't know this user's token."""


class AgentRefusal(AgentError):
    """The agent daemon answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class AgentRunning(AgentError):
    """An agent daemon runs there already."""


class LedgerUnwritable(AgentError):
    """The agent daemon can't keep what changed."""


class ArchiveError(PerryError):
    """The archive of sessions."""


class ArchiveUnusable(ArchiveError):
    """Its file can't be read or written now: a full disk, no permission, a newer perry's."""


class ArchiveBroken(ArchiveError):
    """Its file is damaged, or no database at all."""


class SessionError(PerryError):
    """One session."""


class SessionNotFound(SessionError):
    """There is no session of that id."""


class SessionAmbiguous(SessionError):
    """A shortened session id fits several; `candidates` are their full ids."""

    def __init__(self, message: str, *, candidates: tuple[str, ...], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.candidates = candidates


class SessionNotKept(SessionError):
    """A session isn't deleted, since what goes with it can't be kept for being restored."""


class SessionInTheWay(SessionError):
    """A session isn't restored, since something is where it was; all is left as it is."""
