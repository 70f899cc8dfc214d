"""A report shows what was measured, what was not, and on which machine."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from benchmarks import report
from benchmarks.__main__ import SCENARIOS
from benchmarks.charts import bar_chart, scale_for, short
from benchmarks.goals import GOALS, judge
from benchmarks.machine import Environment, describe
from benchmarks.model import Outcome, Series, Table
from benchmarks.report import Measured, Report
from benchmarks.scenarios import in_memory, sourcing
from benchmarks.words import KOREAN
from docs.translations import revision_of

CASE = in_memory.case_name(1, 1, "asyncio")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return describe(tmp_path_factory.mktemp("disk"))


def outcome(*series: Series) -> Outcome:
    table = Table("Events per second", ("events/s",), in_memory.REFERENCE, "in-memory")
    return Outcome(in_memory.NAME, "In memory", "Some words.", (table,), series)


def measured(rival: str, *samples: float, note: str = "") -> Series:
    return Series(CASE, rival, "events/s", samples, "1.0", events=1_000, note=note)


def test_a_row_shows_median_range_runs_and_ratio(environment: Environment) -> None:
    """A result without its range and number of runs is an anecdote."""
    results = Report(
        (
            Measured(
                outcome(measured("pabal", 3e6, 2e6, 4e6), measured(in_memory.REFERENCE, 1e6, 1e6, 1e6)),
                environment,
            ),
        )
    )

    text = report.markdown(results)

    assert "3,000,000 (2,000,000–4,000,000, n=3) | 3.00 (2.00–4.00) |" in text
    assert environment.line in text


def test_the_report_marks_a_rival_that_is_not_installed(environment: Environment) -> None:
    """Leaving it out, or showing a zero, would both be misleading."""
    results = Report((Measured(outcome(measured("pyee", note="not installed")), environment),))

    assert "| pyee | 1.0 | memory | 1,000 | not installed | – |" in report.markdown(results)


def test_a_goal_is_met_missed_or_not_measured(environment: Environment) -> None:
    """A goal that was not measured must not count as met."""
    fast = outcome(
        measured("pabal", 3e6), measured(in_memory.REFERENCE, 1e6), measured("deque, 1 worker", 20e6)
    )

    verdicts = {(v.scenario, v.goal): v.met for v in judge({in_memory.NAME: fast})}

    assert len(verdicts) == len(GOALS)
    assert verdicts["in memory, 1 handler, 1 key", "≥ 1.5 × asyncio.Queue with 4 workers"] is True
    assert verdicts["in memory, 1 handler, 1 key", "≥ 0.3 × a bare deque worker"] is False
    assert verdicts["in memory, 1 handler, 1 key", "≥ 10 × pyee"] is None


@pytest.mark.parametrize(("reached", "met"), [(50_000.0, True), (49_999.0, False)])
def test_a_minimum_goal_is_met_at_its_value_and_missed_below_it(reached: float, met: bool) -> None:
    """The slower a rebuild, the better it would look."""
    series = Series(sourcing.REBUILD, "pabal", sourcing.EVENTS, (reached,), "1.0", events=1_000)
    rebuilt = Outcome(sourcing.NAME, "Event sourcing", "", (), (series,))
    verdicts = {(v.scenario, v.goal): v.met for v in judge({sourcing.NAME: rebuilt})}
    assert verdicts["rebuild a read model from 1,000,000 events", "≥ 50,000 events/s"] is met


def test_every_scenario_of_the_published_report_has_a_chart() -> None:
    """Readers would have to find the proportions in a table of forty rows."""
    page = (Path(report.__file__).parents[1] / "docs" / "benchmarks.md").read_text("utf-8")
    _, *sections = re.split(r"^## (?!Machine|Goals)", page, flags=re.MULTILINE)
    assert len(sections) == len(SCENARIOS)
    assert [section.partition("\n")[0] for section in sections if "![" not in section] == []


def test_a_written_report_can_be_loaded_and_one_scenario_replaced(
    tmp_path: Path, environment: Environment
) -> None:
    """Measuring one scenario again must not discard the others."""
    other = msgspec.structs.replace(outcome(measured("pabal", 1.0)), scenario="durable")
    old = Report((Measured(outcome(measured("pabal", 1.0)), environment), Measured(other, environment)))
    report.write(old, tmp_path)

    new = report.merge(
        report.load(tmp_path),
        [Measured(outcome(measured("pabal", 2.0)), environment)],
        ["in-memory", "durable"],
    )

    assert [one.outcome.scenario for one in new.scenarios] == ["in-memory", "durable"]
    assert new.scenarios[0].outcome.series[0].samples == (2.0,)
    assert new.scenarios[1] == old.scenarios[1]


def test_merge_drops_the_results_of_another_machine(environment: Environment) -> None:
    """A report of two machines would compare processors, not libraries."""
    elsewhere = msgspec.structs.replace(environment, cpu="another")
    old = Report((Measured(msgspec.structs.replace(outcome(), scenario="durable"), elsewhere),))

    new = report.merge(old, [Measured(outcome(), environment)], ["in-memory", "durable"])

    assert [one.outcome.scenario for one in new.scenarios] == ["in-memory"]


def test_a_chart_is_well_formed_xml_with_a_bar_for_every_result() -> None:
    """A chart that a browser rejects, or that leaves out a rival, is worthless."""
    shown = [
        measured("pabal <ours>", 5.0, 4.0),
        measured("other", 2.0),
        measured("absent", note="not installed"),
    ]

    root = ElementTree.fromstring(bar_chart("Title & more", "events/s", shown, "pabal"))

    kinds = [element.get("class") for element in root.iter("{http://www.w3.org/2000/svg}rect")]
    texts = "".join(root.itertext())
    assert kinds == ["page", "own", "other"]
    assert "not installed" in texts
    assert "prefers-color-scheme: dark" in texts


def test_widely_spread_values_get_a_logarithmic_scale() -> None:
    """On a linear scale, the bar of a rival that is a thousand times slower would be invisible."""
    near, far = scale_for([10.0, 100.0]), scale_for([1.0, 1_000.0])

    assert (near.logarithmic, far.logarithmic) == (False, True)
    assert near.length(10.0) == pytest.approx(near.length(100.0) / 10)
    assert far.length(1.0) > 1.0
    assert far.length(1_000.0) == near.length(100.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_234_567.0, "1,230,000"), (98.76, "98.8"), (0.004321, "0.00432"), (0.0, "0"), (5.0, "5.00")],
)
def test_a_number_is_shown_with_three_significant_digits(value: float, text: str) -> None:
    """More digits would claim a precision that no run has."""
    assert short(value) == text


def test_write_goals_replaces_only_the_goals_in_both_pages(environment: Environment, tmp_path: Path) -> None:
    """A page would show the results of an earlier version, or lose the text around them."""
    section = f"{report.GOALS_BEGIN}\n\nold\n\n{report.GOALS_END}"
    for name in report.GOAL_PAGES:
        (tmp_path / name).write_text(f"before\n{section}\nafter\n", "utf-8")
    series = measured("pabal", 3e6, 3e6), measured(in_memory.REFERENCE, 1e6, 1e6)
    results = Report((Measured(outcome(*series), environment),))

    for _ in range(2):
        assert {page.name for page in report.write_goals(results, tmp_path)} == set(report.GOAL_PAGES)

    for name, word in (("performance.md", "yes"), ("performance.ko.md", "예")):
        text = (tmp_path / name).read_text("utf-8")
        assert text.startswith(f"before\n{report.GOALS_BEGIN}\n\n| ")
        assert text.endswith(f"\n{report.GOALS_END}\nafter\n")
        assert "old" not in text
        assert f"3.00 × (3.00–3.00): 3,000,000 to 1,000,000 events/s | {word} |" in text


def test_write_goals_leaves_a_page_without_markers_unchanged(
    environment: Environment, tmp_path: Path
) -> None:
    """A report written to another folder must not need these pages, or damage pages of another structure."""
    (tmp_path / "performance.md").write_text("no room here\n", "utf-8")

    assert report.write_goals(Report((Measured(outcome(), environment),)), tmp_path) == []
    assert (tmp_path / "performance.md").read_text("utf-8") == "no room here\n"


def test_the_korean_page_translates_every_scenario_and_names_its_english_revision(
    tmp_path: Path, environment: Environment
) -> None:
    """An untranslated scenario would be in English on the Korean page; an outdated page would pass."""
    results = Report((Measured(outcome(measured("pabal", 2e6)), environment),))

    report.write(results, tmp_path)

    assert set(KOREAN.scenarios) == set(SCENARIOS)
    korean = (tmp_path / report.KOREAN_MARKDOWN).read_text("utf-8")
    title, text = KOREAN.scenarios[in_memory.NAME]
    assert f"## {title}\n\n{text}\n" in korean
    assert "Some words." not in korean
    assert "| pabal | 1.0 | memory | 1,000 | 2,000,000 (2,000,000–2,000,000, n=1) |" in korean
    assert (
        f"revision: {revision_of(tmp_path / report.MARKDOWN)} of {report.MARKDOWN}" in korean.splitlines()[0]
    )
