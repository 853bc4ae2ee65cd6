"""The nose: bumper, grille, headlamps."""

from __future__ import annotations

import numpy as np

from carstudio.arrays import FloatArray, smoothstep
from carstudio.body import Shape
from carstudio.details.flat import circle, line_share, polygon, polyline, rounded_box, share
from carstudio.details.zone import (
    AMBER,
    BARS,
    BLACK,
    CHROME,
    LAMP_GLASS,
    LAMP_HOUSING,
    PLASTIC,
    Zone,
    draw_plate,
)


def paint_nose(shape: Shape, zone: Zone, y_N: FloatArray) -> None:
    """Paint the front; the zone counts distances around the nose and heights, `y_N` tells left from right."""
    car, style = shape.car, shape.car.style
    arc, z = zone.u_N, zone.v_N
    brow = float(car.top(car.plan.length / 2 - 0.03))
    low = float(car.bottom(car.plan.length / 2))
    tall = brow - low
    # Bumper: an air intake below, fog lamps beside it, a dark lip at the bottom.
    zone.fill(z - (low + 0.12 * tall), PLASTIC, 0.2)
    intake = polygon(arc, z, [(-0.6, low + 0.17 * tall), (0.62, low + 0.17 * tall), (0.5, low + 0.36 * tall),
                              (-0.5, low + 0.36 * tall)])  # fmt: skip
    zone.fill(intake, BLACK, 0.15)
    slats = np.abs(np.mod((z - low) / 0.035, 1) - 0.5) - 0.18
    zone.material.cover(share(intake, zone.softness_m) * (slats < 0), PLASTIC, 0.4)
    fog = (0.74, low + 0.28 * tall)
    zone.fill(rounded_box(arc, z, fog, (0.085, 0.055), 0.03), BLACK, 0.3)
    zone.fill(circle(arc, z, fog, 0.038), LAMP_GLASS, 1.5)
    _grille(shape, zone, brow, tall)
    _headlight(shape, zone, brow)
    draw_plate(car.plate, zone, y_N, low + 0.44 * tall)
    # Hood's leading edge.
    zone.gap(np.where(arc < 0.86, z - (brow - 0.015), 1.0), amount=0.7)
    if style.cladding:
        zone.fill(z - (low + 0.2 * tall), PLASTIC, 0.2)


def _grille(shape: Shape, zone: Zone, brow: float, tall: float) -> None:
    style = shape.car.style
    arc, z = zone.u_N, zone.v_N
    wide, high = style.grille_width, style.grille_height
    center = brow - 0.06 - high / 2 - 0.02 * tall
    top, bottom = center + high / 2, center - high / 2
    frame = polygon(arc, z, [(-wide, bottom), (0.82 * wide, bottom), (wide, top), (-wide, top)])
    if style.chrome:
        zone.fill(frame - 0.018, CHROME, 3.0, 0.8)
    zone.fill(frame, BLACK, 0.3)
    inside = share(frame, zone.softness_m)
    bars = np.abs(np.mod((z - bottom) / 0.036, 1) - 0.5) < 0.2
    mesh = bars | (np.abs(np.mod(arc / 0.05, 1) - 0.5) < 0.12) if not style.grille_bars else bars
    zone.material.cover(inside * mesh, BARS if style.chrome and style.grille_bars else PLASTIC, 0.8, 0.5)
    badge = np.hypot(arc, (z - center) * 1.25) - 0.055
    zone.fill(badge, CHROME, 3.0, 0.8)
    zone.fill(np.abs(badge + 0.028) - 0.008, BLACK, 0.5)


def _headlight(shape: Shape, zone: Zone, brow: float) -> None:
    style = shape.car.style
    arc, z = zone.u_N, zone.v_N
    inner, outer = 0.98 - style.headlight_width * 0.75, 0.98 + style.headlight_width * 0.38
    high = style.headlight_height
    base = brow - 0.075 - high
    lamp = polygon(arc, z, [(inner, base + 0.25 * high), (inner + 0.2, base), (outer - 0.12, base + 0.3 * high),
                            (outer, base + 0.95 * high + 0.05), (inner + 0.25, base + high + 0.02),
                            (inner, base + 0.72 * high)])  # fmt: skip
    zone.fill(lamp - 0.008, BLACK, 0.4)
    zone.fill(lamp, LAMP_HOUSING, 2.0)
    inside = share(lamp, zone.softness_m)
    middle = base + 0.55 * high
    # The reflector catches the light from below; a bright strip runs along its foot.
    zone.material.cover(inside * (1 - smoothstep(base + 0.1 * high, base + 0.9 * high, z)), LAMP_GLASS, 2.0, 0.5)
    strip = polyline(arc, z, [(inner + 0.03, base + 0.36 * high), (inner + 0.2, base + 0.14 * high),
                              (outer - 0.14, base + 0.42 * high)])  # fmt: skip
    zone.material.cover(inside * line_share(strip, 0.02, zone.softness_m), (0.85, 0.87, 0.9), 2.0)
    for center, radius in ((inner + 0.19, 0.40 * high), (inner + 0.36, 0.36 * high)):
        ring = circle(arc, z, (center, middle), radius)
        zone.material.cover(inside * share(ring, zone.softness_m), LAMP_HOUSING, 1.5)
        zone.material.cover(inside * share(np.abs(ring) - 0.006, zone.softness_m), CHROME, 2.0, 0.6)
        zone.material.cover(inside * share(ring + 0.4 * radius, zone.softness_m), LAMP_GLASS, 3.0)
    turn_signal = share(np.abs(arc - outer + 0.09) - 0.045, zone.softness_m)
    zone.material.cover(0.8 * inside * turn_signal, AMBER, 1.6)
