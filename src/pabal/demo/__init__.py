"""A small trading application on the durable bus: what ``pabal demo`` runs.

Ticks go in; a candle builder, a moving-average strategy, a risk check, a paper exchange and a position
book react to each other's events only through the bus. Money is never real here.
"""
