"""Bridges to what applications already use: web frameworks and event formats. Each module by itself."""
