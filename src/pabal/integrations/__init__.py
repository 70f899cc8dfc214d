"""Bridges to what applications already use: web frameworks and event formats. Each module by itself.

Modules: ``asyncapi``, a document of events and their subscribers; ``cloudevents``, events for other systems;
``starlette``, a bus in a Starlette or FastAPI application; ``qt``, a bus in Qt's event loop; ``progress``, a
bar for the build of a projection.
"""
