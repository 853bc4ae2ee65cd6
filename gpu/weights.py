"""Carry a network's weights home in files of a limited size.

    python gpu/weights.py split runs/classic out --max-mib 15    # out/classic.json, out/classic-1.bin, ...
    python gpu/weights.py join out/classic.json weights/classic  # a folder of weights, for `carmask evaluate --model`

The files are consecutive parts of one compressed safetensors file, with the SHA-256 of each in the JSON file. Kernels
are stored in float16; biases and BatchNorm's statistics, which are few, stay in float32.
"""

import argparse
import hashlib
import json
import sys
import zlib
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from carmask.errors import CarmaskError, first_line
from carmask.files import write_bytes_atomically
from carmask.models.card import ModelCard
from carmask.models.network import Network


def main() -> None:
    """Split or join."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("split", "join"))
    parser.add_argument("source", type=Path, help="split: a run or a folder of weights; join: the JSON file")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--max-mib", type=float, default=15, help="largest size of a file")
    arguments = parser.parse_args()
    try:
        if arguments.action == "split":
            name = arguments.source.resolve().name
            for path in split(Network.load(arguments.source), arguments.out, name, int(arguments.max_mib * 2**20)):
                print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")
        else:
            join(arguments.source).save_pretrained(arguments.out)
            print(f"written to {arguments.out}; measure with `carmask evaluate DATA --model {arguments.out}`")
    except CarmaskError as error:
        sys.exit(str(error))


def split(network: Network, out: Path, name: str, limit_bytes: int) -> list[Path]:
    """Write a network to files named `name`. Returns their paths, that of the JSON file first."""
    tensors = {key: value.half() if value.ndim > 1 else value for key, value in network.state_dict().items()}
    # The exponents leave an eighth to save, and a higher level saves no more.
    content = zlib.compress(save({key: value.contiguous() for key, value in tensors.items()}), 1)
    parts = {
        f"{name}-{number}.bin": content[start : start + limit_bytes]
        for number, start in enumerate(range(0, len(content), limit_bytes), 1)
    }
    index = {
        "card": network.card.model_dump(mode="json", exclude_none=True),
        "sha256": {file: hashlib.sha256(part).hexdigest() for file, part in parts.items()},
    }
    files = {f"{name}.json": json.dumps(index, indent=1).encode(), **parts}
    for file, part in files.items():
        write_bytes_atomically(out / file, part)
    return [out / file for file in files]


def join(index: Path) -> Network:
    """Read what `split` wrote, in float32.

    Raises:
        CarmaskError: a file is missing or damaged.
    """
    try:
        described = json.loads(index.read_bytes())
        parts = {file: (index.parent / file).read_bytes() for file in described["sha256"]}
        for file, sha256 in described["sha256"].items():
            if hashlib.sha256(parts[file]).hexdigest() != sha256:
                raise CarmaskError(f"{index.parent / file}: damaged (SHA-256 differs); copy it again")
        network = Network(ModelCard.model_validate(described["card"]))
        tensors = load(zlib.decompress(b"".join(parts.values())))
        network.load_state_dict(
            {key: value.float() if value.dtype == torch.float16 else value for key, value in tensors.items()}
        )
    except OSError as error:
        raise CarmaskError(f"{error.filename}: cannot be read ({error.strerror}); copy it again") from error
    except (ValueError, KeyError, TypeError, RuntimeError, ValidationError, SafetensorError, zlib.error) as error:
        raise CarmaskError(f"{index}: not written by `weights.py split` ({first_line(error)})") from error
    return network.eval()


if __name__ == "__main__":
    main()
