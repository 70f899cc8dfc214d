"""The command line, ``pabal``. It needs the extra ``cli``; this module can be imported without it."""

from __future__ import annotations

import codecs
import io
import os
import sys

_ESCAPING = "pabal.escaping"


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130, whenever it comes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as with ``<&-``: keep files from taking its descriptor
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    codecs.register_error(_ESCAPING, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors=_ESCAPING)  # this terminal cannot encode every character of an event
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)  # during imports; everything that runs later handles Ctrl-C itself


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Escape a character that the terminal cannot encode as JSON does, so that JSON output stays valid."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)), error.end


def _run() -> None:
    """Run the command, or print in one line how to install the dependencies (exit code 2)."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError:
        from pabal.cli.language import choose, requested_language, t

        choose(requested_language(sys.argv[1:]))
        print(t('pabal\'s commands need an optional dependency: pip install "pabal[cli]"'), file=sys.stderr)
        sys.exit(2)
    from pabal.cli.app import commands

    commands(prog_name="pabal")
