"""The command line: ``pabal``. Needs the extra ``cli``; importing this module does not."""

from __future__ import annotations

import codecs
import io
import os
import sys

_ESCAPING = "pabal.escaping"


def main() -> None:
    """Run the command line; Ctrl-C ends it with 130, at whatever moment it comes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as with ``<&-``: no file is to be opened in its place
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    codecs.register_error(_ESCAPING, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors=_ESCAPING)  # this terminal has not every letter of an event
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)  # while modules were being imported; whatever runs later sees to it itself


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Write a letter that the terminal has not as JSON writes it, so that JSON is still JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)), error.end


def _run() -> None:
    """Run, or say in one line how to get what it needs (exit code 2)."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError:
        from pabal.cli.language import asked_for, choose, t

        choose(asked_for(sys.argv[1:]))
        print(t('pabal\'s commands need an optional part: pip install "pabal[cli]"'), file=sys.stderr)
        sys.exit(2)
    from pabal.cli.app import commands

    commands(prog_name="pabal")
