"""Run the examples of one page one after another, as a reader would type them."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Self

import pabal.cqrs  # noqa: F401 - its own events are registered for good, not by the first page that uses it
from pabal.domain.registry import registry
from tests.docs.pages import Block

_OUTPUT = "# → "


class WrongOutputError(AssertionError):
    """Report an example that prints something else than its ``# →`` comments say."""


class Stage:
    """Be the module and the event loop that the blocks of one page share.

    A block may use ``await`` at the top level, as in ``python -m asyncio``. One with a title is a program: it
    is saved under that name in the present folder and run by an interpreter of its own. What a block prints
    has to be what its ``# →`` comments say. At the beginning no event class is known but pabal's own; those
    that it defines are forgotten.
    """

    def __init__(self, name: str) -> None:
        self._module = ModuleType(name)
        self._runner = asyncio.Runner()
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Enter the module among those that annotations are resolved in."""
        sys.modules[self._module.__name__] = self._module
        self._cleanup.callback(sys.modules.pop, self._module.__name__)
        self._cleanup.enter_context(registry.isolated())
        # A page stands for a program of its own, where nothing else has defined events.
        own = {name: cls for name, cls in registry.names() if name.startswith("pabal.")}
        registry._by_class = {cls: registry.schema_of(cls) for cls in own.values()}
        registry._by_name = own
        self._cleanup.enter_context(self._runner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the loop and forget the module."""
        self._cleanup.close()

    def run(self, blocks: Iterable[Block]) -> None:
        """Run blocks in order. What they raise comes out, with the page's own line numbers."""
        for block in blocks:
            printed = self._run(block) if block.title is None else _run_program(block, block.title)
            expected = [line.strip()[len(_OUTPUT) :] for line in block.text.splitlines() if _is_output(line)]
            if printed != expected:
                raise WrongOutputError(f"{block.where} prints\n{printed}\nand its comments say\n{expected}")

    def _run(self, block: Block) -> list[str]:
        tree = ast.parse(block.text)
        ast.increment_lineno(tree, block.line - 1)
        code = compile(tree, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            if code.co_flags & inspect.CO_COROUTINE:
                self._runner.run(self._awaited(code))
            else:
                exec(code, self._module.__dict__)
        return output.getvalue().splitlines()

    async def _awaited(self, code: object) -> None:
        await eval(code, self._module.__dict__)  # type: ignore[arg-type]


def _run_program(block: Block, name: str) -> list[str]:
    Path(name).write_text(block.text, "utf-8")
    done = subprocess.run([sys.executable, name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongOutputError(f"{block.where} ends with {done.returncode}\n{done.stderr}")
    return done.stdout.splitlines()


def _is_output(line: str) -> bool:
    return line.strip().startswith(_OUTPUT)
