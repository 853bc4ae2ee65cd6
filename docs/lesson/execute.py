"""Run the lesson, docs/lesson/unet.py, and keep it with its pictures as the notebook unet.ipynb beside it.

python docs/lesson/execute.py            writes the notebook
python docs/lesson/execute.py --check    runs it, writes nothing, and ends where the notebook has another text or code
"""

import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
NOTEBOOK = HERE / "unet.ipynb"


def cells(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Return the kind and the source of each cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def main() -> None:
    """Run all cells; one that fails ends the program with its error."""
    check = sys.argv[1:] == ["--check"]
    lesson = jupytext.read(HERE / "unet.py")
    if check and cells(nbformat.read(NOTEBOOK, as_version=4)) != cells(lesson):
        sys.exit(f"{NOTEBOOK} is older than unet.py: run `make lesson`")
    NotebookClient(lesson, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}).execute()
    if check:
        return
    for number, cell in enumerate(lesson.cells):
        # Ids are drawn at random otherwise, and times change with every run.
        cell.id = f"cell-{number}"
        cell.metadata.pop("execution", None)
        cell["outputs"] = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        for output in cell["outputs"]:
            # The address of a figure in memory says nothing.
            data = output.get("data", {})
            if "image/png" in data:
                data["text/plain"] = re.sub(r" at 0x\w+", "", str(data["text/plain"]))
        if cell.cell_type == "markdown":
            del cell["outputs"]
    nbformat.write(lesson, NOTEBOOK)
    print(f"written to {NOTEBOOK}")


if __name__ == "__main__":
    main()
