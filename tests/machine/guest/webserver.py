"""nginx in this machine, with certificates of an authority made for the test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import host

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
_REQUEST = ("openssl", "req", "-x509", "-days", "1", *_NEW_KEY)
_CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log {folder}/access.log;
    root {folder}/www;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/server.crt;
        ssl_certificate_key {folder}/server.key;
    }}
    {more}
}}
"""
PROXY = "server {{ listen 127.0.0.1:{port}; }}"
"""What `more` may be: takes requests as a proxy gets them, and answers each from its own files."""


@dataclass(frozen=True)
class Authority:
    key: Path
    certificate: Path


def public(folder: Path) -> Path:
    """A temporary folder that nginx's workers may look into."""
    for each in (folder, folder.parent, folder.parent.parent):
        each.chmod(0o755)
    return folder


def make_authority(folder: Path, name: str) -> Authority:
    made = Authority(folder / "ca.key", folder / "ca.crt")
    files = ("-keyout", made.key, "-out", made.certificate)
    host.run(*_REQUEST, *files, "-subj", f"/CN={name}")
    return made


@contextmanager
def serving(
    folder: Path, authority: Authority, *names: str, port: int, more: str = ""
) -> Iterator[None]:
    """Serves folder/www by HTTPS, under these names."""
    signed = ("-CA", authority.certificate, "-CAkey", authority.key)
    alternatives = ",".join(f"DNS:{name}" for name in names)
    leaf = ("-addext", f"subjectAltName={alternatives}")
    leaf += ("-addext", "basicConstraints=critical,CA:FALSE", "-subj", f"/CN={names[0]}")
    files = ("-keyout", folder / "server.key", "-out", folder / "server.crt")
    host.run(*_REQUEST, *signed, *leaf, *files)
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, port=port, more=more))
    ready = ("curl", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "-sS")
    with subprocess.Popen(["nginx", "-c", configuration, "-p", folder]) as nginx:
        try:
            host.run(*ready, "-o", "/dev/null", "--insecure", f"https://127.0.0.1:{port}/")
            yield
        finally:
            nginx.terminate()


@contextmanager
def known_as_this_machine(*names: str) -> Iterator[None]:
    """Names of the outside, in /etc/hosts."""
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    hosts.write_text(f"{before}127.0.0.1 {' '.join(names)}\n")
    try:
        yield
    finally:
        hosts.write_text(before)


def trust(certificate: Path, name: str) -> None:
    """The certificate stays: the machine is thrown away."""
    installed = Path("/usr/local/share/ca-certificates") / name
    installed.write_bytes(certificate.read_bytes())
    host.run("update-ca-certificates")
