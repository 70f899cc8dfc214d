"""Differences are shown line by line, however many lines there are."""

from __future__ import annotations

from pabal.testing import difference


def test_similar_lines_are_shown_next_to_each_other() -> None:
    """Two events that differ in one field would have to be compared by eye."""
    shown = difference.compare(["Paid(amount=10)"], ["Paid(amount=20)"]).splitlines()
    assert [line for line in shown if not line.startswith("? ")] == ["- Paid(amount=10)", "+ Paid(amount=20)"]
    assert any(line.startswith("? ") for line in shown)


def test_many_lines_are_not_compared_character_by_character() -> None:
    """A failing test of two hundred events took twenty seconds to report it; of two thousand, an hour."""
    same = "Paid(same)"
    wanted = [f"Paid(order='o-{n}', amount={n * n})" for n in range(2_000)]
    found = [f"Paid(order='p-{n}', amount={n * n + 1})" for n in range(2_000)]
    shown = difference.compare([same, *wanted], [same, *found]).splitlines()
    assert shown == [f"  {same}", *(f"- {line}" for line in wanted), *(f"+ {line}" for line in found)]
