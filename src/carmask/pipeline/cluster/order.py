"""What workers are told, and what a machine answers."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carmask.errors import CarmaskError
from carmask.imaging.masks import Regions
from carmask.pipeline.cluster.networks import Networks
from carmask.pipeline.provenance import Provenance, differences, provenance_of
from carmask.pipeline.sinks import RemoteSink
from carmask.pipeline.urls import URL
from carmask.segmenter import Segmenter


class ClusterError(CarmaskError):
    """A cluster cannot be used, or gave up."""


@dataclass(frozen=True)
class Scene:
    """What all machines have to agree on before anything is written.

    folder: where relative paths are seen from. root: see `PhotoList`.
    """

    networks: Networks
    regions: Regions
    folder: str
    root: Path | URL

    @contextmanager
    def entered(self) -> Iterator[Segmenter]:
        """Go to the folder, so that photos have the names in messages that the user gave them, and load the networks.

        Raises:
            CarmaskError: the photos are not to be seen from this machine, or the networks cannot run on it.

        """
        try:
            os.chdir(self.folder)
        except OSError as error:
            if isinstance(self.root, Path) and not self.root.is_absolute():
                raise ClusterError(
                    f"{self.folder}: cannot be entered there ({error.strerror}); give paths from the root, of folders "
                    "that all machines share"
                ) from error
        if isinstance(self.root, Path) and not self.root.is_dir():
            raise ClusterError(f"{self.root.absolute()}: is not there; photos lie in a folder that all machines share")
        with self.networks.loaded() as segmenter:
            yield segmenter


@dataclass(frozen=True)
class Order:
    """All that a worker has to know.

    recipe: how the results of all workers are made. suffix: see `Jobs`. threads: beside the network, for each of
    decoding and encoding.
    """

    scene: Scene
    recipe: Provenance
    sink: RemoteSink
    suffix: str
    batch_size: int
    threads: int


@dataclass(frozen=True)
class Machine:
    """What a machine says of itself: how it would make results, and in words; or why it cannot."""

    name: str
    recipe: Provenance
    network: str
    cause: str | None = None

    @classmethod
    def here(cls, scene: Scene, segmenter: Segmenter) -> "Machine":
        """Describe this machine."""
        network = f"{segmenter.name}: {segmenter.describe_engine()}"
        return cls(socket.gethostname(), provenance_of(segmenter, scene.regions), network)

    @classmethod
    def unfit(cls, cause: Exception) -> "Machine":
        """Say why this machine cannot make results."""
        return cls(socket.gethostname(), {}, "", str(cause))

    def require(self, recipe: Provenance) -> None:
        """Refuse this machine if it cannot make results, or would make others.

        Raises:
            ClusterError: it says how they differ.

        """
        if self.cause is not None:
            raise ClusterError(f"{self.name}: {self.cause}")
        if self.recipe != recipe:
            raise ClusterError(
                f"{self.name}: would make other results than the rest of the cluster "
                f"({differences(recipe, self.recipe)}); install the same versions on all machines, and name an "
                "--engine and a --precision that all of them have"
            )
