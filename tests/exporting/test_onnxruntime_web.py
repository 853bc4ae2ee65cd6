"""A file of one size in onnxruntime-web, which browsers and node run, against onnxruntime."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from test_graph import SHAPES

from carmask.exporting.fixed import build_fixed_graph, to_fixed_file
from carmask.imaging.geometry import Geometry
from carmask.models.card import ModelCard
from carmask.models.network import Network

# Where .ci/run installs it: npm install --prefix .venv/node onnxruntime-web
PACKAGES = Path(__file__).parents[2] / ".venv" / "node" / "node_modules"
PROGRAM = """
const fs = require("fs"), ort = require("onnxruntime-web");
const [model, type, shape, input, output] = process.argv.slice(1);
(async () => {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(fs.readFileSync(model), {executionProviders: ["wasm"]});
  const bytes = fs.readFileSync(input), dims = JSON.parse(shape);
  const values = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const data = type === "uint8" ? new Uint8Array(values) : new Float32Array(values);
  const result = await session.run({[session.inputNames[0]]: new ort.Tensor(type, data, dims)});
  const found = (await result[session.outputNames[0]].getData());
  fs.writeFileSync(output, Buffer.from(found.buffer, found.byteOffset, found.byteLength));
})().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is absent")
@pytest.mark.skipif(not (PACKAGES / "onnxruntime-web").exists(), reason=f"onnxruntime-web is not in {PACKAGES}")
def test_onnxruntime_web_computes_what_onnxruntime_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    card = ModelCard(name="random", unet=SHAPES["like fast"], geometry=Geometry(height_px=64, width_px=96))
    model = tmp_path / "fixed.onnx"
    model.write_bytes(to_fixed_file(build_fixed_graph(Network(card).eval(), 1), card, 1))
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (described,) = session.get_inputs()
    type_name = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}[described.type]
    scale = 1 if type_name == "uint8" else 1 / 255
    image = np.random.default_rng(0).integers(0, 256, described.shape) * scale
    image = image.astype(type_name)
    (expected,) = session.run(None, {described.name: image})
    (tmp_path / "input").write_bytes(image.tobytes())
    # In the folder of the packages, where node looks for them.
    command = ["node", "-e", PROGRAM, "--", str(model), type_name, json.dumps(described.shape)]
    done = subprocess.run(
        [*command, tmp_path / "input", tmp_path / "output"],
        cwd=PACKAGES.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = np.frombuffer((tmp_path / "output").read_bytes(), np.float32).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert expected.std() > 0.001
