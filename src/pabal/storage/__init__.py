"""Storages for the event log: in memory, or in an SQLite file."""
