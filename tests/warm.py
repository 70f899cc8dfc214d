"""Processes that start in a moment: each is forked from one that has done nothing but import modules.

A new interpreter spends a third of a second on imports before it comes to what a test is about. Here one for
each set of modules, started when first needed, forks instead. What it forks runs ``python -m MODULE`` as a
new one would: with arguments, environment, working directory and output of its own, and with an end like any
other's. This is for tests that need a process, to kill it or to see what it prints. Where the start itself, a
terminal, or what an interpreter reads from its environment is tested, start one.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
BUS = ("asyncio", "pabal.bus.in_memory", "pabal.storage.sqlite.storage")
"""The modules of a process that has a bus and a file."""
COMMANDS = (*BUS, "rich.live", "rich.table", "pabal.cli.app", "pabal.cli.demo", "pabal.demo.app")
"""The modules of the command line."""


# -- for tests --------------------------------------------------------------------------------------------


def run(
    module: str, *arguments: str, warm: tuple[str, ...], cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a module to its end and return its output and exit code, as ``subprocess.run`` does."""
    command = ["-m", module, *arguments]
    if not hasattr(os, "fork"):
        return subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env={**env, "PYTHONPATH": os.pathsep.join(_path())},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        with (
            _forked(command[1:], warm, cwd, env, (output, errors)) as status,
            status.makefile("rb") as answers,
        ):
            status.settimeout(timeout)
            pid = int(answers.readline())
            try:
                code = int(answers.readline())
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(command, timeout) from None
        return subprocess.CompletedProcess(command, code, _text(output), _text(errors))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


class Process:
    """A process that runs a module; it has the part of ``asyncio.subprocess.Process`` that the tests use."""

    def __init__(
        self, pid: int, ending: asyncio.Task[int], stdout: asyncio.StreamReader, errors: IO[bytes]
    ) -> None:
        self.pid = pid
        self.stdout = stdout
        self._ending = ending
        self._errors = errors

    @classmethod
    async def start(
        cls, module: str, *arguments: str, warm: tuple[str, ...], cwd: Path, env: Mapping[str, str]
    ) -> Process:
        reading, writing = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by communicate() and wait()
        with writing, _forked((module, *arguments), warm, cwd, env, (writing, errors)) as status:
            answers, writer = await asyncio.open_connection(sock=status.dup())
        pid = int(await answers.readline())

        async def end() -> int:
            code = int(await answers.readline())
            writer.close()
            return code

        stdout = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stdout), reading
        )
        return cls(pid, asyncio.create_task(end()), stdout, errors)

    @property
    def returncode(self) -> int | None:
        return self._ending.result() if self._ending.done() else None

    def send_signal(self, number: int) -> None:
        if not self._ending.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        code, _ = await asyncio.gather(asyncio.shield(self._ending), self.stdout.read())
        self._errors.close()
        return code

    async def communicate(self) -> tuple[bytes, bytes]:
        output, _ = await asyncio.gather(self.stdout.read(), asyncio.shield(self._ending))
        with self._errors:
            self._errors.seek(0)
            return output, self._errors.read()


# -- between the two sides --------------------------------------------------------------------------------


def _path() -> tuple[str, str]:
    """Return this checkout's own source, wherever the installed package comes from."""
    return str(ROOT), str(ROOT / "src")


@functools.cache
def _fork_server(warm: tuple[str, ...], measured: bool) -> socket.socket:
    """Start the process that forks processes with these modules; it ends when its socket is closed."""
    kept = {name: value for name, value in os.environ.items() if measured or not name.startswith("COVERAGE_")}
    mine, its = socket.socketpair()
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(its.fileno()), *warm],
            cwd=ROOT,
            env={**kept, "PYTHONPATH": os.pathsep.join(_path()), "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(its.fileno(),),
        )

    @atexit.register
    def end() -> None:
        mine.close()
        process.wait()

    return mine


@contextmanager
def _forked(
    command: Sequence[str],
    warm: tuple[str, ...],
    cwd: Path,
    env: Mapping[str, str],
    streams: tuple[IO[bytes], IO[bytes]],
) -> Iterator[socket.socket]:
    """Have a process forked; yield a socket that reports its id and, when it has ended, its exit code."""
    status, its = socket.socketpair()
    with status:
        with its:
            files = [its.fileno(), *(stream.fileno() for stream in streams)]
            socket.send_fds(
                _fork_server(warm, any(name.startswith("COVERAGE_") for name in env)), [b"."], files
            )
        request = {"command": list(command), "cwd": str(cwd), "env": dict(env)}
        status.sendall(json.dumps(request).encode() + b"\n")
        yield status


# -- the process that forks -------------------------------------------------------------------------------


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork a supervisor, which forks a process, for each message; return in that process its request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; this process ends with them
    supervisors: set[int] = set()
    while True:
        message, files, *_ = socket.recv_fds(control, 1, 3)
        if not message:
            os._exit(0)  # the processes that it forked have reported their coverage themselves
        supervisor = os.fork()
        if supervisor == 0:
            control.close()
            return _supervise(*files)
        for file in files:
            os.close(file)
        # Leave no zombies, and count the time of all of them as the tests' own.
        supervisors = {pid for pid in (*supervisors, supervisor) if os.waitpid(pid, os.WNOHANG) == (0, 0)}


def _supervise(status_file: int, output: int, errors: int) -> dict[str, Any]:
    """Fork a process and report how it ends; return its request in it."""
    status = socket.socket(fileno=status_file)
    with status.makefile("rb") as requests:
        request: dict[str, Any] = json.loads(requests.readline())
    pid = os.fork()
    if pid:
        os.close(output)
        os.close(errors)
        status.sendall(b"%d\n" % pid)
        _, ended = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):
            status.sendall(b"%d\n" % os.waitstatus_to_exitcode(ended))
        os._exit(0)
    status.close()
    for file, standard in ((output, 1), (errors, 2)):
        os.dup2(file, standard)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    return request


def main() -> None:
    """Import the modules, serve requests for processes, and in a forked process run its module."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    module, *arguments = _serve(control)["command"]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
