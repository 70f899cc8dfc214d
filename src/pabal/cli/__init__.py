"""The command line: ``pabal``. Needs the extra ``cli``; importing this module does not."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say in one line how to get what it needs (exit code 2)."""
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
