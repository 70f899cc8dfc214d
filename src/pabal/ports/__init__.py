"""What the bus needs from outside, as protocols; the docstrings are the contract."""
