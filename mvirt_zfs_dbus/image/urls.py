"""What a download does with a URL: check it, show it, and follow a redirect from it."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from ..errors import DownloadFailed


def check(url: str) -> str:
    """DownloadFailed: it is no URL of http or https."""
    if not _is_http(url):
        raise DownloadFailed(f"{shown(url)!r} is no URL of http or https")
    return url


def shown(url: str) -> str:
    """A URL as messages quote it: user, password, query and fragment may be secrets."""
    plain = url.partition("?")[0].partition("#")[0]
    scheme, separator, rest = plain.partition("://")
    host, slash, path = rest.partition("/")
    return (scheme + separator + host.rpartition("@")[2] + slash + path)[:200]


def redirected(url: str, location: str) -> str:
    """Where a Location header leads. User and password go along to the same origin alone."""
    try:
        target = urljoin(url, location)
    except ValueError:
        target = ""
    if not location or not _is_http(target):
        raise DownloadFailed(
            f"{shown(url)} redirects to {shown(location)!r}; only http and https are followed"
        )
    new = urlsplit(target)
    if origin(url) != origin(target) or "@" in new.netloc:
        return target
    user = urlsplit(url).netloc.rpartition("@")
    return new._replace(netloc=f"{user[0]}{user[1]}{new.netloc}").geturl()


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def origin(url: str) -> tuple[str, str | None, int]:
    """(scheme, host, port) of a URL that was checked (RFC 6454)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
