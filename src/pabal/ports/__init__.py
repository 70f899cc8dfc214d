"""The protocols that backends implement; their docstrings are the contract."""
