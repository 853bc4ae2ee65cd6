"""Contrasts of the page's colors, as WCAG 2.2 computes them, from the file that names them all; no browser needed."""

import re
from importlib.resources import files

import pytest

STATIC = files("carmask.serving") / "static"
COLORS = (STATIC / "colors.css").read_text(encoding="utf-8")

# Text on its ground wants 4.5 (1.4.3), what shows where a control is, or its state, 3 (1.4.11).
TEXTS = [
    ("ink", "page"),
    ("ink", "card"),
    ("ink", "tint"),
    ("muted", "page"),
    ("muted", "card"),
    ("muted", "tint"),
    ("accent", "page"),
    ("accent", "card"),
    ("accent", "tint"),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
    ("bad", "bad-ground"),
    ("none", "none-ground"),
]
MARKS = [("edge", "page"), ("edge", "card"), ("accent", "page"), ("accent", "card"), ("accent", "tint")]


def schemes() -> dict[str, dict[str, str]]:
    """The colors of the light scheme, and of the dark one, which overrides it."""
    light, dark = COLORS.split("@media (prefers-color-scheme: dark)")
    found = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part)) for part in (light, dark)]
    return {"light": found[0], "dark": found[0] | found[1]}


def luminance(color: str) -> float:
    """Relative luminance 0..1 of #rrggbb (WCAG 2.2, "relative luminance")."""
    levels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    # Known from WCAG's own examples: the lightest gray that passes on white.
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrasts_are_enough(scheme: str) -> None:
    colors = schemes()[scheme]
    for least, pairs in ((4.5, TEXTS), (3, MARKS)):
        low = {pair: round(found, 2) for pair in pairs if (found := contrast(*map(colors.get, pair))) < least}
        assert not low


def test_both_schemes_name_every_color() -> None:
    light, dark = (set(re.findall(r"--([a-z-]+):", part)) for part in COLORS.split("@media"))
    assert light == dark


def test_no_color_hides_elsewhere() -> None:
    """Other files name colors of colors.css; but what lies over photos is white on black in both schemes."""
    for name in ("page.css", "card.css"):
        text = (STATIC / name).read_text(encoding="utf-8")
        used = set(re.findall(r"var\(--([a-z-]+)", text)) - {"ratio", "cut"}
        assert used <= schemes()["light"].keys()
        assert set(re.findall(r"#[0-9a-f]{3,8}\b", text)) <= {"#fff", "#1b4795"}
