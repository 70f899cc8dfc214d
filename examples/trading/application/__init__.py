"""The application's commands and queries, and the process that takes an order from placed to settled."""
