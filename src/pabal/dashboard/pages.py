"""The single page, served at every address of the dashboard, and the static files that it loads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

from pabal.dashboard.problems import Problem

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class StaticFile:
    """A static file, with the headers for browser caching."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self.content = content
        self.media_type = media_type
        self.tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'


@cache
def static_files() -> Mapping[str, StaticFile]:
    """Return every static file by its path; read once."""
    found: dict[str, StaticFile] = {}

    def collect(folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                collect(entry, f"{prefix}{entry.name}/")
            elif (suffix := entry.name[entry.name.rfind(".") :]) in TYPES:
                found[prefix + entry.name] = StaticFile(entry.read_bytes(), TYPES[suffix])

    collect(files("pabal.dashboard") / "static", "")
    return found


async def static(request: Request) -> Response:
    """Serve a static file, or 304 if the browser has the current version."""
    file = static_files().get(request.path_params["path"])
    if file is None:
        raise Problem(404, "no_file", "there is no such file")
    headers = {"etag": file.tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<base href="{base}">
<link rel="icon" href="static/icon.svg" type="image/svg+xml">
{styles}
{scripts}
</head>
<body>
<div id="root"></div>
<noscript>This dashboard needs JavaScript. 이 대시보드에는 자바스크립트가 필요합니다.</noscript>
</body>
</html>
"""
_STYLES = (
    "vendor/uplot",
    *(
        f"css/{name}"
        for name in ("tokens", "base", "layout", "parts", "tables", "states", "overview", "screens")
    ),
)
_SCRIPTS = ("vendor/preact", "vendor/preact-hooks", "vendor/htm", "vendor/uplot")


async def page(request: Request) -> Response:
    """Serve the page. It contains no data; that comes from the API, after the login."""
    base = f"{request.scope.get('root_path', '')}/"
    text = _PAGE.format(
        title="pabal",
        base=escape(base),
        styles="\n".join(f'<link rel="stylesheet" href="static/{name}.css">' for name in _STYLES),
        scripts="\n".join(
            [
                *(f'<script src="static/{name}.js" defer></script>' for name in _SCRIPTS),
                '<script type="module" src="static/js/main.js"></script>',
            ]
        ),
    )
    return Response(text, headers={"cache-control": "no-cache"}, media_type="text/html; charset=utf-8")
