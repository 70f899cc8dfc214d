"""Errors have fields, say what to do, can be pickled, and form the tree that is drawn."""

import pickle
import re
from typing import Any, get_type_hints

import pytest

from pabal import errors
from pabal.errors import PabalError

SAMPLES: dict[str, Any] = {
    "position": 17,
    "size": 2000,
    "limit": 1000,
    "from_version": 2,
    "expected_version": 3,
    "actual_version": 4,
    "epoch": 5,
    "queue_size": 11,
    "max_queue_size": 10,
    "timeout": 1.5,
    "pending": 3,
    "dead_letter_id": 8,
    "found": 9,
    "supported": 1,
    "value": float("inf"),
}


def all_errors() -> list[type[PabalError]]:
    found: list[type[PabalError]] = [PabalError]
    for cls in found:
        found += cls.__subclasses__()
    return [cls for cls in found if cls.__module__.startswith("pabal.errors.")]


def fields_of(cls: type[PabalError]) -> list[str]:
    return sorted(get_type_hints(cls))


def sample(cls: type[PabalError]) -> PabalError:
    fields = {name: SAMPLES.get(name, f"<{name}>") for name in fields_of(cls)}
    return cls(*(["<detail>"] if "{detail}" in cls.template else []), **fields)


def drawn_tree() -> dict[str, str | None]:
    """Return child and parent for every line of the tree in the module's docstring."""
    above: list[str] = []
    drawn: dict[str, str | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ((?:[│ ] {3})*(?:[├└]── )?)(\w+Error)\b", line)
        if found is not None:
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            drawn[found[2]] = above[depth - 1] if depth else None
    return drawn


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_no_message_puts_a_plural_after_the_number_one(cls: type[PabalError]) -> None:
    """A full bus with room for one delivery would hold "1 deliveries of at most 1"."""
    fields = {name: 1 if name in SAMPLES else f"<{name}>" for name in fields_of(cls)}
    fields |= {"size": 2} if "size" in fields else {}  # a payload has at least two bytes
    message = str(cls(*(["<detail>"] if "{detail}" in cls.template else []), **fields))
    assert set(re.findall(r"\b1 ([a-z]+s)\b", message)) <= {"is", "was"}


def test_the_documented_error_tree_matches_the_classes() -> None:
    """Readers would catch a base class that does not cover the documented errors."""
    real = {cls.__name__: None if cls is PabalError else cls.__mro__[1].__name__ for cls in all_errors()}
    assert drawn_tree() == real


@pytest.mark.parametrize("cls", all_errors())
def test_an_error_message_contains_its_fields(cls: type[PabalError]) -> None:
    """A message would show a placeholder, or omit a field."""
    error = sample(cls)
    for name in fields_of(cls):
        assert getattr(error, name) == SAMPLES.get(name, f"<{name}>")
    assert not re.search(r"[{}]", str(error))
    for name in re.findall(r"{(\w+)", cls.template):
        shown = "<detail>" if name == "detail" else str(SAMPLES.get(name, f"<{name}>"))
        assert shown in str(error)


@pytest.mark.parametrize("cls", all_errors())
def test_errors_survive_pickling(cls: type[PabalError]) -> None:
    """An error in a worker process would arrive as a TypeError about missing arguments."""
    error = sample(cls)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), again.fields) == (str(error), error.fields)
    for name in fields_of(cls):
        assert getattr(again, name) == getattr(error, name)


@pytest.mark.parametrize("cls", [cls for cls in all_errors() if fields_of(cls)])
def test_an_errors_docstring_names_its_fields(cls: type[PabalError]) -> None:
    """A caller would have to read the source to learn which fields an error has."""
    documented = re.search(r"Fields?:\s+``([\w, ]+)``", cls.__doc__ or "")
    assert documented is not None
    assert sorted(documented[1].split(", ")) == fields_of(cls)


def test_every_message_template_uses_only_existing_fields() -> None:
    """Raising the error would raise a KeyError."""
    for cls in all_errors():
        named = set(re.findall(r"{(\w+)", cls.template)) - {"detail"}
        assert named <= set(fields_of(cls)), cls


def test_a_detail_text_with_braces_is_kept_as_the_message() -> None:
    """``NotRetryableError("the exchange does not list it")`` would lose its reason."""
    error = errors.NotRetryableError("the {symbol} is not listed")
    assert str(error) == "the {symbol} is not listed"
    assert error.fields == {"detail": "the {symbol} is not listed"}


def test_errors_inherit_from_the_matching_builtin_errors() -> None:
    """``except TimeoutError`` around ``drain`` would not catch its timeout."""
    assert issubclass(errors.DrainTimeoutError, TimeoutError)
    assert issubclass(errors.MissingExtraError, ImportError)
