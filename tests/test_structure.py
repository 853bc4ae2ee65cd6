"""The structure of the code: layers, no import cycles, one meaning for each class name, American spelling."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SRC.rglob("*.py"))}


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): tree for path, tree in TREES.items()}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those that only type checkers see."""
    for child in ast.iter_child_nodes(tree):
        if not is_type_checking(child):
            yield child
            yield from nodes(child)


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules of this repository that a module imports, at its top or in a function."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in names]
        else:
            continue
        yield from (name for name in names if name in MODULES)


IMPORTS = {name: set(imports(tree)) - {name} for name, tree in MODULES.items()}


def layers() -> list[str]:
    """The first column of the table of layers, lowest first, e.g. carmask.imaging."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return [f"carmask.{name}".rstrip("/") for row in rows for name in re.findall(r"`([\w/]+)(?:\.py)?`", row)]


def layer(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_no_class_name_is_defined_twice() -> None:
    places = defaultdict(list)
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_no_module_imports_itself_through_others() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_low_layers_do_not_import_high_ones() -> None:
    order = {name: rank for rank, name in enumerate(layers())}
    modules = {name for name in MODULES if name.startswith("carmask.")}
    assert {layer(name) for name in modules} - {"carmask.__main__"} == set(order)
    wrong = [
        f"{module} imports {imported}"
        for module in modules - {"carmask.__main__"}
        for imported in IMPORTS[module] & modules
        if order[layer(imported)] > order[layer(module)]
    ]
    assert wrong == []


def test_carstudio_does_not_import_carmask() -> None:
    assert [name for name in MODULES if not name.startswith("carmask") and any(map(is_of_carmask, IMPORTS[name]))] == []


def is_of_carmask(module: str) -> bool:
    return module.split(".")[0] == "carmask"


# Words that had a meaning in this project alone, as a whole name or as a word in one.
BANNED_NAMES = {"account", "hard", "light_last", "from_first", "bench", "said", "stands"}
BANNED_WORDS = {
    *("told", "wish", "wishes", "gate", "envelope", "refusal", "refusals", "exchange", "obstacle", "lasting", "owners"),
    *("unfit", "mend", "patiently", "house", "room", "rooms", "team", "clutter"),
}


def identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.keyword(arg=str(name)):
                yield name


def words(name: str) -> list[str]:
    """The words of a name in snake_case or CamelCase, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)]


def test_names_are_the_words_of_the_field() -> None:
    found = defaultdict(set)
    for module, tree in MODULES.items():
        for name in {module.rpartition(".")[2], *identifiers(tree)}:
            if name.strip("_").lower() in BANNED_NAMES or BANNED_WORDS & set(words(name)):
                found[module].add(name)
    assert dict(found) == {}


BRITISH = re.compile(
    r"\b(colour|grey|centre|neighbour|behaviour|favour|flavour|honour|licence|catalogue|travell|labell(?!edby\b)|modell"
    r"|artefact|programme|(optim|normal|initial|serial|quant|organ|recogn|minim|maxim|summar|visual|synchron|real|util"
    r"|parallel|general|special|vector)is(e|es|ed|er|ers|ing|ation|ations)\b)",
    re.IGNORECASE,
)


@pytest.mark.parametrize("folder", ["src", "docs", "configs", "README.md", "CHANGELOG.md"])
def test_spelling_is_american(folder: str) -> None:
    suffixes = {".py", ".md", ".yaml", ".html", ".js", ".css", ".jinja"}
    paths = [path for path in (ROOT / folder, *(ROOT / folder).rglob("*")) if path.suffix in suffixes]
    assert paths
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BRITISH.search(line)
    ]
    assert wrong == []
