"""What is annotated, on every Python: from 3.14 on annotations are made when they are asked for."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

if sys.version_info >= (3, 14):
    import annotationlib

    # They may name what is not there yet, or is never: that is nobody's concern who does not use it.
    _NAMED = annotationlib.Format.FORWARDREF

    def annotations_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is annotated in the body of a class: as text, or what the text names."""
        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        if annotate is None:  # made as text already, by ``from __future__ import annotations``
            return dict(namespace.get("__annotations__", {}))
        return annotationlib.call_annotate_function(annotate, annotationlib.Format.STRING)

    def annotations_of(function: Any) -> dict[str, Any]:
        """Return the annotations of a function; what they name and is not there is a ``ForwardRef``."""
        return annotationlib.get_annotations(function, format=_NAMED)

    def signature_of(function: Callable[..., Any]) -> inspect.Signature:
        """Return what ``inspect.signature`` does, whatever its annotations name."""
        return inspect.signature(function, annotation_format=_NAMED)

else:

    def annotations_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is annotated in the body of a class: as text, or what the text names."""
        return dict(namespace.get("__annotations__", {}))

    def annotations_of(function: Any) -> dict[str, Any]:
        """Return the annotations of a function."""
        return dict(function.__annotations__)

    signature_of = inspect.signature
