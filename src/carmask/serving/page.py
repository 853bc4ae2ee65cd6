"""The page's files, read once and served from memory: no name leads to a file that is not one of them."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
}


@dataclass(frozen=True)
class Asset:
    """One file."""

    data: bytes
    media_type: str

    @cached_property
    def _tag(self) -> str:
        return f'"{blake2b(self.data, digest_size=8).hexdigest()}"'

    def answer(self, request: Request) -> Response:
        """The file, unless the client has it already."""
        headers = {"ETag": self._tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == self._tag:
            return Response(status_code=304, headers=headers)
        return Response(self.data, headers=headers, media_type=self.media_type)


def load_assets() -> dict[str, Asset]:
    """All files of the page and of the API's description, by name; `index.html` is the page itself."""
    here = files("carmask.serving")
    entries = [*(here / "static").iterdir(), here / "docs.css"]
    return {entry.name: _asset(entry) for entry in entries if _ending(entry) in _MEDIA_TYPES}


def _asset(entry: Traversable) -> Asset:
    return Asset(entry.read_bytes(), _MEDIA_TYPES[_ending(entry)])


def _ending(entry: Traversable) -> str:
    return entry.name.rpartition(".")[2]
