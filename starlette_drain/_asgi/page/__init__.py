# The page is a shell without data. It asks for the admin token, keeps it in memory, and sends it as a bearer token with
# each of its requests. There is no cookie, so no other site can make a browser act here. Only browsers that connect
# directly from a private network get the page; others get the answers of the admin route.
"""The admin route as a web page."""

import functools
import hashlib
import ipaddress
from base64 import b64encode
from importlib.resources import files
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import HTMLResponse

from starlette_drain._asgi.accept import accepts

__all__ = ["make_page", "wants_page"]

SHARED = ipaddress.ip_network("100.64.0.0/10")
"""The shared address space of carriers (RFC 6598), which EKS pod subnets often use too."""


class _Page(NamedTuple):
    body: str
    policy: str


def wants_page(request: Request) -> bool:
    """Return whether a request is from a browser with a private address, and has no token."""
    return (
        request.method in ("GET", "HEAD")
        and accepts(request.headers.get("accept", "").encode(), b"text/html")
        and "authorization" not in request.headers
        and request.client is not None
        and _is_private(request.client.host)
    )


def make_page() -> HTMLResponse:
    """Return the page, with its security headers."""
    page = _read_page()
    headers = {
        "content-security-policy": page.policy,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "vary": "Accept, Authorization",
        "x-content-type-options": "nosniff",
    }
    return HTMLResponse(page.body, headers=headers)


def _is_private(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a Unix socket or a host name: unknown
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_private or address in SHARED


@functools.cache
def _read_page() -> _Page:
    """Read the page on first use, so that applications that never serve it pay nothing."""
    folder = files(__name__)
    parts = {kind: folder.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")}
    style, script = (b64encode(hashlib.sha256(parts[kind].encode()).digest()).decode() for kind in ("css", "js"))
    body = parts["html"].replace("/* page.css */", parts["css"]).replace("/* page.js */", parts["js"])
    policy = (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return _Page(body, policy)
