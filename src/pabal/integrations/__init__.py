"""Bridges to web frameworks, event formats and other tools. Import each module by itself.

Modules: ``asyncapi``, a document of events and their subscribers; ``cloudevents``, events for other systems;
``starlette``, a bus in a Starlette or FastAPI application; ``qt``, a bus in Qt's event loop; ``progress``, a
progress bar for building a projection.
"""
