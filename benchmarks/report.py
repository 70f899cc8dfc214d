"""Write the report: Markdown for people, JSON for programs, a chart per table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from docs.translations import revision_of

from benchmarks.charts import bar_chart, short
from benchmarks.goals import Verdict, judge
from benchmarks.machine import Environment
from benchmarks.model import PABAL, Outcome, Series, Table, cases_of, ratio
from benchmarks.words import ENGLISH, ENGLISH_GOALS, KOREAN, KOREAN_GOALS, GoalWords, PageWords

MARKDOWN = "benchmarks.md"
KOREAN_MARKDOWN = "benchmarks.ko.md"
JSON = "benchmarks.json"
CHARTS = "benchmarks"

GOALS_BEGIN = "<!-- goals: written by make bench -->"
GOALS_END = "<!-- goals end -->"
GOAL_PAGES = {"performance.md": ENGLISH_GOALS, "performance.ko.md": KOREAN_GOALS}


class Measured(msgspec.Struct, frozen=True):
    """A scenario's outcome, with the machine it was measured on."""

    outcome: Outcome
    environment: Environment


class Report(msgspec.Struct, frozen=True):
    """All outcomes of a report, in order."""

    scenarios: tuple[Measured, ...]

    def outcomes(self) -> dict[str, Outcome]:
        """Return the outcomes by scenario."""
        return {measured.outcome.scenario: measured.outcome for measured in self.scenarios}


def merge(old: Report | None, new: Sequence[Measured], order: Sequence[str]) -> Report:
    """Replace old outcomes by new ones; old ones from another machine or Python are dropped."""
    outcomes = {measured.outcome.scenario: measured for measured in new}
    for measured in old.scenarios if old is not None else ():
        if all(measured.environment.is_like(measured_now.environment) for measured_now in new):
            outcomes.setdefault(measured.outcome.scenario, measured)
    return Report(tuple(outcomes[name] for name in order if name in outcomes))


def load(folder: Path) -> Report | None:
    """Read the figures of an earlier report, or return None."""
    try:
        return msgspec.json.decode((folder / JSON).read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError):
        return None


def write(report: Report, folder: Path) -> None:
    """Write the page in both languages, the figures, and the charts."""
    charts = folder / CHARTS
    charts.mkdir(parents=True, exist_ok=True)
    (folder / JSON).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    (folder / MARKDOWN).write_text(markdown(report), "utf-8")
    korean = f"<!-- revision: {revision_of(folder / MARKDOWN)} of {MARKDOWN} -->\n{markdown(report, KOREAN)}"
    (folder / KOREAN_MARKDOWN).write_text(korean, "utf-8")
    for measured in report.scenarios:
        for table in measured.outcome.tables:
            if table.chart:
                (charts / f"{table.chart}.svg").write_text(chart(measured, table), "utf-8")


def chart(measured: Measured, table: Table) -> str:
    """Return a table's chart as SVG."""
    better = "lower is better" if table.lower_is_better else "higher is better"
    here = measured.environment
    disk = any(one.durability in ("full", "normal") for one in measured.outcome.series)
    sync = f" · disk sync {here.sync_us:.0f} µs" if disk else ""
    subtitle = f"{table.metrics[0]}, {better} · median and range · {here.cpu} · {here.python}{sync}"
    return bar_chart(table.title, subtitle, _of_metric(measured.outcome, table.metrics[0]), PABAL)


def markdown(report: Report, words: PageWords = ENGLISH) -> str:
    """Return the whole report in one language."""
    goals = goals_table(judge(report.outcomes()), words.of_goals)
    parts = [words.introduction, _machine(report, words), f"## {words.goals}\n", goals]
    for measured in report.scenarios:
        outcome = measured.outcome
        title, text = words.scenarios.get(outcome.scenario, (outcome.title, outcome.text))
        parts.append(f"## {title}\n\n{text}\n")
        if outcome.quick:
            parts.append(f"{words.quick}\n")
        for table in outcome.tables:
            if table.chart:
                parts.append(f"![{table.title}]({CHARTS}/{table.chart}.svg)\n")
            parts.append(figures_table(outcome, table, words.columns))
            parts.append(f"<sub>{measured.environment.line}</sub>\n")
    return "\n".join(parts)


