"""Embedded example data: invented cars on a turntable in a photo studio, rendered with their exact masks.

`render_dataset` writes a set in the Carvana challenge's own layout and formats, so that the whole project can be tried
without an account, a download or anybody's photos.
"""

from carstudio.write import RenderedSet, StudioError, render_dataset

__all__ = ["RenderedSet", "StudioError", "render_dataset"]
