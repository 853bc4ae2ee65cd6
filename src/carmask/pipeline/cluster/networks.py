"""Networks on their way to other machines: by the bytes of their files, so that no machine needs to see the files."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from carmask.runtime.load import files_of, place_for
from carmask.runtime.locate import locate_all
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter, Tta


@dataclass(frozen=True)
class Networks:
    """Networks, each as the names and bytes of its files, and how they run, as `Segmenter.load` takes it."""

    members: tuple[dict[str, bytes], ...]
    options: RunOptions
    tta: Tta = "none"
    tile: bool = False
    threshold: float | None = None

    @classmethod
    def read(
        cls,
        models: Sequence[str],
        options: RunOptions = RunOptions(),
        *,
        tta: Tta = "none",
        tile: bool = False,
        threshold: float | None = None,
    ) -> "Networks":
        """Read the files of models, named as for `Segmenter.load`; none is the default.

        They run on one thread each unless `options` names a number.

        Raises:
            CarmaskError: there is no such model.

        """
        found = (
            place for model in models or (None,) for place in locate_all(model, exported=options.engine != "torch")
        )
        files = [files_of(place_for(place, options.engine)) for place in found]
        members = tuple({path.name: path.read_bytes() for path in paths} for paths in files)
        return cls(members, replace(options, threads=options.threads or 1), tta, tile, threshold)

    @contextmanager
    def loaded(self) -> Iterator[Segmenter]:
        """Load them. The files that they are loaded from are there only inside the block.

        Raises:
            CarmaskError: what was asked for cannot be had on this machine.

        """
        with tempfile.TemporaryDirectory(prefix="carmask-networks-", ignore_cleanup_errors=True) as folder:
            models = []
            for number, files in enumerate(self.members):
                member = Path(folder, str(number))
                member.mkdir()
                for name, data in files.items():
                    (member / name).write_bytes(data)
                models.append(member if len(files) > 1 else member / next(iter(files)))
            yield Segmenter.load(models, self.options, tta=self.tta, tile=self.tile, threshold=self.threshold)
