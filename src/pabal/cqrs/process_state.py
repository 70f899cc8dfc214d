"""Store the annotated attributes of a process at each step, and restore them for the next."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import Field
from functools import cached_property, partial
from typing import Any, ClassVar, get_origin, get_type_hints

import msgspec

from pabal.domain.annotations import annotations_in
from pabal.errors import DecodeError, ProcessDefinitionError

_RESERVED = frozenset({"key", "sent", "timeouts", "ended"})
_SETTINGS = frozenset({"process_type", "rejections"})
"""Attributes of the class that are no state, even if a subclass annotates them."""


class StateCodec:
    """Encode the state of one process class as JSON, and decode it."""

    def __init__(self, cls: type, root: type) -> None:
        self._cls = cls
        self.defaults: dict[str, Any] = {}
        reserved = _RESERVED.union(vars(root), annotations_in(vars(root)))
        for base in reversed(cls.__mro__):
            if not issubclass(base, root) or base is root:
                continue
            for name, annotation in annotations_in(vars(base)).items():
                if name in _SETTINGS or "ClassVar" in str(annotation):
                    continue
                if name in reserved:
                    self._refuse(f"{name} is an attribute of every process; give yours another name")
                if name not in vars(base):
                    self._refuse(f"{name} has no default; an instance begins with one")
                if isinstance(vars(base)[name], Field):
                    self._refuse(
                        f"{name} uses dataclasses.field(), which only dataclasses know; write a default "
                        "such as [], which each instance copies"
                    )
                self.defaults[name] = vars(base)[name]

    def _refuse(self, reason: str) -> None:
        raise ProcessDefinitionError(reason, process=self._cls.__qualname__)

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any]:
        # Cached on first use: an annotation may name a class that is defined further down.
        try:
            hints = get_type_hints(self._cls, include_extras=True)
            fields = [
                (name, hints[name], msgspec.field(default_factory=partial(deepcopy, default)))
                for name, default in self.defaults.items()
                if get_origin(hints[name]) is not ClassVar
            ]
            return msgspec.json.Decoder(msgspec.defstruct(f"{self._cls.__name__}State", fields, kw_only=True))
        except (NameError, TypeError) as error:
            raise ProcessDefinitionError(
                f"its state cannot be stored: {error}", process=self._cls.__qualname__
            ) from error

    def encode(self, process: Any, previous: str = "{}") -> str:
        """Return the state as JSON. Raises ProcessDefinitionError if decoding would not give equal values.

        Unknown attributes in the ``previous`` state are kept: a newer release may have stored them.
        """
        unannotated = sorted(vars(process).keys() - self.defaults.keys() - _RESERVED)
        if unannotated:
            self._refuse(f"{unannotated[0]} has no annotation; write one in the class body, with a default")
        state = {name: getattr(process, name) for name in self.defaults}
        try:
            text = msgspec.json.encode({**self._unknown(previous), **state})
            decoded = self._decoder.decode(text)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise ProcessDefinitionError(
                f"its state cannot be stored: {error}", process=self._cls.__qualname__
            ) from error
        for name, value in state.items():
            decoded_value = getattr(decoded, name)
            if decoded_value != value or type(decoded_value) is not type(value):
                self._refuse(
                    f"{name} is {value!r:.60} and would come back as {decoded_value!r:.60}; annotate it so"
                )
        return text.decode()

    def _unknown(self, state: str) -> dict[str, msgspec.Raw]:
        found = msgspec.json.decode(state, type=dict[str, msgspec.Raw])
        return {name: value for name, value in found.items() if name not in self.defaults}

    def restore(self, process: Any, state: str) -> None:
        """Set the attributes from a stored state. Raises DecodeError if they no longer fit the class."""
        try:
            decoded = self._decoder.decode(state)
        except msgspec.MsgspecError as error:
            raise DecodeError(
                event_type=f"state of {self._cls.__qualname__}",
                position=None,
                reason=f"{error}; a state has no upcaster, so annotate the attribute with a type that "
                "accepts both",
            ) from error
        for name in self.defaults:
            setattr(process, name, getattr(decoded, name))