def _machine(report: Report, words: PageWords) -> str:
    if not report.scenarios:
        return ""
    one = report.scenarios[-1].environment
    versions = " · ".join(f"{name} {version}" for name, version in one.versions.items())
    return (
        f"## {words.machine}\n\n{one.cpu}, {one.cores} cores, {one.memory_gib:.0f} GiB · {one.system} · "
        f"{one.python} · SQLite {one.sqlite} · {one.filesystem}, {words.synced} {one.sync_us:.0f} µs "
        f"({one.sync_low_us:.0f}–{one.sync_high_us:.0f})\n\n{versions}\n"
    )


def goals_table(verdicts: Iterable[Verdict], words: GoalWords = ENGLISH_GOALS) -> str:
    """Return the table of goals, measured figures, and whether they are met."""
    met = {True: words.yes, False: f"**{words.no}**", None: words.unknown}
    rows = [f"| {v.scenario} | {v.goal} | {v.measured or '–'} | {met[v.met]} |" for v in verdicts]
    return "\n".join([words.head, "|---|---|---|---|", *rows, ""])


def write_goals(report: Report, folder: Path) -> list[Path]:
    """Write the table of goals between the markers in the pages on performance; return the pages."""
    written: list[Path] = []
    for name, words in GOAL_PAGES.items():
        page = folder / name
        text = page.read_text("utf-8") if page.exists() else ""
        before, begin, rest = text.partition(GOALS_BEGIN)
        _, end, after = rest.partition(GOALS_END)
        if begin and end:
            table = goals_table(judge(report.outcomes()), words)
            page.write_text(f"{before}{begin}\n\n{table}\n{end}{after}", "utf-8")
            written.append(page)
    return written


def figures_table(outcome: Outcome, table: Table, columns: Sequence[str] = ENGLISH.columns) -> str:
    """Return one table of figures."""
    head = [*columns, *table.metrics]
    if table.reference:
        head.append(f"× {table.reference}")
    rows = [
        _row(outcome, table, one)
        for case in cases_of(_of_metric(outcome, table.metrics[0]))
        for one in _of_metric(outcome, table.metrics[0])
        if one.case == case
    ]
    lines = [head, ["---"] * 5 + ["--:"] * (len(head) - 5), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _row(outcome: Outcome, table: Table, one: Series) -> list[str]:
    rival = one.rival + (f" ({one.note})" if one.note and one.measured else "")
    row = [one.case, rival, one.version or "–", one.durability, f"{one.events:,}" if one.events else "–"]
    for metric in table.metrics:
        series = outcome.find(one.case, one.rival, metric)
        row.append(_figure(series))
    if table.reference:
        reference = outcome.find(one.case, table.reference, one.metric)
        quotient = ratio(one, reference) if reference is not None else None
        row.append("–" if quotient is None else quotient_text(quotient.median, quotient.low, quotient.high))
    return row


def quotient_text(median: float, low: float, high: float) -> str:
    """Format a quotient with its range."""
    if median < 0.1:
        return f"{median:.4f} ({low:.4f}–{high:.4f})"
    return f"{median:.2f} ({low:.2f}–{high:.2f})"


def _figure(series: Series | None) -> str:
    if series is None:
        return "–"
    if not series.measured:
        return series.note
    return f"{short(series.median)} ({short(series.low)}–{short(series.high)}, n={len(series.samples)})"


def _of_metric(outcome: Outcome, metric: str) -> list[Series]:
    return [one for one in outcome.series if one.metric == metric]
