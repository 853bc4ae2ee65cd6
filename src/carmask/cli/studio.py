"""`carmask studio`."""

from pathlib import Path

from carmask.cli.console import print_line
from carmask.errors import CarmaskError
from carmask.limits import usable_cpus
from carmask.progress import progress_bar
from carstudio import StudioError, render_dataset


def studio(
    out: Path,
    *,
    cars: int = 12,
    views: int = 16,
    height_px: int = 1280,
    width_px: int = 1918,
    seed: int = 0,
    workers: int = 0,
) -> int:
    """Render example data: invented cars on a turntable, with exact masks, in the layout of Kaggle's Carvana folder.

    Args:
        out: Folder to write. An interrupted command continues where it stopped; a complete set is not changed.
        cars: Number of cars. A larger set begins with the same cars.
        views: Photos of each car, taken evenly around it.
        height_px: Height of the photos in pixels.
        width_px: Width of the photos in pixels.
        seed: 0 or more. Another seed gives other cars, studios and light.
        workers: Number of processes to render with; 0 means one for each usable CPU.
    """
    with progress_bar("rendering example photos") as advance:
        try:
            made = render_dataset(
                out,
                cars=cars,
                views=views,
                size_HW=(height_px, width_px),
                seed=seed,
                progress=advance,
                workers=workers or usable_cpus(),
            )
        except StudioError as error:
            raise CarmaskError(str(error)) from error
    kept = made.photos - made.rendered
    print_line(
        f"{made.photos} photos of {len(made.car_ids)} cars with their masks, {height_px} x {width_px} pixels "
        f"(height x width), in {out}" + (f"; {kept} were there already" if kept else "")
    )
    return 0
