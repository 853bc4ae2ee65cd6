"""A page about the API, made of what the service says of itself, so that neither can say what the other does not."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

_EXAMPLES = """\
curl -F file=@car.jpg {base}v1/segment -o mask.png
curl -F file=@car.jpg -F kind=cutout -F background=white {base}v1/segment -o car.png
curl -F file=@car.jpg -F kind=cutout -F format=webp -F crop=true {base}v1/segment -o car.webp
curl -F file=@car.jpg -F kind=cutout -F background_file=@beach.jpg {base}v1/segment -o beach.png
curl -F file=@car.jpg -H 'Accept: application/json' {base}v1/segment
curl -F file=@car.jpg -F kind=polygons {base}v1/segment -o car.json"""


def docs_page(description: dict[str, Any], base: str) -> str:
    """HTML about an OpenAPI description. `base` is where the service is."""
    info = description["info"]
    operations = [
        (method.upper(), path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}: the API</h1>",
        f"<p>{escape(info['description'])} For programs: <a href='openapi.json'>openapi.json</a>. For people: "
        "<a href='./'>the page</a>.</p>",
        f"<pre>{escape(_EXAMPLES.format(base=base))}</pre>",
        *(_operation(*operation) for operation in operations),
    ]
    return (
        "<!doctype html><html lang='en-GB'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(info['title'])}: the API</title>"
        "<link rel='icon' href='static/icon.svg'><link rel='stylesheet' href='static/docs.css'></head>"
        f"<body>{''.join(parts)}</body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"<h2><code>{method} {escape(path)}</code></h2><p>{escape(operation['summary'])}.</p>"]
    form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
    if form:
        lines.append("<h3>Fields of the form</h3>" + _table(("field", "meaning", "default"), _fields(form["schema"])))
    answers = [(status, _answer(told)) for status, told in sorted(operation["responses"].items())]
    lines.append("<h3>Answers</h3>" + _table(("status", "meaning"), answers))
    headers = operation["responses"]["200"].get("headers", {})
    rows = [(name, header["description"]) for name, header in headers.items()]
    return "".join(lines) + (_table(("header", "meaning"), rows) if rows else "")


def _fields(schema: dict[str, Any]) -> Iterable[Sequence[str]]:
    """Each field of the variants of a form: its meaning, its values in all of them, its default."""
    told: dict[str, dict[str, Any]] = {}
    for variant in schema["anyOf"]:
        for name, field in variant["properties"].items():
            values = [*told.get(name, {}).get("enum", ()), *field.get("enum", ())]
            told[name] = {**field, **told.get(name, {}), "enum": list(dict.fromkeys(values))}
    for name, field in told.items():
        values_said = f" One of {', '.join(field['enum'])}." if field["enum"] else ""
        yield name, field["description"] + values_said, str(field.get("default", "")).lower()


def _answer(told: dict[str, Any]) -> str:
    types = ", ".join(told.get("content", {}))
    return f"{told['description']}{f' ({types})' if types else ''}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
