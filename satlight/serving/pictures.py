"""Images of a request for routers that see: data URLs, and downloads from hosts that the operator allows."""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from satlight.errors import SatlightError
from satlight.images import read_image

MAX_IMAGES = 16
MAX_BYTES = 20_000_000
TIMEOUT = 5.0
"""Seconds for each step of a download."""

_KEPT = 512
"""Number of image files kept for requests that wait."""


class ImageStore:
    """Turn image addresses into checked files of a private folder.

    Args:
        folder: Where the files go; the oldest are removed.
        hosts: Hosts from which images may be downloaded, over HTTPS only.

    Example:
        >>> ImageStore(Path("unused")).files(["https://example.org/cat.png"])
        Traceback (most recent call last):
            ...
        satlight.errors.SatlightError: The image host 'example.org' is not allowed; send the image as a data URL, ...
    """

    def __init__(self, folder: Path, hosts: Sequence[str] = ()) -> None:
        self.folder, self.hosts = folder, frozenset(host.lower() for host in hosts)

    def files(self, urls: Sequence[str]) -> tuple[Path, ...]:
        """Return one image file per address.

        Raises:
            SatlightError: Too many or too large images, no image, or an address that is not allowed.
        """
        if len(urls) > MAX_IMAGES:
            raise SatlightError(f"The request has {len(urls)} images; at most {MAX_IMAGES} are allowed")
        return tuple(self._file(url) for url in urls)

    def _file(self, url: str) -> Path:
        content = data_url(url) if url.startswith("data:") else self._download(url)
        path = self.folder / hashlib.sha256(content).hexdigest()
        if not path.exists():
            read_image(content, "of the request")
            for old in sorted(self.folder.iterdir(), key=lambda one: one.stat().st_mtime)[:-_KEPT]:
                old.unlink(missing_ok=True)
            path.write_bytes(content)
        return path

    def _download(self, url: str) -> bytes:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if parts.scheme != "https" or host not in self.hosts:
            raise SatlightError(
                f"The image host {host!r} is not allowed; send the image as a data URL, or have the operator add "
                f"--allow-image-host (HTTPS only)"
            )
        return _fetch(host, parts.port or 443, f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")


def data_url(url: str) -> bytes:
    """Decode a ``data:image/...;base64,`` URL.

    Example:
        >>> data_url("data:image/png;base64,iVBORw0=")
        b'\\x89PNG\\r'
    """
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise SatlightError(f"The image {url[:40]!r} is no data URL of the form data:image/png;base64,...; correct it")
    if len(data) > MAX_BYTES * 4 // 3:
        raise SatlightError(f"An image of the request is larger than {MAX_BYTES // 1_000_000} MB; send a smaller one")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SatlightError(f"An image of the request is not valid base64 ({error}); encode it again") from None


def public_address(host: str, port: int) -> str:
    """Return an address of a host.

    Raises:
        SatlightError: The host has no address, or one that is private: every address must be public, so that a name
            cannot lead into the network of the server.
    """
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise SatlightError(f"The image host {host!r} has no address ({error}); send the image as a data URL") from None
    private = sorted(address for address in found if not ipaddress.ip_address(address.partition("%")[0]).is_global)
    if private or not found:
        raise SatlightError(f"The image host {host!r} has the private address {private}; send the image as a data URL")
    return min(found)


def _fetch(host: str, port: int, target: str) -> bytes:
    """Download over HTTPS from the address that was checked, without redirects and at most :data:`MAX_BYTES`."""
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT)
    try:
        plain = socket.create_connection((public_address(host, port), port), timeout=TIMEOUT)
        connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        connection.request("GET", target)
        response = connection.getresponse()
        content = response.read(MAX_BYTES + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, SatlightError):
            raise
        raise SatlightError(f"The image from {host!r} cannot be downloaded ({error}); send it as a data URL") from None
    finally:
        connection.close()
    if response.status != 200 or len(content) > MAX_BYTES:
        raise SatlightError(
            f"The image from {host!r}: status {response.status}, {len(content)} bytes; allowed are 200 and at most "
            f"{MAX_BYTES} bytes"
        )
    return content
