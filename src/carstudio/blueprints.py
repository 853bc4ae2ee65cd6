"""Shapes of five body types in meters, and the colors that cars are painted in."""

from __future__ import annotations

from dataclasses import dataclass

TIRE_WIDTH_M = 0.225

Line = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Blueprint:
    """The shape of a body type in meters. A station is a distance behind the nose; lines are (station, height)."""

    length: float
    width: float
    top_line: Line  # hood, waist, trunk lid: the upper edge of the lower body
    roof_line: Line
    windshield: tuple[float, float]  # stations of its foot and of the roof's leading edge
    rear_window: tuple[float, float]  # stations of its foot and of the roof's trailing edge
    axles: tuple[float, float]
    wheel_radius: float
    sill: float  # height of the body's lower edge
    roof_half_width: float
    pillars: tuple[float, ...]  # stations of the posts between side windows
    doors: tuple[float, ...]  # stations of the vertical door gaps
    bed: tuple[float, float] | None = None  # stations of a pickup's bed
    rear_corner_power: float = 7.0


# The names of the body types are part of metadata.csv.
BLUEPRINTS: dict[str, Blueprint] = {
    "saloon": Blueprint(
        length=4.72,
        width=1.84,
        top_line=(
            (0, 0.73),
            (0.2, 0.81),
            (0.8, 0.9),
            (1.45, 0.98),
            (2.6, 0.99),
            (3.9, 1.05),
            (4.5, 1.07),
            (4.72, 1.02),
        ),
        roof_line=((1.6, 1.32), (2.1, 1.42), (2.6, 1.46), (3.1, 1.44), (3.6, 1.37), (4.0, 1.28)),
        windshield=(1.22, 2.12),
        rear_window=(4.22, 3.34),
        axles=(0.92, 3.68),
        wheel_radius=0.335,
        sill=0.2,
        roof_half_width=0.66,
        pillars=(2.56, 3.52),
        doors=(1.5, 2.56, 3.5),
    ),
    "estate": Blueprint(
        length=4.66,
        width=1.87,
        top_line=((0, 0.86), (0.2, 0.96), (0.8, 1.04), (1.3, 1.1), (2.6, 1.12), (3.9, 1.18), (4.45, 1.2), (4.66, 1.14)),
        roof_line=((1.5, 1.5), (2.0, 1.62), (2.6, 1.67), (3.3, 1.66), (4.0, 1.6), (4.6, 1.52)),
        windshield=(1.12, 1.98),
        rear_window=(4.56, 4.08),
        axles=(0.9, 3.6),
        wheel_radius=0.365,
        sill=0.25,
        roof_half_width=0.69,
        pillars=(2.46, 3.36),
        doors=(1.46, 2.46, 3.38),
    ),
    "van": Blueprint(
        length=4.98,
        width=1.93,
        top_line=(
            (0, 0.85),
            (0.2, 0.97),
            (0.6, 1.06),
            (1.0, 1.12),
            (2.6, 1.12),
            (4.0, 1.14),
            (4.8, 1.14),
            (4.98, 1.12),
        ),
        roof_line=((1.0, 1.66), (1.7, 1.88), (2.4, 1.95), (3.5, 1.96), (4.5, 1.92), (4.98, 1.87)),
        windshield=(0.72, 1.72),
        rear_window=(4.92, 4.66),
        axles=(0.94, 3.98),
        wheel_radius=0.345,
        sill=0.22,
        roof_half_width=0.78,
        pillars=(2.42, 3.62),
        doors=(1.4, 2.42, 3.6),
        rear_corner_power=11,
    ),
    "pickup": Blueprint(
        length=5.45,
        width=1.95,
        top_line=((0, 0.98), (0.2, 1.08), (0.8, 1.16), (1.5, 1.2), (2.6, 1.2), (3.6, 1.22), (5.2, 1.24), (5.45, 1.24)),
        roof_line=((1.7, 1.68), (2.2, 1.79), (2.7, 1.83), (3.2, 1.82), (3.7, 1.78)),
        windshield=(1.36, 2.1),
        rear_window=(3.7, 3.5),
        axles=(1.0, 4.3),
        wheel_radius=0.395,
        sill=0.36,
        roof_half_width=0.73,
        pillars=(2.62,),
        doors=(1.56, 2.62, 3.54),
        bed=(3.82, 5.25),
        rear_corner_power=14,
    ),
    "coupe": Blueprint(
        length=4.48,
        width=1.86,
        top_line=(
            (0, 0.65),
            (0.2, 0.72),
            (0.8, 0.84),
            (1.55, 0.92),
            (2.6, 0.93),
            (3.5, 1.0),
            (4.25, 1.02),
            (4.48, 0.98),
        ),
        roof_line=((1.8, 1.2), (2.2, 1.28), (2.6, 1.32), (3.0, 1.3), (3.4, 1.23), (3.9, 1.1), (4.2, 1.02)),
        windshield=(1.36, 2.24),
        rear_window=(4.08, 2.98),
        axles=(0.9, 3.54),
        wheel_radius=0.34,
        sill=0.17,
        roof_half_width=0.62,
        pillars=(2.95,),
        doors=(1.5, 2.98),
        rear_corner_power=5,
    ),
}
BODY_TYPES: tuple[str, ...] = tuple(BLUEPRINTS)

# Name, reflectance of the base coat (linear light), share of metal flake.
PAINTS: tuple[tuple[str, tuple[float, float, float], float], ...] = (
    ("white", (0.80, 0.80, 0.78), 0.0),
    ("silver", (0.50, 0.51, 0.52), 0.8),
    ("black", (0.012, 0.012, 0.014), 0.1),
    ("red", (0.42, 0.012, 0.018), 0.3),
    ("gray", (0.13, 0.135, 0.145), 0.7),
    ("blue", (0.02, 0.07, 0.26), 0.5),
    ("pearl", (0.72, 0.70, 0.64), 0.3),
    ("champagne", (0.40, 0.35, 0.27), 0.7),
    ("navy", (0.012, 0.02, 0.06), 0.4),
    ("green", (0.02, 0.09, 0.05), 0.4),
    ("orange", (0.62, 0.16, 0.02), 0.2),
    ("maroon", (0.12, 0.012, 0.02), 0.5),
)
