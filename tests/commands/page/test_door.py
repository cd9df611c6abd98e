from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from poise.commands.page.door import Door

UPLOAD = "/gradio_api/upload"


def answered(door, path, *, method="GET", headers=(), kind="http"):
    """The statuses that a request meets; 200 from behind the door."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "method": method, "headers": list(headers)}
    with ThreadPoolExecutor(1) as beside:  # a browser's test in the same process leaves a loop running
        beside.submit(asyncio.run, door(scope, None, send)).result()
    return [message["status"] for message in sent if "status" in message] or sent[0]["type"]


async def house(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


def length(count):
    return [(b"content-length", str(count).encode())]


@pytest.fixture
def door(tmp_path):
    return Door(house, folder=tmp_path, bytes=1000, uploads=1)


@pytest.mark.parametrize("path", ["/", "/config", "/theme.css", "/assets/a.js", "/gradio_api/heartbeat/x"])
def test_the_page_is_let_in(door, path):
    assert answered(door, path) == [200]


@pytest.mark.parametrize(
    "path", ["/docs", "/openapi.json", "/gradio_api/info", "/gradio_api/process_recording", "/proxy=http://x", "/a\n/"]
)
def test_nothing_else_is(door, path):
    assert answered(door, path) == [404]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (length(1000), 200),
        (length(1_000_000), 413),
        ([], 411),
        ([(b"content-length", b"-1")], 411),
        ([*length(10), (b"transfer-encoding", b"chunked")], 411),
    ],
)
def test_uploads_say_how_long_they_are_and_are_bounded(door, headers, status):
    assert answered(door, UPLOAD, method="POST", headers=headers) == [status]
    assert door.open == 0


def test_other_bodies_are_small(door):
    assert answered(door, "/gradio_api/queue/join", method="POST", headers=length(70_000)) == [413]


def test_few_uploads_come_at_a_time_and_the_disk_is_not_filled(door, tmp_path):
    door.open = 1
    assert answered(door, UPLOAD, method="POST", headers=length(10)) == [503]
    assert answered(door, "/") == [200]
    door.open = 0
    (tmp_path / "upload").write_bytes(b"\0" * 33_000)
    assert answered(door, UPLOAD, method="POST", headers=length(10)) == [503]


def _written(path, since):
    path.parent.mkdir()
    path.write_bytes(b"\0" * 20_000)
    os.utime(path, (since, since))


def test_files_that_had_time_to_be_read_are_deleted_and_the_pages_own_stay(tmp_path):
    own, old, new = (tmp_path / name / "x.png" for name in ("own", "old", "new"))
    _written(own, since=0)
    door = Door(house, folder=tmp_path, bytes=1000, uploads=1)
    _written(old, since=0)
    _written(new, since=time.time())
    assert answered(door, UPLOAD, method="POST", headers=length(10)) == [200]
    assert [path.exists() for path in (own, old, new)] == [True, False, True]


def test_an_upload_that_its_reader_stumbles_over_is_the_senders_fault(tmp_path):
    async def stumbling(scope, receive, send):
        raise TypeError("no such part")

    door = Door(stumbling, folder=tmp_path, bytes=1000, uploads=1)
    assert answered(door, UPLOAD, method="POST", headers=length(10)) == [400]
    assert door.open == 0


def test_websockets_are_closed(door):
    assert answered(door, "/", kind="websocket") == "websocket.close"
