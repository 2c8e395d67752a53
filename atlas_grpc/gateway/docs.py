"""Swagger UI at /docs, from the files that the package fastapi-swagger ships; nothing is loaded from elsewhere.

That package is used as a box of files: neither it nor FastAPI is imported.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_PACKAGE = "fastapi_swagger"
_FOLDER = "resources"
_FILES = {
    "swagger-ui.css": b"text/css; charset=utf-8",
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "favicon-32x32.png": b"image/png",
}
CSP = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets inline styles; scripts run from this server alone."""
_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Atlas API</title>
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
_MISSING = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Atlas API</title></head>
<body><p>Swagger UI is not installed (<code>pip install fastapi-swagger</code>).
The description of the API is at <a href="/openapi.json">/openapi.json</a>.</p></body></html>
"""


class Asset(NamedTuple):
    """A file to serve, ready in memory."""

    body: bytes
    content_type: bytes
    headers: list[tuple[bytes, bytes]]


def load() -> dict[bytes, Asset]:
    """What is served under /docs, by path; only these paths exist, so no path can lead out of the folder."""
    page = [(b"content-security-policy", CSP), (b"referrer-policy", b"no-referrer")]
    folder = _find()
    if folder is None:
        missing = Asset(_MISSING, b"text/html; charset=utf-8", page)
        return {b"/docs": missing, b"/docs/": missing}
    html = Asset(_PAGE, b"text/html; charset=utf-8", page)
    assets = {b"/docs": html, b"/docs/": html, b"/docs/start.js": _asset(_START, _FILES["swagger-ui-bundle.js"])}
    for name, kind in _FILES.items():
        assets[b"/docs/" + name.encode()] = _asset((folder / name).read_bytes(), kind)
    return assets


def _find() -> Path | None:
    spec = find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / _FOLDER
        if all((folder / name).is_file() for name in _FILES):
            return folder
    return None


def _asset(body: bytes, kind: bytes) -> Asset:
    tag = b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'
    return Asset(body, kind, [(b"cache-control", b"no-cache"), (b"etag", tag)])
