"""The demo's display while it plays: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pabal.cli.demo_tables import NAMES, READS, error_line, holdings_table, seconds, table
from pabal.cli.language import counted, t
from pabal.cli.translation import translate
from pabal.demo.events import RunStarted
from pabal.demo.meter import News
from pabal.demo.report import Phase, Snapshot

_RATE_WINDOW = 2.0


class View(Protocol):
    """Something that shows snapshots of a run, every ``interval`` seconds."""

    interval: float

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        ...

    def __enter__(self) -> Self:
        """Start the display."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the display."""
        ...


class Rates:
    """Compute events per second from the latest snapshots."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, int]]] = deque()

    def note(self, snapshot: Snapshot) -> None:
        """Add a snapshot."""
        if snapshot.phase == "starting":
            return  # what the log already holds is not counted yet, and not this run's throughput
        counts = {one.name: one.handled for one in snapshot.subscriptions}
        counts[""] = snapshot.fed
        self._samples.append((snapshot.elapsed, counts))
        while len(self._samples) > 2 and snapshot.elapsed - self._samples[1][0] >= _RATE_WINDOW:
            self._samples.popleft()

    def of(self, name: str) -> float:
        """Return the rate of a subscription, or of the feed if ``name`` is empty."""
        if not self._samples:
            return 0.0
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        if ended <= began:
            return 0.0
        return (last[name] - first.get(name, 0)) / (ended - began)


def title_of(run: RunStarted) -> str:
    """Describe the tape that is played."""
    if run.simulated:
        return t("SIMULATED tape (seed {seed}), no real market", seed=run.settings.seed)
    return t("recorded {kind}: {tape}", kind=t(run.kind), tape=Path(run.tape).name)


# -- plain ------------------------------------------------------------------------------------------------


class PlainView:
    """Print one line per second, and one for each dead letter."""

    interval = 1.0

    def __init__(self, console: Console, run: RunStarted, path: Path, process: int, resume: str) -> None:
        self._console = console
        self._run = run
        self._path = path
        self._process = process
        self._resume = resume
        self._rates = Rates()
        self._last_printed_at = -1.0
        self._phase: Phase = "starting"

    def __enter__(self) -> Self:
        """Print which tape is played."""
        self._print(f"pabal demo: {title_of(self._run)}")
        self._print(
            t(
                "log {path}, process {process}; if interrupted: {resume}",
                path=self._path,
                process=self._process,
                resume=self._resume,
            )
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: the printed lines stay."""

    def show(self, snapshot: Snapshot) -> None:
        """Print a line about a snapshot."""
        if snapshot.phase == self._phase == "finished":
            return
        self._phase = snapshot.phase
        self._rates.note(snapshot)
        for news in snapshot.news:
            if news.kind == "dead letter" and news.at > self._last_printed_at:
                what, then = error_line(news.what), translate(news.then)
                self._print(f"{seconds(news.at, 6)}  {t('DEAD LETTER')}  {what}; {then}")
                self._last_printed_at = news.at
        lags = ", ".join(
            f"{subscription.name} {subscription.lag}"
            for subscription in snapshot.subscriptions
            if subscription.lag
        )
        played = t(
            "{phase}: {fed} of {events}, {rate}/s; lag: {lags}; {retries}, {letters}",
            phase=t(snapshot.phase),
            fed=f"{snapshot.fed:,}",
            events=counted(snapshot.length, "event"),
            rate=f"{self._rates.of(''):,.0f}",
            lags=lags or t("none"),
            retries=counted(snapshot.retries, "retry", "retries"),
            letters=counted(snapshot.dead_letters, "dead letter"),
        )
        self._print(f"{seconds(snapshot.elapsed, 6)}  {played}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, emoji=False)
        self._console.file.flush()


# -- live -------------------------------------------------------------------------------------------------


class LiveView:
    """Redraw one screen in place, four times a second."""

    interval = 0.25

    def __init__(self, console: Console, run: RunStarted, process: int, resume: str) -> None:
        self._console = console
        self._run = run
        self._process = process
        self._resume = resume
        self._rates = Rates()
        # Redrawn only by show(): a refresh thread would race with the bus's event loop.
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._live.start()
        # Keep the cursor visible: the demo invites kill -9, after which nothing could show it again.
        self._console.show_cursor(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the live view; the summary takes its place."""
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot."""
        self._rates.note(snapshot)
        self._live.update(self.render(snapshot), refresh=True)

    def render(self, snapshot: Snapshot) -> RenderableType:
        """Return the whole screen for a snapshot."""
        parts: list[RenderableType] = [
            self._head(snapshot),
            self._progress(snapshot),
            Text(),
            self._subscriptions(snapshot),
            Text(),
            _flow(snapshot),
            Text(),
            holdings_table(snapshot.holdings),
            Text(),
            *_news(snapshot.news),
            self._foot(),
            Text(),  # the shell writes its prompt here after kill -9
        ]
        return Group(*parts)

    def _head(self, snapshot: Snapshot) -> Text:
        head = Text.assemble(("pabal demo", "bold"), "  ", no_wrap=True, overflow="ellipsis")
        head.append(title_of(self._run), style="bold yellow" if self._run.simulated else "bold green")
        head.append(f"  {t(snapshot.phase)}, {seconds(snapshot.elapsed)}", style="dim")
        return head

    def _progress(self, snapshot: Snapshot) -> Table:
        line = Table.grid(padding=(0, 2))
        line.add_row(
            ProgressBar(total=snapshot.length, completed=snapshot.fed, width=34),
            Text(t("{fed} of {events}", fed=f"{snapshot.fed:,}", events=counted(snapshot.length, "event"))),
            Text(t("{rate}/s", rate=f"{self._rates.of(''):,.0f}")),
        )
        return line

    def _subscriptions(self, snapshot: Snapshot) -> Table:
        subscriptions = table(
            "subscription", "reads", "handled", "per second", "lag", "retried", "parked", left=2
        )
        for subscription in snapshot.subscriptions:
            subscriptions.add_row(
                Text(subscription.name),
                Text(t(READS[subscription.name]), style="dim"),
                Text(f"{subscription.handled:,}"),
                Text(f"{self._rates.of(subscription.name):,.0f}"),
                Text(f"{subscription.lag:,}", style="yellow" if subscription.lag else "dim"),
                Text(f"{subscription.retried:,}", style="yellow" if subscription.retried else "dim"),
                Text(f"{subscription.parked:,}", style="bold red" if subscription.parked else "dim"),
            )
        return subscriptions

    def _foot(self) -> Text:
        foot = Text(style="dim", no_wrap=True, overflow="ellipsis")
        foot.append(t("try it: "))
        foot.append(f"kill -9 {self._process}", style="bold")
        foot.append(t(", then: "))
        foot.append(self._resume, style="bold")
        return foot


def _flow(snapshot: Snapshot) -> Text:
    """Show how many events of each type the log holds."""
    flow = Text(no_wrap=False)
    for event_type, name in NAMES.items():
        if event_type in snapshot.by_type or flow:
            flow.append(" / " if name == "rejected" else " → " if flow else "", style="dim")
            flow.append(f"{snapshot.by_type.get(event_type, 0):,}", style="bold")
            flow.append(f" {t(name)}")
    return flow


def _news(news: tuple[News, ...]) -> list[Text]:
    """Show the last dead letter and, in the rest of three lines, the last retries."""
    letters = [one for one in news if one.kind == "dead letter"][-1:]
    retries = [one for one in news if one.kind == "retry"][-(1 if letters else 3) :]
    lines = [
        _line(one.at, t("retry"), "yellow", f"{error_line(one.what)}; {translate(one.then)}")
        for one in retries
    ]
    for one in letters:
        lines.append(_line(one.at, t("DEAD LETTER"), "bold red", error_line(one.what)))
        lines.append(Text(f"{'':9}{translate(one.then)}", no_wrap=True, overflow="ellipsis"))
    return lines + [Text()] * (3 - len(lines))


def _line(at: float, kind: str, style: str, text: str) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{seconds(at, 5)}  ", style="dim")
    line.append(f"{kind}  ", style=style)
    line.append(text)
    return line
