"""The schema of an event class: its payload fields, its codec, and which values need a check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, NoReturn

import msgspec

from pabal.domain import fields as declared
from pabal.domain.fidelity import VALUE_TESTS, first_non_finite, is_same, is_settled_by_type
from pabal.errors import (
    DecodeError,
    NaiveDatetimeError,
    NonFiniteNumberError,
    UnserializableEventError,
    UnsupportedFieldError,
)

HEADER_FIELDS = ("event_id", "occurred_at", "correlation_id", "causation_id", "metadata")
"""Fields that every event has; they are stored beside the payload, not in it."""

UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What encoding raises for a value without a JSON form; for lone surrogates it is a ValueError."""

_encoder = msgspec.json.Encoder()
encode_json = _encoder.encode

_PATH = re.compile(r"`\$\.(.+)`")
"""The place in the payload where msgspec found an error."""


class EventSchema:
    """Describe a registered event class, and convert its payload to JSON and back.

    It is made once per class. Raises UnsupportedFieldError for a field that cannot be stored, and NameError
    while an annotation names something that is not defined yet.
    """

    __slots__ = (
        "_constrained",
        "_decoder",
        "_floats",
        "_row",
        "_verified",
        "aggregate_id_of",
        "aggregate_type",
        "cls",
        "event_type",
        "fields",
        "mutable",
        "payload_type",
        "positional",
        "values",
        "version",
    )

    def __init__(
        self,
        cls: type,
        *,
        event_type: str,
        version: int,
        aggregate_type: str | None,
        aggregate_id_of: Callable[[Any], str | None],
        fields: tuple[str, ...],
    ) -> None:
        self.cls = cls
        self.event_type = str.__str__(event_type)  # a member of a StrEnum becomes plain text
        self.version = version
        self.aggregate_type = None if aggregate_type is None else str.__str__(aggregate_type)
        self.aggregate_id_of = aggregate_id_of
        self.fields = fields
        self.payload_type = self._make_payload_type()
        self.values = _values_getter(fields)
        """Returns the payload values of a body in field order."""
        # Encoding a struct of the values takes a third of the time of encoding a dictionary.
        self._row = msgspec.defstruct(f"{cls.__name__}Row", fields, gc=False)
        # Passing the fields by name takes a third of making an event; only keyword-only fields need it.
        self.positional = issubclass(cls, msgspec.Struct) and cls.__match_args__ == fields
        # For each combination of value types that was verified: the values that still need a test, and it.
        self._verified: dict[tuple[type, ...], tuple[tuple[int, Callable[[Any], bool]], ...]] = {}
        self._compile()

    # -- set-up ---------------------------------------------------------------------------------------

    def _make_payload_type(self) -> type:
        if not issubclass(self.cls, msgspec.Struct):
            return self.cls
        fields: list[Any] = []
        for field in msgspec.structs.fields(self.cls):
            if field.name not in self.fields:
                continue
            if field.default is not msgspec.NODEFAULT:
                fields.append((field.name, field.type, field.default))
            elif field.default_factory is not msgspec.NODEFAULT:
                factory = msgspec.field(default_factory=field.default_factory)
                fields.append((field.name, field.type, factory))
            else:
                fields.append((field.name, field.type))
        config = self.cls.__struct_config__
        return msgspec.defstruct(
            f"{self.cls.__name__}Payload",
            fields,
            module=self.cls.__module__,
            kw_only=True,
            frozen=True,
            gc=False,
            forbid_unknown_fields=config.forbid_unknown_fields,
        )

    def _compile(self) -> None:
        try:
            info: Any = msgspec.inspect.type_info(self.payload_type)
            self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.payload_type)
        except NameError:
            raise
        except Exception as error:
            at_fault = declared.find_refused_field(self.cls, self.fields)
            self._refuse_field(at_fault, str(error), error)
        annotations = declared.annotations_of(self.cls)
        nodes = {field.name: list(declared.walk(field.type)) for field in info.fields}
        for name, found in nodes.items():
            reason = declared.unsupported_reason(annotations[name], found)
            if reason is not None:
                self._refuse_field(name, reason)
        every = [node for found in nodes.values() for node in found]
        self.mutable = any(map(declared.is_mutable, every))
        self._constrained = any(map(declared.is_constrained, every))
        self._floats = tuple(name for name, found in nodes.items() if any(map(declared.holds_floats, found)))

    def _refuse_field(self, name: str, reason: str, cause: Exception | None = None) -> NoReturn:
        raise UnsupportedFieldError(event_class=self.cls.__qualname__, field=name, reason=reason) from cause

    # -- values ---------------------------------------------------------------------------------------

    @property
    def has_floats(self) -> bool:
        """Return whether ``check_finite`` has any field to check."""
        return bool(self._floats)

    def check_finite(self, body: Any, event_id: str) -> None:
        """Raise NonFiniteNumberError if a float anywhere in ``body`` is NaN or infinite."""
        self._check_finite(((name, getattr(body, name)) for name in self._floats), event_id)

    def _check_finite(self, values: Iterable[tuple[str, Any]], event_id: str) -> None:
        for name, value in values:
            try:
                bad = first_non_finite(value)
            except RecursionError as error:
                self._refuse_value(event_id, error)
            if bad is not None:
                raise NonFiniteNumberError(
                    event_type=self.event_type, event_id=event_id, field=name, value=bad
                )

    # -- codec ----------------------------------------------------------------------------------------

    def encode(self, body: Any, event_id: str) -> bytes:
        """Encode the payload of ``body`` as JSON that decodes to an equal payload.

        Raises NonFiniteNumberError, NaiveDatetimeError or UnserializableEventError.
        """
        values = self.values(body)
        types = tuple(map(type, values))
        try:
            payload = encode_json(self._row(*values))
        except UNENCODABLE as error:
            self._refuse_value(event_id, error)
        tests = self._verified.get(types)
        if tests is None:
            self._verify(payload, values, types, event_id)
        else:
            for index, is_good in tests:
                if not is_good(values[index]):
                    self._verify(payload, values, types, event_id)
        return payload

    def _verify(
        self, payload: bytes, values: tuple[Any, ...], types: tuple[type, ...], event_id: str
    ) -> None:
        """Read the payload back and compare; remember the value types if they alone prove the rest."""
        self._check_finite(zip(self.fields, values, strict=True), event_id)
        try:
            again = self.values(self._decoder.decode(payload))
            same = tuple(map(is_same, values, again))
        except msgspec.ValidationError as error:
            self._explain(event_id, error)
        except RecursionError as error:  # decoding and comparing allow less nesting than encoding
            self._refuse_value(event_id, error)
        for name, before, after, is_good in zip(self.fields, values, again, same, strict=True):
            if not is_good:
                raise UnserializableEventError(
                    event_type=self.event_type,
                    event_id=event_id,
                    reason=f"{name} is {before!r} but would be read back as {after!r}",
                )
        if not self._constrained and all(map(is_settled_by_type, values, again)):
            self._verified[types] = tuple(
                (index, VALUE_TESTS[kind]) for index, kind in enumerate(types) if kind in VALUE_TESTS
            )

    def _explain(self, event_id: str, error: msgspec.ValidationError) -> NoReturn:
        path = _PATH.search(str(error))
        if path is not None and "with a timezone" in str(error):
            raise NaiveDatetimeError(event_type=self.event_type, field=path[1]) from error
        self._refuse_value(event_id, error)

    def _refuse_value(self, event_id: str, error: Exception) -> NoReturn:
        raise UnserializableEventError(
            event_type=self.event_type, event_id=event_id, reason=str(error)
        ) from error

    def rebuild(self, body: Any, **header: Any) -> Any:
        """Make the event from a decoded payload and the stored header fields."""
        return self.cls(**dict(zip(self.fields, self.values(body), strict=True)), **header)

    def decode_body(self, payload: bytes, position: int | None = None) -> Any:
        """Decode JSON to an instance of ``payload_type`` (for a registered dataclass: the class itself)."""
        try:
            return self._decoder.decode(payload)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            raise DecodeError(event_type=self.event_type, position=position, reason=str(error)) from error


def _values_getter(fields: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if not fields:
        return lambda body: ()
    getter = attrgetter(*fields)
    if len(fields) == 1:
        return lambda body: (getter(body),)
    return getter
