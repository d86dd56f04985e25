"""Proxies as the environment names them: http_proxy, https_proxy, all_proxy and no_proxy.

The service's environment, that is; the names in capitals count as well.
"""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import DownloadFailed


def proxy_for(url: str) -> str | None:
    """The URL of the proxy to ask. None: the host is connected to directly.

    DownloadFailed: it is a proxy of another kind than http.
    """
    target = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(target.netloc.rpartition("@")[2]):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise DownloadFailed(
            f"{target.scheme}_proxy of the service's environment is no http:// or https:// URL"
        )
    return proxy
