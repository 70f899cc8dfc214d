"""Write the reference pages: what a package exports, from its signatures and docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from types import ModuleType, UnionType
from typing import Any, get_origin


def reference_of(package: str) -> str:
    """Return the reference page of a package in Markdown: every exported name, by the alphabet."""
    module = importlib.import_module(package)
    parts = [f"# {package}", _prose(module)]
    for name in sorted(module.__all__):
        if not name.startswith("_"):
            parts += [*_entry(f"## {name}", name, getattr(module, name)), _text_of(module, name)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _entry(heading: str, name: str, value: Any) -> Iterator[str]:
    yield heading
    if inspect.isclass(value):
        yield from _class(name, value)
    elif get_origin(value) is not None or isinstance(value, UnionType):
        yield f"```python\n{name} = {inspect.formatannotation(value).replace('typing.', '')}\n```"
    elif callable(value):
        yield _code(name, value)
        yield _prose(value)
    elif not isinstance(value, ModuleType):
        yield f"```python\n{name}: {type(value).__name__}\n```"
    else:
        yield _prose(value)


def _class(name: str, cls: type) -> Iterator[str]:
    names = [base.__name__ for base in cls.__bases__ if base is not object and not _has_no_entry(base)]
    bases = [name for name in names if not name.startswith("_")]
    yield _code(f"class {name}", cls) + (f"\n\nBases: `{'`, `'.join(bases)}`." if bases else "")
    yield _prose(cls)
    yield "\n".join(_described_fields(cls))
    for member, value in _members(cls).items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(plain):
            yield from (f"### {name}.{member}", _code(member, plain), _prose(plain))
        elif isinstance(value, property):
            returned = getattr(value.fget, "__annotations__", {}).get("return", "Any")
            yield from (f"### {name}.{member}", f"```python\n{member}: {returned}\n```", _prose(value))


def _described_fields(cls: type) -> Iterator[str]:
    """Yield the public fields that have a text below them, with that text; Python itself keeps none."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except OSError:
        return  # made while the program runs
    for field, text in _texts_below(getattr(definition, "body", [])):
        if not field.startswith("_"):
            yield f"- `{field}`: {' '.join(text.split())}"


def _text_of(module: ModuleType, name: str) -> str:
    """Return the text below a constant or an alias of a type, where it is defined; empty if it has none."""
    imported, texts = _outline_of(module)
    if name in imported:
        return _text_of(importlib.import_module(imported[name]), name)
    return texts.get(name, "")


@cache
def _outline_of(module: ModuleType) -> tuple[dict[str, str], dict[str, str]]:
    """Return from where a module imports each name, and the texts below what it defines."""
    tree = ast.parse(inspect.getsource(module))
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for one in node.names:
                imported.setdefault(one.name, node.module)
    return imported, dict(_texts_below(tree.body))


def _texts_below(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for assigned, text in pairwise(body):
        match assigned, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(found))),
            ):
                yield name, inspect.cleandoc(found).replace("``", "`")


def _members(cls: type) -> dict[str, Any]:
    """Return what a class offers: its own, and what it has from bases that stand on no page."""
    found = {member: value for member, value in vars(cls).items() if not member.startswith("_")}
    for base in filter(_has_no_entry, cls.__bases__):
        found = {**found, **{name: value for name, value in _members(base).items() if name not in found}}
    return found


def _has_no_entry(base: type) -> bool:
    """Return whether a class is one of ours that no package exports, so that readers do not know of it."""
    rooms = base.__module__.split(".")
    if rooms[0] != "pabal":
        return False
    packages = (".".join(rooms[:count]) for count in range(1, len(rooms) + 1))
    return not any(
        base.__name__ in getattr(importlib.import_module(package), "__all__", ()) for package in packages
    )


def _code(name: str, value: Any) -> str:
    """Return a signature as a block of code, one parameter in a line where it is long."""
    try:
        signature = _bare(inspect.signature(value))
    except ValueError:  # an enumeration or a class of C has none to show
        return f"```python\n{name}\n```"
    prefix = "async def " if inspect.iscoroutinefunction(value) else ""
    kind = prefix or ("" if inspect.isclass(value) else "def ")
    text = f"{kind}{name}{signature}"
    if len(text) > 88:
        parameters = [str(parameter) for parameter in signature.parameters.values()]
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
            parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
        returned = f" -> {inspect.formatannotation(signature.return_annotation)}"
        if signature.return_annotation is inspect.Signature.empty:
            returned = ""
        text = f"{kind}{name}(\n    " + ",\n    ".join(parameters) + f",\n){returned}"
    return f"```python\n{_ADDRESS.sub('', text)}\n```"


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class _Annotation(str):
    """Be an annotation that was kept as text, and is shown without quotes."""

    __repr__ = str.__str__


def _bare(signature: inspect.Signature) -> inspect.Signature:
    def shown(annotation: Any) -> Any:
        return _Annotation(annotation) if isinstance(annotation, str) else annotation

    parameters = [p.replace(annotation=shown(p.annotation)) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=shown(signature.return_annotation))


def _prose(value: Any) -> str:
    """Return a docstring as Markdown: examples become blocks of code."""
    own = value.__doc__ if inspect.isclass(value) else inspect.getdoc(value)
    lines = inspect.cleandoc(own or "").splitlines()
    if inspect.isclass(value) and lines and lines[0].startswith(f"{value.__name__}("):
        return ""  # made by a decorator, and says nothing but the signature again
    text: list[str] = []
    inside = False
    for line in [*lines, ""]:
        if line.lstrip().startswith(">>> ") and not inside:
            text.append("```python")
            inside = True
        elif inside and not line.strip():
            text.append("```")
            inside = False
        text.append(line if inside else line.replace("``", "`"))
    return "\n".join(text).strip()
