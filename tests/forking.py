"""Helpers for the tests of forks: run programs that fork, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

IN_CHILD = """
import os, signal, sys

def end_child(function):
    signal.alarm(60)
    try:
        function()
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)
"""
"""Begins a program: ``end_child(function)``, in a forked child, runs it and reports how it ended."""


def run_program(program: str, *arguments: str) -> None:
    """Run a program that forks in a process of its own: this one has threads, so Python warns of forks."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_CHILD + program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
