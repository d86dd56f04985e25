"""What a download does with a URL: show it, and follow a redirect from it."""

from __future__ import annotations

from yarl import URL

from ..errors import DownloadFailed


def parse(text: str) -> URL:
    try:
        return URL(text)
    except ValueError as error:
        raise DownloadFailed(f"the source is no URL: {error}") from error


def shown(url: URL) -> str:
    """A URL as messages quote it: user, password, query and fragment may be secrets."""
    if not url.host:
        return str(url.with_query(None))[:200]
    return str(url.with_user(None).with_query(None).with_fragment(None))


def redirected(url: URL, location: str) -> URL:
    """Where a Location header leads. User and password go along to the same origin alone."""
    try:
        target = url.join(URL(location))
    except ValueError:
        target = URL()
    if not location or target.scheme not in ("http", "https") or not target.host:
        raise DownloadFailed(
            f"{shown(url)} redirects to {location[:200]!r}; only http and https are followed"
        )
    if target.origin() == url.origin() and target.user is None:
        return target.with_user(url.user).with_password(url.password)
    return target
