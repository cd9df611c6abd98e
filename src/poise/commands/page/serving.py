"""The web server under the page: where it listens, what it lets in, and that it leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poise.commands.page.door import Door
from poise.commands.page.exhibit import Exhibit
from poise.core.misuse import Misuse

_UPLOADS, _WAITING, _THREADS, _SESSIONS = 4, 32, 16, 256


@dataclass(frozen=True)
class Served:
    """A page that is being served.

    Args:
        address: where to open it.
        server: what to close.
        folder: holds uploaded files until they are read; removed at the end.
    """

    address: str
    server: Any = field(repr=False)
    folder: Path = field(repr=False)

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Serve no longer."""
        self.server.close(verbose=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def serve(exhibit: Exhibit, title: str, host: str, port: int) -> Served:
    """Serve the page of an exhibit from a thread of its own.

    Nothing is sent to or fetched from anywhere but the visitors' browsers.

    Args:
        exhibit: what is shown.
        title: of the page.
        host: name or address to listen on.
        port: 0 for any that is free.

    Raises:
        Misuse: for a place where nothing can listen.
    """
    port = _free(host, port)
    folder = Path(tempfile.mkdtemp(prefix="poise-demo-"))
    os.environ["GRADIO_TEMP_DIR"] = folder.as_posix()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr  # noqa: PLC0415 - it reads the environment

    from poise.commands.page.layout import CSS, page  # noqa: PLC0415

    blocks = page(exhibit, title)
    blocks.queue(max_size=_WAITING, default_concurrency_limit=1, api_open=False)
    fonts = ["system-ui", "sans-serif"]
    blocks.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        inbrowser=False,
        inline=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        max_file_size=exhibit.limits.bytes,
        max_threads=_THREADS,
        state_session_capacity=_SESSIONS,
        theme=gr.themes.Default(font=fonts, font_mono=["monospace"]),
        css=CSS,
        app_kwargs={"middleware": [_door(exhibit, folder)]},
    )
    return Served(f"http://{host}:{port}", blocks, folder)


def _door(exhibit: Exhibit, folder: Path) -> Any:
    from starlette.middleware import Middleware  # noqa: PLC0415 - comes with gradio

    return Middleware(Door, folder=folder, bytes=exhibit.limits.bytes, uploads=_UPLOADS)


def _free(host: str, port: int) -> int:
    """The port itself, or a free one for 0.

    Raises:
        Misuse: where nothing can listen.
    """
    if not 0 <= port < 1 << 16:
        raise Misuse(f"a port is a number from 0 to {(1 << 16) - 1}; got {port}")
    try:
        with socket.create_server((host, port)) as found:
            return int(found.getsockname()[1])
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else "there is no such host"
        raise Misuse(f"cannot listen on {host}:{port}: {reason}; choose another --port, or 0 for a free one") from None
