"""Put tables into documents, between their markers."""

import sys
from pathlib import Path


def fill(tables: dict[str, str], *documents: Path) -> None:
    """Put tables between their markers, `<!-- name -->` and `<!-- /name -->`, and end where one has them nowhere."""
    homeless = set(tables)
    for document in documents:
        text = document.read_text()
        for name, table in tables.items():
            before, begin, rest = text.partition(f"<!-- {name} -->\n")
            _, end, after = rest.partition(f"<!-- /{name} -->")
            if end:
                text = f"{before}{begin}{table}\n{end}{after}"
                homeless.discard(name)
        document.write_text(text)
    if homeless:
        sys.exit(f"no document has the markers of {', '.join(sorted(homeless))}")
