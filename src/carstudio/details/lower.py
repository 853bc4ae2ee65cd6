"""The lower body: which details lie where; flanks and upper side."""

from __future__ import annotations

import numpy as np

from carstudio.arrays import FloatArray
from carstudio.body import BED_INSET_M, WAIST_SINK_M, Shape
from carstudio.details.flat import circle, polyline, rounded_box, share
from carstudio.details.nose import paint_nose
from carstudio.details.tail import paint_tail
from carstudio.details.zone import AMBER, BLACK, CHROME, PLASTIC, Zone, on_samples
from carstudio.light import Material


def paint_lower_body(
    shape: Shape, material: Material, position_N3: FloatArray, surface_N2: FloatArray, softness_m: float
) -> None:
    """Paint all details of the lower body over its lacquer, in place."""
    arc, level = surface_N2.T
    x, y, z = position_N3.T
    front = (arc < 1.35) & (level <= 1.12)
    rear = (shape.body_arc_m - arc < 1.3) & (level <= 1.12)
    flank = (arc > 0.8) & (shape.body_arc_m - arc > 0.8) & (level <= 1.05)
    top = level > 0.95
    on_samples(material, flank, lambda part: _flank(shape, Zone(part, x[flank], z[flank], softness_m), y[flank]))
    on_samples(material, front, lambda part: paint_nose(shape, Zone(part, arc[front], z[front], softness_m), y[front]))
    tail = shape.body_arc_m - arc
    on_samples(material, rear, lambda part: paint_tail(shape, Zone(part, tail[rear], z[rear], softness_m), y[rear]))
    on_samples(material, top, lambda part: _upper(shape, Zone(part, x[top], y[top], softness_m)))


def _flank(shape: Shape, zone: Zone, y_N: FloatArray) -> None:
    car, plan, style = shape.car, shape.car.plan, shape.car.style
    x, z = zone.u_N, zone.v_N
    front_axle, rear_axle = shape.wheel_x
    sill = plan.sill
    nearest_arch = np.full(x.shape, np.inf, dtype=np.float32)
    for axle in (front_axle, rear_axle):
        reach = np.where(z > plan.wheel_radius, np.hypot(x - axle, z - plan.wheel_radius), np.abs(x - axle))
        np.minimum(nearest_arch, reach - np.float32(shape.arch_radius_m), out=nearest_arch)
    _doors(shape, zone, nearest_arch)
    zone.fill(z - (sill + (0.16 if style.cladding else 0.055)), PLASTIC, 0.25)
    zone.fill(nearest_arch - (0.055 if style.cladding else 0.006), PLASTIC if style.cladding else BLACK, 0.25)
    if not style.cladding:
        zone.material.darken(share(nearest_arch - 0.03, 0.10), 0.4)
    if not style.panel_van:
        cap = circle(x, z, (rear_axle - 0.08, float(car.top(rear_axle)) - 0.22), 0.085)
        zone.gap(np.where(y_N > 0, cap, 1.0), 0.007, 0.6)
    marker = rounded_box(x, z, (front_axle + shape.arch_radius_m + 0.14, plan.sill + 0.36), (0.05, 0.018), 0.012)
    zone.fill(marker, AMBER, 1.0)


def _doors(shape: Shape, zone: Zone, nearest_arch_N: FloatArray) -> None:
    car, plan, style = shape.car, shape.car.plan, shape.car.style
    x, z = zone.u_N, zone.v_N
    rear_axle = shape.wheel_x[1]
    base = plan.sill + 0.1
    stations = [car.x(station) for station in plan.doors]
    for number, door in enumerate(stations):
        last = number == len(stations) - 1
        waist = float(car.top(door)) + 0.02
        if last and door - rear_axle < shape.arch_radius_m + 0.1 and not plan.bed:
            # The rear door's gap follows the wheel arch.
            around = np.where((z < plan.wheel_radius + shape.arch_radius_m) & (x > rear_axle), nearest_arch_N - 0.07, 1)
            zone.gap(np.where(z > base, around, 1))
            foot = plan.wheel_radius + 0.88 * shape.arch_radius_m
            zone.gap(polyline(x, z, [(rear_axle + 0.5 * shape.arch_radius_m, foot + 0.06), (door - 0.06, waist)]))
        else:
            zone.gap(polyline(x, z, [(door + 0.02, base), (door, waist - 0.2), (door - 0.02, waist)]))
    zone.gap(polyline(x, z, [(stations[0] + 0.02, base), (stations[-1] + 0.12, base)]))
    for door in stations[1:]:
        height = float(car.top(door)) - 0.135
        grip = rounded_box(x, z, (door + 0.15, height), (0.095, 0.016), 0.015)
        zone.material.darken(share(rounded_box(x, z, (door + 0.15, height - 0.008), (0.085, 0.04), 0.03), 0.02), 0.35)
        if style.chrome:
            zone.fill(grip, CHROME, 2.5, 0.8)
        else:
            zone.fill(grip, car.paint_rgb, 1.3, car.flake)


def _upper(shape: Shape, zone: Zone) -> None:
    car, plan = shape.car, shape.car.plan
    x, y = zone.u_N, np.abs(zone.v_N)
    nose, cowl = plan.length / 2, car.x(plan.windshield[0])
    edge = plan.width / 2 - 0.17
    zone.gap(polyline(x, y, [(nose - 0.25, edge - 0.1), (nose - 0.7, edge), (cowl - 0.25, edge)]))
    crease = polyline(x, y, [(nose - 0.3, 0.32 * edge), (cowl + 0.02, 0.55 * edge)])
    zone.material.darken(share(crease - 0.005, 0.06), 0.12)
    # The scuttle between hood and windshield.
    # The windshield comes out of the body some way behind its hidden foot.
    rise = (WAIST_SINK_M + 0.03) / (float(car.roof(car.x(plan.windshield[1])) - car.top(cowl)) + WAIST_SINK_M)
    emerges = cowl - rise * (plan.windshield[1] - plan.windshield[0])
    bow = emerges - 0.16 * (y / (plan.width / 2 - 0.075)) ** 2
    zone.fill(np.where(y < edge - 0.03, np.abs(x - bow - 0.03) - 0.035, 1.0), BLACK, 0.3)
    if plan.bed:
        in_bed = (x < car.x(plan.bed[0]) + 0.03) & (x > car.x(plan.bed[1]) - 0.03)
        zone.fill(np.where(in_bed, plan.width / 2 - BED_INSET_M - 0.03 - y, 1.0), PLASTIC, 0.2)
    else:
        lid = car.x(plan.rear_window[0])
        if car.body_type in ("saloon", "coupe"):
            zone.gap(polyline(x, y, [(lid - 0.02, 0), (lid, edge - 0.12), (-nose + 0.2, edge - 0.1)]))
