"""A local object store that speaks S3's protocol, for the length of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec


@contextmanager
def object_store(bucket: str) -> Iterator[Any]:
    """Start a server with one empty bucket and point fsspec's ``s3`` at it; yields the file system."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    before = fsspec.config.conf.get("s3")
    try:
        host, port = server.get_host_and_port()
        fsspec.config.conf["s3"] = {
            "endpoint_url": f"http://{host}:{port}",
            "key": "test",
            "secret": "test",
        }
        store = fsspec.filesystem("s3")
        store.mkdir(bucket)
        yield store
    finally:
        if before is None:
            fsspec.config.conf.pop("s3", None)
        else:
            fsspec.config.conf["s3"] = before
        server.stop()
