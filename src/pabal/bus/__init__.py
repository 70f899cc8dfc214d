"""The bus: subscribing, publishing, and its life cycle."""
