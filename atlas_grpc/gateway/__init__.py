"""The HTTP side of Atlas: the REST mirror, the interface of 0.2, the API page, health and metrics.

app = create_app(channel, metrics=metrics.render)
http = await serve_http(app, "127.0.0.1", 8080)
...
await http.stop(grace=5)
"""

from __future__ import annotations

from .app import MAX_BODY, Gateway, create_app
from .serve import HttpServer, serve_http

__all__ = ["MAX_BODY", "Gateway", "HttpServer", "create_app", "serve_http"]
