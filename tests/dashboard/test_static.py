"""The files that the page loads: ours, and third-party libraries."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from pathlib import Path

from pabal import InMemoryEventStorage
from tests.dashboard.support import client

STATIC = Path(str(files("pabal.dashboard") / "static"))
VENDOR = STATIC / "vendor"
KEY = re.compile(r'^  "([^"]+)": "((?:[^"\\]|\\.)*)",$', re.MULTILINE)


def texts(language: str) -> dict[str, str]:
    return dict(KEY.findall((STATIC / "js" / "i18n" / f"{language}.js").read_text("utf-8")))


def test_vendored_libraries_match_their_checksums() -> None:
    """A library could be changed by accident, and the next update would not know of it."""
    known = dict(line.split()[::-1] for line in (VENDOR / "CHECKSUMS").read_text("utf-8").splitlines())
    there = {path.name for path in VENDOR.iterdir()} - {"CHECKSUMS", "README.md"}
    assert there == set(known)
    for name, digest in known.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_vendored_libraries_stay_below_100_kilobytes() -> None:
    """On a phone, the operator's page would load for a minute."""
    assert sum(path.stat().st_size for path in VENDOR.glob("*.*s*")) < 100_000


def test_both_languages_have_the_same_keys_and_placeholders() -> None:
    """A Korean page would have English sentences, or one without its number."""
    english, korean = texts("en"), texts("ko")
    assert english.keys() == korean.keys()
    assert len(english) > 250
    for key, text in english.items():
        names = set(re.findall(r"\{(\w+)\}", text))
        assert names == set(re.findall(r"\{(\w+)\}", korean[key])), key


def test_every_text_key_used_by_the_scripts_exists() -> None:
    """A button would be labelled with the key of its text."""
    english = texts("en")
    used = set()
    for path in (STATIC / "js").rglob("*.js"):
        used |= set(re.findall(r'\bt\("([\w.-]+)"', path.read_text("utf-8")))
    assert used - english.keys() == set()


def test_every_audited_action_has_a_translated_name() -> None:
    """The audit log would show its internal name, in English on a Korean page."""
    room = Path(str(files("pabal")))
    called = re.compile(r"""_(?:audited|written_down)\(\s*(?:storage, )?"(\w+)\"""")
    done = {name for path in room.rglob("*.py") for name in called.findall(path.read_text("utf-8"))}
    assert {"pause", "retention", "vacuum"} <= done
    assert {f"action.{name}" for name in done} == {key for key in texts("en") if key.startswith("action.")}


PROGRAMS = {
    *("unknown_host", "login_required", "confirm", "range", "filter", "content_type", "body", "no_file"),
}
"""Codes that our pages never receive, or that they handle themselves by showing the login form."""


def test_every_error_code_a_page_can_get_has_a_translation() -> None:
    """A Korean operator would read in English why the button did nothing."""
    given = re.compile(r"""Problem\(\s*\d+,\s*"(\w+)\"""")
    scripts = Path(str(files("pabal.dashboard"))).glob("*.py")
    codes = {code for path in scripts for code in given.findall(path.read_text("utf-8"))}
    assert {"read_only", "stale", "no_login", "cross_site"} <= codes
    assert {code for code in codes - PROGRAMS if f"error.{code}" not in texts("ko")} == set()


def test_no_script_inserts_markup() -> None:
    """A payload could be interpreted as markup."""
    for path in (STATIC / "js").rglob("*.js"):
        text = path.read_text("utf-8")
        for word in ("innerHTML", "outerHTML", "dangerouslySet", "insertAdjacent", "document.write", "eval("):
            assert word not in text, path


async def test_static_files_are_cached_until_they_change() -> None:
    """Every click would load all scripts again, or an upgrade show the old page."""
    async with client(InMemoryEventStorage()) as http:
        first = await http.get("/static/js/main.js")
        assert first.headers["content-type"].startswith("text/javascript")
        again = await http.get("/static/js/main.js", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_a_mounted_dashboard_finds_its_static_files() -> None:
    """Mounted below a path of another application, the page would load nothing."""
    import httpx
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from pabal.dashboard import create_dashboard

    outer = Starlette(routes=[Mount("/ops/bus", create_dashboard(InMemoryEventStorage()))])
    transport = httpx.ASGITransport(app=outer)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        assert '<base href="/ops/bus/">' in (await http.get("/ops/bus/")).text
        assert '<base href="/ops/bus/">' in (await http.get("/ops/bus/dead-letters/1")).text
        assert (await http.get("/ops/bus/static/js/main.js")).status_code == 200
        assert (await http.get("/ops/bus/api/report")).status_code == 200
