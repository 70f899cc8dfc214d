"""The statistics behind the numbers in a report."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from benchmarks.harness import expect_handled, interleave
from benchmarks.model import Entry, Metrics, Series, percentile, ratio


def series(*samples: float, rival: str = "one") -> Series:
    return Series("case", rival, "events/s", samples)


def entry(rival: str, measure: Callable[[], Metrics], missing: str = "") -> Entry:
    return Entry("case", rival, ("events/s",), measure, missing=missing)


def test_median_and_range_ignore_the_order_of_the_runs() -> None:
    """A median of unsorted samples would depend on the order of the runs."""
    one = series(5.0, 1.0, 9.0, 3.0)

    assert (one.median, one.low, one.high) == (4.0, 1.0, 9.0)


def test_a_ratio_is_computed_round_by_round() -> None:
    """With a quotient of medians, one disturbed round of one rival could shift the result."""
    mine = series(200.0, 20.0, 210.0)
    theirs = series(100.0, 10.0, 70.0, rival="other")

    quotient = ratio(mine, theirs)

    assert quotient is not None
    assert (quotient.median, quotient.low, quotient.high) == (2.0, 2.0, 3.0)


def test_a_ratio_with_a_rival_that_was_not_measured_is_none() -> None:
    """A missing rival must not look infinitely slow."""
    assert ratio(series(1.0), series(rival="other")) is None


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (0.0, 1.0), (1.0, 1000.0)]
)
def test_a_percentile_is_a_value_that_occurred(share: float, expected: float) -> None:
    """Interpolation would invent a latency that never occurred; off by one would hide the worst."""
    assert percentile([float(value) for value in range(1, 1001)], share) == expected


def test_percentile_of_an_empty_list_raises() -> None:
    """An empty list has no latency, rather than a latency of zero."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_rivals_take_turns_and_the_first_round_is_discarded() -> None:
    """With the order A A A B B B, a busy minute would affect only one rival."""
    calls: list[str] = []

    def measure(rival: str) -> Callable[[], Metrics]:
        def one() -> Metrics:
            calls.append(rival)
            return {"events/s": float(len(calls))}

        return one

    first, second = interleave([entry("a", measure("a")), entry("b", measure("b"))], 3)

    assert calls == ["a", "b"] * 4
    assert first.samples == (3.0, 5.0, 7.0)
    assert second.samples == (4.0, 6.0, 8.0)


def test_a_rival_that_is_not_installed_is_not_called_and_has_no_samples() -> None:
    """A zero for a rival that did not run would make a chart wrong."""

    def must_not_run() -> Metrics:
        raise AssertionError("called")

    (one,) = interleave([entry("absent", must_not_run, missing="not installed")], 2)

    assert one.samples == ()
    assert one.note == "not installed"


def test_a_failing_rival_loses_its_samples_and_the_others_continue(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One broken rival must not cost an hour of measuring, or be shown with its successful runs only."""
    handled = iter([2, 2, 1])

    def fail_at_last() -> Metrics:
        expect_handled("breaks", next(handled), 2)
        return {"events/s": 1.0}

    broken, sound = interleave([entry("broken", fail_at_last), entry("sound", lambda: {"events/s": 2.0})], 3)

    assert broken.samples == ()
    assert broken.note == "failed: IncompleteError: breaks handled 1 of 2 events"
    assert sound.samples == (2.0, 2.0, 2.0)
    assert "Traceback" in capsys.readouterr().err
