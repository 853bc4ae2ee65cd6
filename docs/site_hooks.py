"""Pages that are made while the site is built: the commands' help, the changelog and the lesson.

MkDocs calls `on_files` and `on_page_markdown` (see `hooks` in mkdocs.yml).
"""

import base64
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel

from carmask.cli import app
from carmask.training.config import TrainSettings

ROOT = Path(__file__).parents[1]
LESSON = "lesson/unet"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs/ holds."""
    pages: dict[str, str | bytes] = {
        "reference/commands.md": commands(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        **lesson(),
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def commands() -> str:
    """Return the help of all commands as Markdown, from their docstrings."""
    for name in app:
        if not name.startswith("-"):
            # The whole docstring instead of the line in `carmask --help`.
            app[name].help = None
    text = app.generate_docs(output_format="markdown")
    # The page has a table of contents of its own.
    head, _, rest = text.partition("## Table of Contents")
    return head.replace("# carmask\n", "# Commands\n", 1) + rest[rest.index("**Commands**") :]


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put in the table of all training settings, and name files outside docs/, which the site does not have."""
    root = "../" * (page.file.src_uri.count("/") + 1)
    markdown = re.sub(rf"\[[^\]]*\]\({re.escape(root)}(\w[^)]*)\)", r"`\1`", markdown)
    return markdown.replace("<!-- training settings -->", "\n".join(settings(TrainSettings)), 1)


def settings(section: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the fields of a section and of those within it, as rows of a table."""
    rows = [] if prefix else ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in section.model_fields.items():
        default = field.get_default()
        if isinstance(default, BaseModel):
            rows += settings(type(default), f"{prefix}{name}.")
        else:
            shown = "" if field.is_required() or default is None else f"`{default}`"
            rows.append(f"| `{prefix}{name}` | {shown} | {field.description or ''} |")
    return rows


def lesson() -> dict[str, str | bytes]:
    """Return the executed notebook as one page and its pictures."""
    notebook = nbformat.read(ROOT / "docs" / f"{LESSON}.ipynb", as_version=4)
    pages: dict[str, str | bytes] = {}
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            text, picture = shown(output)
            if text:
                parts.append(f"```text\n{text.rstrip()}\n```")
            if picture is not None:
                name = f"{LESSON}-{len(pages) + 1}.png"
                pages[name] = base64.b64decode(picture)
                parts.append(f"![What the code above draws]({Path(name).name})")
    return {f"{LESSON}.md": "\n\n".join(parts) + "\n", **pages}


def shown(output: Any) -> tuple[str, str | None]:
    """Return the text and the picture (PNG in base64) of a cell's output."""
    if output.output_type == "stream":
        return output.text, None
    data = output.get("data", {})
    if "image/png" in data:
        return "", data["image/png"]
    return data.get("text/plain", ""), None
