"""Every example on a page for people runs, and prints what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Block, all_pages, blocks_of, examples_of, name_of
from tests.docs.stage import Stage, WrongOutputError

_PAGES = [page for page in all_pages() if examples_of(page)]


@pytest.mark.parametrize("page", _PAGES, ids=name_of)
def test_the_examples_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader who copies an example would get an error, or another output than the page shows."""
    monkeypatch.chdir(tmp_path)
    with Stage("page_" + name_of(page).replace("/", "_").replace(".", "_")) as stage:
        stage.run(examples_of(page))


def test_the_readmes_of_both_languages_have_a_short_example() -> None:
    """New readers would not see quickly what using the bus is like."""
    for name in ("README.md", "README.ko.md"):
        page = next(page for page in all_pages() if name_of(page) == name)
        examples = examples_of(page)
        assert examples, name
        lines = [line for line in examples[0].text.splitlines() if line.strip()]
        assert len(lines) <= 26, f"the first example of {name} has {len(lines)} lines"


# -- the checks themselves ----------------------------------------------------------------------------------


def _block(text: str, line: int = 1) -> Block:
    return Block(Path(__file__), line, "python", text)


def test_an_example_with_other_output_fails() -> None:
    """A wrong output on a page, or one that is left out, would go unnoticed."""
    for text in ("print(1 + 1)\n# → 3\n", "print(1 + 1)\n", "# → 2\n"):
        with Stage("page_wrong") as stage, pytest.raises(WrongOutputError):
            stage.run([_block(text)])


def test_an_example_that_raises_fails_with_the_line_of_the_page() -> None:
    """An author who fixes a page could not find the place."""
    with Stage("page_raises") as stage, pytest.raises(ZeroDivisionError) as caught:
        stage.run([_block("x = 1\n1 / 0\n", line=40)])
    assert caught.traceback[-1].lineno + 1 == 41


def test_blocks_of_a_page_share_their_names_and_their_loop() -> None:
    """A page could not build on what it showed further up."""
    with Stage("page_chain") as stage:
        stage.run(
            [
                _block("import asyncio\nloop = asyncio.get_running_loop()\nawait asyncio.sleep(0)\n"),
                _block("await asyncio.sleep(0)\nprint(loop is asyncio.get_running_loop())\n# → True\n"),
            ]
        )


@pytest.mark.parametrize("info", ["python notest", 'python notest="x"', "python nosuchword", "py", "pycon"])
def test_a_python_block_cannot_be_excluded_by_mistake_or_without_a_reason(info: str, tmp_path: Path) -> None:
    """A block marked by mistake, or without a reason, would never be run."""
    page = tmp_path / "page.md"
    page.write_text(f"```{info}\n1 / 0\n```\n")
    with pytest.raises(ValueError, match=r"page\.md:2"):
        examples_of(page)


def test_an_unclosed_block_is_rejected(tmp_path: Path) -> None:
    """Everything behind it would vanish from the page and from the test."""
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n")
    with pytest.raises(ValueError, match="never closed"):
        list(blocks_of(page))
