"""The random choices made for one car."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from carstudio.blueprints import BLUEPRINTS, BODY_TYPES, PAINTS, TIRE_WIDTH_M, Blueprint, Line
from carstudio.curves import Curve, smooth_curve

# All makes and models are invented.
_MAKES = {
    "Aldermoor": ("Finch", "Harrier", "Wren"),
    "Corvale": ("C2", "C4", "C7"),
    "Hathersage": ("Moorland", "Beck", "Fell"),
    "Okami": ("Hayai", "Sora", "Tsuki"),
    "Vantera": ("Largo", "Presto", "Vivo"),
    "Brennard": ("110", "240", "360"),
}
_TRIMS = ("Base", "S", "SE", "GT", "Touring", "Sport")


@dataclass(frozen=True)
class Style:
    """Random details of one car; lengths in meters, the rest are shares 0..1 or counts."""

    spokes: int
    spoke_width: float
    dark_rims: bool
    chrome: bool
    cladding: bool
    roof_rails: bool
    spoiler: bool
    sunroof: bool
    panel_van: bool
    grille_width: float
    grille_height: float
    grille_bars: bool
    headlight_width: float
    headlight_height: float
    taillight_height: float
    glass_tint: float
    dark_trim: bool


@dataclass(frozen=True)
class Car:
    """One invented car: what it is called, its shape and its details. Curves are functions of x in the car's frame."""

    id: str
    body_type: str
    year: int
    make: str
    model: str
    trim: str
    paint: str
    paint_rgb: tuple[float, float, float]
    flake: float
    plan: Blueprint
    style: Style
    heading_error_rad: float
    offset_m: tuple[float, float]
    plate: tuple[int, ...]
    top: Curve = field(repr=False)
    roof: Curve = field(repr=False)
    bottom: Curve = field(repr=False)

    @property
    def wheel_y(self) -> float:
        """Distance of the middle of a tire from the car's middle."""
        return self.plan.width / 2 - TIRE_WIDTH_M / 2 - 0.03

    def x(self, station_m: float) -> float:
        """The x coordinate of a distance behind the nose."""
        return self.plan.length / 2 - station_m


def car_id(seed: int, number: int) -> str:
    """Twelve hexadecimal digits, like the challenge's."""
    return hashlib.sha256(f"studio {seed} {number}".encode()).hexdigest()[:12]


def design_car(seed: int, number: int) -> Car:
    """Car `number` of a set: the same for the same two numbers, whatever the number of cars."""
    rng = np.random.default_rng([seed, number])
    # Body types and paints each take turns in an order of the seed's own, so that few cars already show them all.
    order = np.random.default_rng([seed])
    body_type = BODY_TYPES[order.permutation(len(BODY_TYPES))[number % len(BODY_TYPES)]]
    paint, rgb, flake = PAINTS[order.permutation(len(PAINTS))[number % len(PAINTS)]]
    plan = _vary(BLUEPRINTS[body_type], rng)
    make = str(rng.choice(sorted(_MAKES)))
    tone = rng.uniform(0.85, 1.15)
    return Car(
        id=car_id(seed, number),
        body_type=body_type,
        year=int(rng.integers(2008, 2018)),
        make=make,
        model=f"{rng.choice(_MAKES[make])} {body_type}",
        trim=str(rng.choice(_TRIMS)),
        paint=paint,
        paint_rgb=(rgb[0] * tone, rgb[1] * tone, rgb[2] * tone),
        flake=flake,
        plan=plan,
        style=_draw_style(body_type, rng),
        heading_error_rad=float(np.radians(rng.normal(0, 1.2))),
        offset_m=(float(rng.normal(0, 0.05)), float(rng.normal(0, 0.04))),
        plate=tuple(int(digit) for digit in rng.integers(0, 10, 6)),
        top=_over_x(plan, plan.top_line, 0.11),
        roof=_over_x(plan, plan.roof_line, 0.16),
        bottom=_over_x(plan, _lower_edge(plan), 0.06),
    )


def _vary(plan: Blueprint, rng: np.random.Generator) -> Blueprint:
    """The blueprint stretched a little in each direction; wheels and sill keep their own proportions."""
    along, across, up = rng.uniform(0.95, 1.025), rng.uniform(0.975, 1.03), rng.uniform(0.96, 1.05)

    def stations(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(value * along for value in values)

    def line(points: Line) -> Line:
        return tuple((station * along, height * up) for station, height in points)

    return Blueprint(
        length=plan.length * along,
        width=plan.width * across,
        top_line=line(plan.top_line),
        roof_line=line(plan.roof_line),
        windshield=(plan.windshield[0] * along, plan.windshield[1] * along),
        rear_window=(plan.rear_window[0] * along, plan.rear_window[1] * along),
        axles=(plan.axles[0] * along, plan.axles[1] * along),
        wheel_radius=plan.wheel_radius * float(rng.uniform(0.97, 1.05)),
        sill=plan.sill * float(rng.uniform(0.92, 1.12)),
        roof_half_width=plan.roof_half_width * across,
        pillars=stations(plan.pillars),
        doors=stations(plan.doors),
        bed=None if plan.bed is None else (plan.bed[0] * along, plan.bed[1] * along),
        rear_corner_power=plan.rear_corner_power,
    )


def _draw_style(body_type: str, rng: np.random.Generator) -> Style:
    rugged = body_type in ("estate", "pickup")
    return Style(
        spokes=int(rng.choice([5, 6, 7, 10])),
        spoke_width=float(rng.uniform(0.32, 0.5)),
        dark_rims=bool(rng.random() < 0.2),
        chrome=bool(rng.random() < 0.6),
        cladding=bool(rugged and rng.random() < 0.6),
        roof_rails=bool(body_type == "estate" and rng.random() < 0.7),
        spoiler=bool(body_type == "coupe" and rng.random() < 0.6),
        sunroof=bool(body_type in ("saloon", "estate", "coupe") and rng.random() < 0.4),
        panel_van=bool(body_type == "van" and rng.random() < 0.5),
        grille_width=float(rng.uniform(0.36, 0.52)),
        grille_height=float(rng.uniform(0.08, 0.16)) * (1.5 if rugged else 1.0),
        grille_bars=bool(rng.random() < 0.6),
        headlight_width=float(rng.uniform(0.45, 0.68)),
        headlight_height=float(rng.uniform(0.11, 0.17)),
        taillight_height=float(rng.uniform(0.15, 0.24)),
        glass_tint=float(rng.uniform(0.25, 0.6)),
        dark_trim=bool(rng.random() < 0.5),
    )


def _lower_edge(plan: Blueprint) -> Line:
    """Bumpers end higher than the sills between the wheels."""
    front, rear = plan.axles
    return (
        (0, plan.sill + 0.04),
        (front, plan.sill + 0.01),
        (rear, plan.sill),
        (rear + 0.35, plan.sill + 0.03),
        (plan.length, plan.sill + 0.12),
    )


def _over_x(plan: Blueprint, line: Line, softness_m: float) -> Curve:
    return smooth_curve([(plan.length / 2 - station, height) for station, height in reversed(line)], softness_m)
