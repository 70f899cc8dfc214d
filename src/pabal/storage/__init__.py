"""Where the log lives: in memory, or in a SQLite file."""
