"""Storage, read models and prices, and the assembly of all parts."""
