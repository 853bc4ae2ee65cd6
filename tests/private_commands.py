"""What tests/test_privacy.py watches: `python private_commands.py FOLDER GROUP` runs commands, without a network.

They share one process, because starting it and importing torch under strace takes longer than the commands.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

from carmask.cli import main
from carmask.files import atomic_write

SETTINGS = """
preset: fast
epochs: 1
epoch_samples: 8
batch_size: 4
network: {widths: [4, 8]}
input: {height_px: 32, width_px: 32}
dataset: {folds: 3}
hardware: {device: cpu, threads: 1}
"""


def start_loopback() -> None:
    """Switch on the loopback device of a new network namespace; the `ip` command is not everywhere."""
    set_flags, up = 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh", b"lo", up) + bytes(22))


def carmask(*arguments: object) -> None:
    """Run a command in this process."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        if exit_.code:
            raise


def serve(photo: bytes) -> None:
    """Run the service, in a home folder that does not exist, and send it a few requests."""
    command = [sys.executable, "-m", "carmask", "serve", "--port", "0", "--model", "tiny.onnx"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HOME": "/nonexistent"})
    assert process.stdout is not None
    line = next(line for line in process.stdout if "http://" in line)
    port = int(line.partition("http://")[2].partition(":")[2].split("/")[0].split()[0])
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + photo + b"\r\n--x--\r\n"
    asked = [("GET", "/", b""), ("GET", "/healthz", b""), ("GET", "/metrics", b""), ("POST", "/v1/segment", form)]
    for method, path, body in asked:
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request(method, path, body, {"Content-Type": "multipart/form-data; boundary=x"} if body else {})
        answer = connection.getresponse()
        assert answer.status == 200, (path, answer.status, answer.read())
        answer.read()
        connection.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def run_most() -> None:
    """Run everything but the cluster."""
    carmask("studio", "data", "--cars", 4, "--views", 4, "--height-px", 60, "--width-px", 90)
    photo = min(Path("data/train").glob("*.jpg"))
    carmask("check", "data")
    with atomic_write("tiny.yaml") as file:
        file.write(SETTINGS.encode())
    carmask("train", "data", "--config", "tiny.yaml", "--name", "tiny")
    carmask("evaluate", "data", "--model", "runs/tiny", "--out", "report")
    carmask("export", "runs/tiny", "--out", "tiny.onnx")
    for engine in ("openvino", "onnxruntime", "torch"):
        model = "runs/tiny" if engine == "torch" else "tiny.onnx"
        carmask("predict", "data/train", f"masks-{engine}", "--model", model, "--engine", engine)
    carmask("predict", "data/train", "masks.parquet", "--model", "tiny.onnx")
    carmask("convert", "data/train_masks", "masks.csv")
    carmask("benchmark", "data/train", "--model", "tiny.onnx", "--count", 4, "--seconds", 0.05, "-k", "mask")
    if Path("clip.mp4").exists():
        carmask("video", "clip.mp4", "out.mp4", "--model", "tiny.onnx")
    serve(photo.read_bytes())


def run_cluster() -> None:
    """Run photos through a cluster that the command starts."""
    carmask("studio", "data", "--cars", 1, "--views", 4, "--height-px", 60, "--width-px", 90)
    carmask("predict", "data/train", "masks", "--model", "small", "--engine", "onnxruntime", "--cluster", "auto")


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    start_loopback()
    {"most": run_most, "cluster": run_cluster}[sys.argv[2]]()
