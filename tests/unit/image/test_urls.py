"""What of a URL is shown, and where a redirect leads."""

from __future__ import annotations

import pytest

from mvirt_zfs_dbus.errors import DownloadFailed
from mvirt_zfs_dbus.image import urls


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a/b", "http://a/b"),
        ("https://me:secret@a:8/b?token=secret#secret", "https://a:8/b"),
        ("http://me:se@cret@a/x@y", "http://a/x@y"),
        ("http://a?secret", "http://a"),
        ("nonsense", "nonsense"),
    ],
)
def test_no_secret_of_a_url_is_shown(url, shown):
    assert urls.shown(url) == shown


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("http://a/b/c", "d", "http://a/b/d"),
        ("http://a/b", "//c/d", "http://c/d"),
        ("http://u:p@a/b", "/c", "http://u:p@a/c"),
        ("http://u:p@a/b", "http://a:80/c", "http://u:p@a:80/c"),
        ("http://u:p@a/b", "http://v:q@a/c", "http://v:q@a/c"),
        ("http://u:p@a/b", "http://c/d", "http://c/d"),
        ("http://u:p@a/b", "https://a/b", "https://a/b"),
        ("http://u:p@a/b", "http://a:81/b", "http://a:81/b"),
        ("http://[::1]:8/b", "/c?d=%2F", "http://[::1]:8/c?d=%2F"),
    ],
)
def test_a_password_follows_a_redirect_to_its_own_origin_alone(url, location, target):
    assert urls.redirected(url, location) == target


@pytest.mark.parametrize("location", ["file:///x", "ftp://a/b", "http://[", "", "x:y"])
def test_a_redirect_to_anything_else_is_refused(location):
    with pytest.raises(DownloadFailed, match="only http and https"):
        urls.redirected("http://a/b", location)


@pytest.mark.parametrize("url", ["file:///x", "http://", "http://a:0/", "http://a:99999/", "x", ""])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(DownloadFailed, match="is no URL"):
        urls.check(url)
