"""The web page's files, read once and served from memory, and the page about the API."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from html import escape
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_EXAMPLES = """\
curl -F file=@car.jpg {base}v1/segment -o mask.png
curl -F file=@car.jpg -F kind=cutout -F background=white {base}v1/segment -o car.png
curl -F file=@car.jpg -F kind=cutout -F format=webp -F crop=true {base}v1/segment -o car.webp
curl -F file=@car.jpg -F kind=cutout -F background_file=@beach.jpg {base}v1/segment -o beach.png
curl -F file=@car.jpg -H 'Accept: application/json' {base}v1/segment
curl -F file=@car.jpg -F kind=polygons {base}v1/segment -o car.json"""
_DOCS = """\
<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>carmask: the API</title>
<link rel="icon" href="static/icon.svg"><link rel="stylesheet" href="static/docs.css"></head>
<body><h1>carmask {version}: the API</h1>
<p>{description} See also <a href="openapi.json">openapi.json</a> and <a href="./">the web page</a>.</p>
<pre>{examples}</pre>{operations}</body></html>"""


@dataclass(frozen=True)
class Asset:
    """One file of the page."""

    data: bytes
    media_type: str
    etag: str

    def respond(self, request: Request) -> Response:
        """The file, or 304 if the client has it already."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.data, headers=headers, media_type=self.media_type)


def load_assets() -> dict[str, Asset]:
    """All files of the page by name; `index.html` is the page itself. No name leads to any other file."""
    found = {}
    for entry in (files("carmask.serving") / "static").iterdir():
        media_type = _MEDIA_TYPES.get(PurePath(entry.name).suffix)
        if media_type:
            data = entry.read_bytes()
            found[entry.name] = Asset(data, media_type, f'"{blake2b(data, digest_size=8).hexdigest()}"')
    return found


def docs_page(openapi: dict[str, Any], base: str) -> str:
    """HTML about the API, from its OpenAPI description. `base` is the URL of the service.

    Not FastAPI's own: that loads Swagger UI from another server.
    """
    schemas = openapi["components"]["schemas"]
    operations = [
        _operation(f"{method.upper()} {path}", operation, schemas)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    return _DOCS.format(
        version=escape(openapi["info"]["version"]),
        description=escape(openapi["info"]["description"]),
        examples=escape(_EXAMPLES.format(base=base)),
        operations="".join(operations),
    )


def _operation(name: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    html = f"<h2><code>{escape(name)}</code></h2><p>{escape(operation['summary'])}.</p>"
    form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
    if form:
        fields = schemas[form["schema"]["$ref"].rpartition("/")[2]]["properties"]
        html += _table("field of the form", [_field(*field) for field in fields.items()])
    responses = operation["responses"]
    meanings = {
        status: f"{response['description']} ({', '.join(response.get('content', {}))})"
        for status, response in responses.items()
    }
    html += _table("status", sorted(meanings.items()))
    headers = responses["200"].get("headers", {})
    return html + _table("header", [(name, header["description"]) for name, header in headers.items()])


def _field(name: str, schema: dict[str, Any]) -> tuple[str, str]:
    meaning = schema["description"]
    if "enum" in schema:
        meaning += f" One of {', '.join(schema['enum'])}."
    default = schema.get("default")
    return name, meaning if default is None else f"{meaning} Default: {str(default).lower()}."


def _table(heading: str, rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class='wide'><table><tr><th>{heading}</th><th>meaning</th></tr>{body}</table></div>" if body else ""
