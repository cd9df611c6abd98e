"""What the web server lets in: known paths, bodies of a stated and bounded length, few uploads at a time."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_PAGE = r"/|/config/?|/info|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|svelte|_app)/.*"
_EVENTS = "startup-events|upload|upload_progress|heartbeat/.*|queue/(join|data)|run/predict|cancel|reset|file=.*"
KNOWN = re.compile(f"({_PAGE}|/gradio_api/({_EVENTS}))")
"""Paths of the page itself; whatever else the web framework offers is not served."""

_BESIDE = 1 << 16
"""Bytes of a request's body beside an uploaded file, and of one without."""
_UPLOAD = "/gradio_api/upload"
_WAITING = 32
"""Files of the largest size that may lie on disk at a time."""
_KEPT_SECONDS = 120.0


class Door:
    """An ASGI application in front of another one.

    Args:
        app: what stands behind.
        folder: where it keeps uploaded files; what lies there already stays.
        bytes: the most bytes of such a file.
        uploads: the most uploads at a time.
    """

    def __init__(self, app: App, *, folder: Path, bytes: int, uploads: int) -> None:  # noqa: A002 - what is counted
        self.app, self.folder, self.bytes, self.uploads = app, folder, bytes, uploads
        self.open, self.own = 0, set(folder.rglob("*"))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 400, 404, 411, 413 or 503."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        elif refused := self._refusal(scope):
            await _answer(send, refused)
        elif scope["path"] == _UPLOAD:
            await self._uploaded(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Message) -> int:
        """The status to refuse a request with; 0 to let it in."""
        headers = dict(scope["headers"])
        uploading = scope["path"] == _UPLOAD
        if not KNOWN.fullmatch(scope["path"]):
            return 404
        length = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or (scope["method"] not in {"GET", "HEAD"} and not length.isdigit()):
            return 411
        if length and int(length) > _BESIDE + (self.bytes if uploading else 0):
            return 413
        return 503 if uploading and (self.open >= self.uploads or self._full()) else 0

    def _full(self) -> bool:
        """Whether uploaded files fill their room; those that had time to be read are deleted first."""
        size, now = 0, time.time()
        for path in set(self.folder.rglob("*")) - self.own:
            with suppress(OSError):  # a folder that is not empty, or what is gone already
                if path.is_dir():
                    path.rmdir()
                elif now - path.stat().st_mtime > _KEPT_SECONDS:
                    path.unlink()
                else:
                    size += path.stat().st_size
        return size > _WAITING * self.bytes

    async def _uploaded(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let an upload in; one that its reader stumbles over is the sender's fault."""
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self.open += 1
        try:
            await self.app(scope, receive, sent)
        except Exception:
            if begun:
                raise
            await _answer(send, 400)
        finally:
            self.open -= 1


async def _answer(send: Send, status: int) -> None:
    """An answer without a body, after which the connection ends, as there may be a body that nobody will read."""
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
