"""What the machines of a cluster are asked to do, and what each reports about itself before the work begins."""

import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from carmask.errors import CarmaskError
from carmask.imaging.masks import ALL_REGIONS, Regions
from carmask.limits import MAX_PIXELS_VARIABLE, max_pixels
from carmask.pipeline.provenance import Provenance, differences, provenance_of
from carmask.pipeline.urls import URL
from carmask.runtime.locate import files_of, locate, locate_all
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter


class ClusterError(CarmaskError):
    """A cluster cannot be used, or has failed."""


@dataclass(frozen=True)
class ClusterJob:
    """What all machines must agree on.

    networks: names and bytes of each network's files, which other machines need not see. options, keywords: for
    `Segmenter.load`. root: as in `PhotoList`. folder: the command's working folder, to which relative paths refer.
    max_pixels: how many pixels a photo may have.
    """

    networks: tuple[dict[str, bytes], ...]
    options: RunOptions
    keywords: dict[str, Any]
    regions: Regions
    root: Path | URL
    folder: str
    max_pixels: int

    @classmethod
    def plan(
        cls,
        models: Sequence[str],
        root: Path | URL,
        *,
        options: RunOptions = RunOptions(),
        regions: Regions = ALL_REGIONS,
        **keywords: Any,
    ) -> "ClusterJob":
        """Read the files of models; `options` and `keywords` are for `Segmenter.load`, with one thread as the default.

        Raises:
            CarmaskError: there is no such model.
        """
        found = (place for model in models or (None,) for place in locate_all(model, options.engine))
        files = [files_of(locate(place, options.engine)) for place in found]
        networks = tuple({path.name: path.read_bytes() for path in paths} for paths in files)
        options = replace(options, threads=options.threads or 1)
        return cls(networks, options, keywords, regions, root, str(Path.cwd()), max_pixels())

    @contextmanager
    def working_folder(self) -> Iterator[None]:
        """Change to the command's working folder for the block, so that paths in messages are those the user gave.

        From then on pictures may have as many pixels as the command allows.

        Raises:
            ClusterError: this machine does not have that folder, and the photos have relative paths.
        """
        os.environ[MAX_PIXELS_VARIABLE] = str(self.max_pixels)
        with ExitStack() as stack:
            try:
                stack.enter_context(chdir(self.folder))
            except OSError as error:
                if isinstance(self.root, Path) and not self.root.is_absolute():
                    raise ClusterError(
                        f"{self.folder}: cannot be used as working folder there ({error.strerror}); give absolute "
                        "paths of folders that all machines share"
                    ) from error
            yield

    def load(self) -> tuple[Segmenter, "MachineReport"]:
        """Return a segmenter, whose `Member.place` is gone, and this machine's report; call it in the working folder.

        Raises:
            CarmaskError: this machine does not see the photos, or cannot run the networks with these options.
        """
        if isinstance(self.root, Path) and not self.root.is_dir():
            raise ClusterError(f"{self.root.absolute()}: does not exist there; photos must lie in a shared folder")
        with tempfile.TemporaryDirectory(prefix="carmask-networks-", ignore_cleanup_errors=True) as folder:
            models = []
            for number, files in enumerate(self.networks):
                model = Path(folder, str(number))
                model.mkdir()
                for name, data in files.items():
                    (model / name).write_bytes(data)
                models.append(model if len(files) > 1 else model / next(iter(files)))
            segmenter = Segmenter.load(models, self.options, **self.keywords)
            return segmenter, report_of(segmenter, self.regions)


@dataclass(frozen=True)
class MachineReport:
    """How a machine would make results.

    network: networks and engine in words. cause: why it cannot make results, or None.
    """

    machine: str
    provenance: Provenance
    network: str
    cause: str | None = None

    def require(self, provenance: Provenance) -> None:
        """Check that this machine would make the same results.

        Raises:
            ClusterError: it cannot make results, or they would differ; the message says how.
        """
        if self.cause is not None:
            raise ClusterError(f"{self.machine}: {self.cause}")
        if self.provenance != provenance:
            raise ClusterError(
                f"{self.machine}: its results would differ from the rest of the cluster "
                f"({differences(provenance, self.provenance)}); install the same versions on all machines, and choose "
                "an --engine and a --precision that all of them have"
            )


def report_of(segmenter: Segmenter, regions: Regions) -> MachineReport:
    """Report how a segmenter makes results on this machine."""
    network = f"{segmenter.name}: {segmenter.describe_engine()}"
    return MachineReport(socket.gethostname(), provenance_of(segmenter, regions), network)


def report_machine(job: ClusterJob) -> MachineReport:
    """Report how this machine would make results, or why it cannot."""
    try:
        with job.working_folder():
            return job.load()[1]
    except CarmaskError as error:
        return MachineReport(socket.gethostname(), {}, "", str(error))
