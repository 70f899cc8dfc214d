"""A trading application on pabal: aggregates, projections, a process manager, commands and queries."""
