"""Let ``python -m pabal`` be the command line."""

from pabal.cli import main

if __name__ == "__main__":
    main()
