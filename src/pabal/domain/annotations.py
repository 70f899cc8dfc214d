"""Read annotations on every Python version; from 3.14 on they are evaluated only when asked for."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

if sys.version_info >= (3, 14):
    import annotationlib

    # An annotation may name something that is not defined yet, or never: that must not fail here.
    _NAMED = annotationlib.Format.FORWARDREF

    def annotations_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
        """Return the annotations in the body of a class, as text or as the objects that the text names."""
        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        if annotate is None:  # already text, because of ``from __future__ import annotations``
            return dict(namespace.get("__annotations__", {}))
        return annotationlib.call_annotate_function(annotate, annotationlib.Format.STRING)

    def annotations_of(function: Any) -> dict[str, Any]:
        """Return the annotations of a function; an undefined name becomes a ``ForwardRef``."""
        return annotationlib.get_annotations(function, format=_NAMED)

    def signature_of(function: Callable[..., Any]) -> inspect.Signature:
        """Return ``inspect.signature`` of a function, even if its annotations name something undefined."""
        return inspect.signature(function, annotation_format=_NAMED)

else:

    def annotations_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
        """Return the annotations in the body of a class, as text or as the objects that the text names."""
        return dict(namespace.get("__annotations__", {}))

    def annotations_of(function: Any) -> dict[str, Any]:
        """Return the annotations of a function; a built-in one has none."""
        return dict(getattr(function, "__annotations__", {}))

    signature_of = inspect.signature
