"""Which classes of a label file are the vehicles."""

from collections.abc import Collection, Iterable

from carmask.labels.shapes import LabelError

# COCO's classes of the supercategory vehicle, Pascal VOC's other names for two of them, and the name in our own files.
_VEHICLES = frozenset(
    ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "aeroplane", "motorbike", "vehicle")
)
# Labels that mean unknown in LabelMe and in Pascal VOC, and names of the background.
_UNKNOWN = frozenset(("__ignore__", "ignore", "void"))
_BACKGROUND = frozenset(("_background_", "background"))


def parse_names(text: str | Iterable[str]) -> tuple[str, ...]:
    """Split `car, truck` at commas; other values are returned as they are."""
    return tuple(filter(None, map(str.strip, text.split(",")))) if isinstance(text, str) else tuple(text)


def choose_labels(
    found: Collection[str], labels: Collection[str], ignored: Collection[str], where: object
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the classes that are vehicles, and those whose pixels are unknown.

    Args:
        found: All classes that there are.
        labels: The wanted ones; if there are none, all that are vehicles by COCO's names, or else the only class.
        ignored: The unknown ones.
        where: What has these classes, for the error.

    Raises:
        LabelError: a wanted class does not exist, or none is wanted and there are several that are no vehicles.
    """
    listed = ", ".join(sorted(found)) or "none"
    for option, names in (("--labels", labels), ("--ignore-labels", ignored)):
        if missing := [name for name in names if name not in found]:
            raise LabelError(f"{where}: {option} {','.join(missing)}: there is no such label. There are: {listed}")
    if both := sorted(set(labels) & set(ignored)):
        raise LabelError(f"{where}: {', '.join(both)} is in both --labels and --ignore-labels; choose one")
    unknown = frozenset(ignored) | {name for name in found if name in _UNKNOWN and name not in labels}
    if labels:
        return frozenset(labels), unknown
    others = [name for name in found if name not in unknown and name not in _BACKGROUND]
    vehicles = frozenset(name for name in others if name.casefold() in _VEHICLES)
    if not vehicles and len(others) > 1:
        raise LabelError(
            f"{where}: no label is a vehicle by COCO's names; choose some with --labels. There are: {listed}"
        )
    return vehicles or frozenset(others), unknown
