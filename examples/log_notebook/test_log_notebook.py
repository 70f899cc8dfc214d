"""The notebook runs from its first cell to its last, and the Korean one runs the same cells."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from pabal import DomainEvent, EventBusFactory

HERE = Path(__file__).parent


class NoteTaken(DomainEvent):
    """An event type that the demo does not have."""

    event_type: ClassVar[str] = "log-notebook-test.note_taken"
    note: str


def _load(name: str) -> NotebookNode:
    return nbformat.read(HERE / name, as_version=4)  # type: ignore[no-untyped-call, no-any-return]


def _code(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_runs_and_the_plots_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook would fail, and readers would blame the library."""
    monkeypatch.delenv("PABAL_LOG", raising=False)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = _load("explore_a_log.ipynb")

    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert len(pictures) == 3
    assert "candles: 1 x ImpossiblePriceError" in printed
    assert "order.filled" in printed


async def test_a_log_of_other_events_runs_every_cell_but_the_price_chart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users who open their own log would get an IndexError in the middle, and see nothing after it."""
    async with EventBusFactory.create_default_event_bus(tmp_path / "notes.db") as bus:
        await bus.publish(NoteTaken("n-1"))
    monkeypatch.setenv("PABAL_LOG", str(tmp_path / "notes.db"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = _load("explore_a_log.ipynb")
    prices = notebook.cells.pop()
    assert "price of" in prices.source

    await NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).async_execute()

    printed = [output for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]
    assert NoteTaken.event_type in printed[-1].text


def test_both_notebooks_have_the_same_cells_and_no_outputs() -> None:
    """The Korean notebook would show something else, or outputs of an old run."""
    english, korean = _load("explore_a_log.ipynb"), _load("explore_a_log.ko.ipynb")

    assert _code(english) == _code(korean)
    assert [cell.cell_type for cell in english.cells] == [cell.cell_type for cell in korean.cells]
    for notebook in (english, korean):
        assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
