"""Networks on their way to other machines: by the bytes of their files, so that no machine needs to see the files."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carmask.runtime.engine import EngineName, Precision
from carmask.runtime.load import files_of, place_for
from carmask.runtime.locate import locate_all
from carmask.segmenter import Segmenter, Tta


@dataclass(frozen=True)
class How:
    """How networks are run, as `Segmenter.load` takes it."""

    engine: EngineName = "auto"
    device: str = "auto"
    precision: Precision = "auto"
    threads: int = 1
    tta: Tta = "none"
    tile: bool = False
    threshold: float | None = None


@dataclass(frozen=True)
class Networks:
    """Networks, each as the names and bytes of its files, and how they are run."""

    members: tuple[dict[str, bytes], ...]
    how: How

    @classmethod
    def read(cls, models: Sequence[str], how: How) -> "Networks":
        """Read the files of models, named as for `Segmenter.load`; none is the default.

        Raises:
            CarmaskError: there is no such model.

        """
        found = (place for model in models or (None,) for place in locate_all(model, exported=how.engine != "torch"))
        files = [files_of(place_for(place, how.engine)) for place in found]
        return cls(tuple({path.name: path.read_bytes() for path in paths} for paths in files), how)

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
            yield Segmenter.load(models, **vars(self.how))
