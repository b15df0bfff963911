"""What the bundle starts in a container: `python -m perry.worker [--port N] [--host H] [--check]`.

The log is opened before the imports that could fail, and what fails all the same is said in the
log and on the original stderr. `--check` imports everything and says so, for finding out why a
container can't run a worker.
"""

from __future__ import annotations

import os
import sys

from perry.worker.logfile import log_path, log_to


def main(arguments: list[str]) -> int:
    """Run the worker; returns the exit code where it can't run."""
    if arguments == ["--check"]:
        return _check()
    said_to = os.dup(2)
    log = log_path(os.environ)
    log_file = log if log_to(log) else None
    _name_process()
    try:
        return _serve(arguments, log_file)
    except Exception as error:  # noqa: BLE001 - the last resort: it is reported, and the process ends
        import traceback  # noqa: PLC0415 - only needed here

        code = getattr(error, "exit_code", None)  # of a PerryError, which may not be importable
        words = traceback.format_exc() if code is None else f"{error}\n"
        for stream in {2, said_to}:
            os.write(stream, words.encode("utf-8", "backslashreplace"))
        return 1 if code is None else int(code)


def _serve(arguments: list[str], log_file: str | None) -> int:
    import argparse  # noqa: PLC0415 - after the log is open
    import gc  # noqa: PLC0415 - as above

    gc.disable()  # nothing that is imported is garbage; looking for it takes a tenth of the start
    _leave_out_command_line()
    from perry.protocol import WORKER_PORT  # noqa: PLC0415 - as above
    from perry.worker.config import WorkerConfig  # noqa: PLC0415 - as above
    from perry.worker.serve import run  # noqa: PLC0415 - as above

    gc.freeze()
    gc.enable()
    parser = argparse.ArgumentParser(prog="perry.worker")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, default=WORKER_PORT)
    options = parser.parse_args(arguments)
    config = WorkerConfig.from_environment(os.environ, host=options.host, port=options.port)
    run(config, log_file=log_file)


def _leave_out_command_line() -> None:
    """Have `import uvicorn.server` not load all of uvicorn: the rest is a fifth of the start."""
    from importlib.machinery import PathFinder  # noqa: PLC0415 - after the log is open
    from types import ModuleType  # noqa: PLC0415 - as above

    found = PathFinder.find_spec("uvicorn")
    package = ModuleType("uvicorn")
    package.__path__ = found.submodule_search_locations or [] if found else []
    sys.modules["uvicorn"] = package
    from uvicorn.config import Config  # noqa: PLC0415 - as above

    package.Config = Config  # type: ignore[attr-defined] # what uvicorn's own parts ask for


def _check() -> int:
    import platform  # noqa: PLC0415 - only needed here

    import watchfiles._rust_notify  # noqa: F401, PLC0415 - what is being checked

    import perry.worker.serve  # noqa: F401, PLC0415 - as above

    print(f"ok {platform.python_version()}")  # noqa: T201 - the answer of --check
    return 0


def _name_process() -> None:
    """Show `perry-worker` in process lists, where Linux says just `python3.11`."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as comm:  # noqa: PTH123 - as in logfile
            comm.write("perry-worker")
    except OSError:
        return  # no /proc, or a read-only one: the name is a convenience


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
