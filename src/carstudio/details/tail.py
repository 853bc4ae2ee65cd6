"""The tail: trunk lid, bumper, lamps."""

from __future__ import annotations

import numpy as np

from carstudio.arrays import FloatArray
from carstudio.body import Shape
from carstudio.details.flat import polygon, rounded_box, share
from carstudio.details.zone import BLACK, CHROME, PLASTIC, RED, Zone, draw_plate


def paint_tail(shape: Shape, zone: Zone, y_N: FloatArray) -> None:
    """Paint the rear; the zone counts distances around the tail and heights, `y_N` tells left from right."""
    car, plan, style = shape.car, shape.car.plan, shape.car.style
    along, z = zone.u_N, zone.v_N
    brow = float(car.top(-plan.length / 2 + 0.03))
    low = float(car.bottom(-plan.length / 2))
    tall = brow - low
    bumper = low + 0.42 * tall
    zone.fill(z - (low + 0.13 * tall), PLASTIC, 0.2)
    if style.cladding:
        zone.fill(z - (low + 0.24 * tall), PLASTIC, 0.2)
    if plan.bed:
        step = polygon(along, z, [(-1, low), (0.86, low), (0.9, bumper - 0.03), (-1, bumper - 0.03)])
        zone.fill(step, CHROME if style.chrome else PLASTIC, 1.2, 0.7)
    zone.gap(np.where(along < 0.95, z - bumper, 1.0))
    lid = plan.width / 2 - 0.24
    zone.gap(np.where(z > bumper, along - lid, 1.0))
    _tail_lamp(shape, zone, brow, tall)
    plate_height = bumper - 0.10 if car.body_type in ("coupe", "pickup") else bumper + 0.26 * tall
    draw_plate(car.plate, zone, -y_N, plate_height)
    if car.body_type not in ("coupe", "pickup"):
        strip = rounded_box(along, z, (0, plate_height + 0.105), (0.26, 0.014), 0.012)
        zone.fill(strip, CHROME if style.chrome else BLACK, 2.0, 0.8)
    if plan.bed:
        zone.fill(rounded_box(along, z, (0, brow - 0.16), (0.11, 0.04), 0.02), BLACK, 0.4)
    else:
        zone.fill(np.hypot(along, z - (brow - 0.07)) - 0.04, CHROME, 3.0, 0.8)
    zone.fill(rounded_box(along, z, (0.82, low + 0.24 * tall), (0.08, 0.02), 0.01), RED, 1.0)
    pipe = rounded_box(along, z, (0.56, low + 0.06 * tall), (0.055, 0.03), 0.028)
    zone.fill(pipe, CHROME, 2.5, 0.8)
    zone.fill(pipe + 0.014, BLACK, 0.0)


def _tail_lamp(shape: Shape, zone: Zone, brow: float, tall: float) -> None:
    along, z = zone.u_N, zone.v_N
    edge = shape.car.plan.width / 2 - 0.06
    high = shape.car.style.taillight_height
    if shape.car.body_type in ("van", "pickup"):
        base, top = brow - 0.12 - 0.45 * tall, brow - 0.06
        corners = [(edge - 0.14, base), (edge + 0.05, base), (edge + 0.07, top), (edge - 0.13, top)]
    else:
        base, top = brow - 0.10 - high, brow - 0.085
        corners = [(edge - 0.42, base + 0.25 * high), (edge - 0.3, base), (edge + 0.1, base + 0.15 * high),
                   (edge + 0.34, top - 0.02), (edge + 0.3, top + 0.01), (edge - 0.36, top)]  # fmt: skip
    lamp = polygon(along, z, corners)
    zone.fill(lamp - 0.008, BLACK, 0.5)
    zone.fill(lamp, RED, 2.0)
    inside = share(lamp, zone.softness_m)
    middle = (base + top) / 2
    bright = share(rounded_box(along, z, (edge - 0.1, middle + 0.2 * (top - base)), (0.16, 0.24 * (top - base)), 0.02),
                   zone.softness_m)  # fmt: skip
    zone.material.cover(0.75 * inside * bright, (0.62, 0.06, 0.05), 2.0)
    clear = rounded_box(along, z, (edge - 0.06, middle - 0.2 * (top - base)), (0.1, 0.12 * (top - base)), 0.01)
    zone.material.cover(inside * share(clear, zone.softness_m), (0.6, 0.58, 0.56), 2.0)
