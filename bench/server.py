"""A real nginx on loopback that serves one folder."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
}}
"""
_PATIENCE = 10.0
"""Seconds for it to listen."""


@contextmanager
def serve(root: Path, folder: Path) -> Iterator[str]:
    """The URL of ``root`` until the block is left; ``folder`` is for nginx's own files."""
    port = _free_port()
    configuration = folder / "nginx.conf"
    # Started by root it would read as nobody, who may not look into the checkout.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    configuration.write_text(
        _CONFIGURATION.format(user=user, folder=folder, port=port, root=root.resolve())
    )
    log = folder / "error.log"
    nginx = subprocess.Popen(["nginx", "-c", str(configuration), "-e", str(log), "-p", str(folder)])
    try:
        _await(port, nginx, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        nginx.terminate()
        nginx.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(port: int, nginx: subprocess.Popen[bytes], log: Path) -> None:
    """There is no event to wait for: nginx says nothing when it listens."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if nginx.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx does not serve: {log.read_text()}") from None
            time.sleep(0.01)
