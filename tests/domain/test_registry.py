"""The registry: one class per name, and no name ever causes an import."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pabal.domain import DomainEvent, registry
from pabal.domain.definition import EventMeta
from pabal.errors import (
    DuplicateEventTypeError,
    UnknownEventTypeError,
    UnregisteredEventError,
    UnsupportedFieldError,
)
from tests.domain.support import encode, row_of, stored_and_read


def define(name: str, module: str = __name__, **namespace: Any) -> Any:
    return EventMeta(name, (DomainEvent,), {"__module__": module, "__qualname__": name, **namespace})


def test_two_classes_cannot_share_a_type_name() -> None:
    """Stored events of one would come back as the other."""
    first = define("First", event_type="shelf.filled")
    with pytest.raises(DuplicateEventTypeError) as caught:
        define("Second", event_type="shelf.filled")
    assert caught.value.event_type == "shelf.filled"
    assert (caught.value.first, caught.value.second) == (f"{__name__}.First", f"{__name__}.Second")
    assert registry.class_named("shelf.filled") is first


def test_classes_of_one_name_in_two_modules_collide_without_an_explicit_event_type() -> None:
    """``sales.ShelfFilled`` and ``warehouse.ShelfFilled`` would silently be mixed up."""
    define("ShelfFilled", module="sales")
    with pytest.raises(DuplicateEventTypeError, match=r"sales\.ShelfFilled.*warehouse\.ShelfFilled"):
        define("ShelfFilled", module="warehouse")
    assert define("ShelfFilled", module="warehouse", event_type="warehouse.shelf_filled") is not None


def test_a_file_that_is_run_and_imported_is_named_as_the_cause(tmp_path: Path) -> None:
    """The advice to give one class another type name would split its events in two."""
    (tmp_path / "shop.py").write_text(
        "from pabal import DomainEvent\nclass ShelfBuilt(DomainEvent):\n    shelf: str\nimport handlers\n"
    )
    (tmp_path / "handlers.py").write_text("from shop import ShelfBuilt\n")
    ended = subprocess.run(
        [sys.executable, "shop.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.stderr.splitlines()[-1].endswith(
        "event type 'ShelfBuilt' is defined twice, as __main__.ShelfBuilt and as shop.ShelfBuilt: their file "
        "is run and also imported; move the class into a module that is only imported"
    )


def test_redefining_a_class_replaces_it() -> None:
    """A notebook cell could run only once, and a module could not be reloaded."""
    old = define("Cell", __annotations__={"x": int})
    new = define("Cell", __annotations__={"x": int, "y": int}, y=0)
    assert registry.class_named("Cell") is new
    read = stored_and_read(old(1))
    assert (read.x, read.y) == (1, 0)
    assert type(read) is new


def test_an_event_of_pabal_itself_names_the_module_to_import() -> None:
    """A process that relays or audits a log with commands would have to search for a class nobody wrote."""
    with pytest.raises(UnknownEventTypeError, match=r"\(position 4\) is not .* itself, import pabal\.cqrs$"):
        registry.schema_named("pabal.command.unknown", 4)


def test_a_class_that_cannot_be_registered_leaves_the_name_free() -> None:
    """After a mistake in a notebook, the corrected class would be rejected as a duplicate."""
    with pytest.raises(UnsupportedFieldError):
        define("Fixed", event_type="thing.fixed", __annotations__={"x": object})
    assert registry.class_named("thing.fixed") is None
    with pytest.raises(UnknownEventTypeError):
        registry.schema_named("thing.fixed")


def test_looking_up_an_unknown_name_or_class_raises_an_error_with_a_remedy() -> None:
    """A log with events of a module that was not imported would raise KeyError."""
    with pytest.raises(UnknownEventTypeError, match="import the module") as unknown:
        registry.schema_named("no.such.event", position=17)
    assert (unknown.value.event_type, unknown.value.position) == ("no.such.event", 17)
    with pytest.raises(UnregisteredEventError, match="register_event"):
        registry.schema_of(int)


def test_decoding_an_unknown_event_type_imports_nothing(tmp_path: Path) -> None:
    """Anyone who can write a row could run code in the process that reads it."""
    trap = tmp_path / "trap.py"
    trap.write_text("raise SystemExit('imported')")
    row = row_of(encode(define("Harmless")()))._replace(event_type="trap.Trap")
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from pabal.domain.envelope import StoredRecord, decode_event
        from pabal.errors import UnknownEventTypeError
        try:
            decode_event(StoredRecord(*{tuple(row)!r}))
        except UnknownEventTypeError:
            assert "trap" not in sys.modules
        else:
            raise AssertionError("decoded")
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_annotation_can_refer_to_a_class_defined_later() -> None:
    """Two classes in one module could not refer to each other."""
    event = Envelope_(Content(3))
    assert stored_and_read(event) == event


class Envelope_(DomainEvent):  # noqa: N801 - collides with no other test's class
    event_type: ClassVar[str] = "registry-test.envelope"
    content: "Content"


import msgspec  # noqa: E402 - only what stands between the two classes matters


class Content(msgspec.Struct, frozen=True):
    size: int


def test_an_unresolvable_annotation_raises_an_explanation_at_first_use() -> None:
    """At the first publish, the author would see a NameError from msgspec."""
    cls = define("Dangling", __annotations__={"x": "NowhereDefined"})
    with pytest.raises(UnsupportedFieldError, match=r"NowhereDefined.*module level"):
        encode(cls(1))


def test_a_forward_reference_is_resolved_once_its_class_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up the class too early would spoil it for good."""
    cls = define("Patient", __annotations__={"x": "Later"})
    with pytest.raises(UnsupportedFieldError):
        registry.schema_of(cls)
    monkeypatch.setitem(globals(), "Later", int)
    assert stored_and_read(cls(5)) == cls(5)


def test_isolated_unregisters_classes_defined_inside_it() -> None:
    """Event classes of one test would collide with those of the next."""
    outer = define("Outer")
    with registry.isolated() as inside:
        assert inside is registry
        define("Inner")
        inner = registry.class_named("Inner")
        assert inner is not None
        define("Pending", __annotations__={"x": "NowhereDefined"})
        define("Outer", event_type="outer.renamed")
    assert dict(registry.names()).keys().isdisjoint({"Inner", "Pending", "outer.renamed"})
    assert registry.class_named("Outer") is outer
    with pytest.raises(UnregisteredEventError):
        registry.schema_of(inner)


def test_isolated_unregisters_classes_when_its_block_raises() -> None:
    """One failing test would make the next ones fail."""

    def fail_inside() -> None:
        with registry.isolated():
            define("Inner")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert registry.class_named("Inner") is None
