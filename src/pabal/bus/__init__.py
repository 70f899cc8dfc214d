"""The bus: subscribe, publish, live."""
