import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from bright_network import bright_is_vehicle
from carmask import __version__
from carmask.cli import main
from carmask.cli.predict import predict

COMMANDS = (
    *("benchmark", "check", "convert", "evaluate", "export", "live", "model", "predict", "split", "studio", "submit"),
    *("train", "video"),
)
TINY_RUN = {
    "epochs": 2,
    "batch_size": 4,
    "network": {"widths": [8, 16]},
    "tensorboard": False,
    "input": {"height_px": 32, "width_px": 32},
    "optimizer": {"lr": 1e-3},
    "dataset": {"folds": 3},
    "hardware": {"device": "cpu", "precision": "float32", "threads": 1},
}


class CommandResult:
    """Exit status and output of a command, run in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        self.status = caught.value.code
        self.out, self.err = capsys.readouterr()

    def assert_error(self, *parts: str) -> None:
        assert self.status == 1
        assert self.err.startswith("error: ")
        assert "Traceback" not in self.err
        for part in parts:
            assert part in self.err


def python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_help_imports_no_heavy_package() -> None:
    program = (
        "import sys\n"
        "from carmask.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as done:\n"
        "    print('status', done.code)\n"
        "    heavy = {'torch', 'numpy', 'cv2', 'PIL', 'kornia', 'matplotlib', 'scipy'}\n"
        "    print('heavy', sorted(heavy & set(sys.modules)))\n"
    )
    done = python(program)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["status 0", "heavy []"]
    for command in COMMANDS:
        assert any(line.split()[1:2] == [command] for line in lines), command


def test_the_module_and_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "carmask", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __version__


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_a_limit_of_pixels(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = CommandResult(capsys, command, "--help")
    assert result.status == 0
    assert f"carmask {command}" in result.out
    assert result.out.count("--max-pixels INT") == 1


def test_the_help_of_a_command_is_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.__doc__
    assert predict.__doc__.splitlines()[0] in CommandResult(capsys, "predict", "--help").out


def test_a_limit_of_pixels_is_kept_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARMASK_MAX_PIXELS", "100000000")  # is put back afterwards
    photo, out = tmp_path / "car.jpg", tmp_path / "car.png"
    Image.new("RGB", (300, 200), "gray").save(photo)
    refused = CommandResult(capsys, "predict", photo, out, "--max-pixels", 59_999)
    assert (refused.status, out.exists()) == (2, False)
    assert "--max-pixels 60000" in refused.out
    assert CommandResult(capsys, "predict", "--max-pixels=60000", photo, out).status == 0
    with Image.open(out) as mask:
        assert mask.size == (300, 200)
    for wrong in ("many", "0", "-3"):
        CommandResult(capsys, "predict", photo, out, f"--max-pixels={wrong}").assert_error("--max-pixels", wrong)
    CommandResult(capsys, "predict", photo, out, "--max-pixels").assert_error("--max-pixels")
    program = "from carmask.imaging.decode import read_size; import sys; print(read_size(sys.argv[1]))"
    monkeypatch.setenv("CARMASK_MAX_PIXELS", "60000")
    assert python(program, photo).stdout == "(200, 300)\n"


def test_the_service_checks_a_limit_of_pixels_that_stands_before_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    monkeypatch.setenv("CARMASK_MAX_PIXELS", "100000000")  # is put back afterwards
    CommandResult(capsys, "--max-pixels", 10**12, "serve", "--port", "-1").assert_error("--work-mb", "--max-pixels")


def test_a_closed_pipe_is_no_error() -> None:
    # More is printed than a pipe holds.
    much = "del app['model']\napp.command(lambda: print('x' * 10**6), name='model')"
    program = f"from carmask.cli import app, main\n{much}\nmain(['model'])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == ""


def test_without_pytorch_the_error_names_the_extra() -> None:
    program = "import sys\nsys.modules['torch'] = None\nfrom carmask.cli import main\nmain(sys.argv[1:])\n"
    for arguments in (("train", "cars"), ("model", "deep")):
        done = python(program, *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "carmask[train]" in done.stderr
        assert "torch" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["trian", "train"]),
        (["--bogus"], ["--bogus"]),
        (["predict"], ["SOURCE", "carmask predict --help"]),
        (["convert", "masks"], ["DESTINATION", "carmask convert --help"]),
        (["predict", "nowhere", "out", "--backgroud", "white"], ["--backgroud: ", "--background?", "./--backgroud"]),
        (["train"], ["which photos?"]),
        (["check", "x" * 300], ["File name too long"]),
        (["evaluate", "nowhere", "--model", "x" * 300], ["nowhere"]),
        (["train", "nowhere"], ["nowhere", "does not exist"]),
        (["train", "nowhere", "small"], ["small: ", "carmask train --help"]),
        (["train", "nowhere", "--epoch", "3"], ["--epoch", "Did you mean --epochs?"]),
        (["train", "nowhere", "--optimiser.lr", "3"], ["Did you mean --optimizer.lr?"]),
        (["train", "nowhere", "--optimizer.lrr", "3"], ["Did you mean --optimizer.lr?"]),
        (["train", "nowhere", "--epochs", "0"], ["epochs"]),
        (["train", "nowhere", "--epochs", "many"], ["epochs", "many"]),
        (["train", "nowhere", "--optimizer.lr=-1"], ["optimizer.lr"]),
        (["train", "nowhere", "--dataset.fold", "5"], ["dataset.fold 5", "0 to 4"]),
        (["train", "nowhere", "--preset", "smal"], ["preset", "smal", "small"]),
        (["train", "nowhere", "--hardware.device", "cuda:99"], ["cuda:99"]),
        (["train", "nowhere", "--config", "nofile.yaml"], ["nofile.yaml"]),
        (["train", "--epochs", "3"], ["DATA"]),
        (["train", "--resume", "nowhere"], ["nowhere", "not the folder of a run"]),
        (["train", "nowhere", "--resume", "nowhere", "--seed", "1"], ["--resume"]),
        (["model", "nothing"], ["nothing", "small, classic, deep, fast"]),
        (["model", "small", "--bogus"], ["--bogus"]),
        (["predict", "nowhere", "out", "--model", "nomodel"], ["nowhere"]),
        (["predict", "nowhere", "out", "-m", "nomodel", "--batch-size", "0"], ['"0" for --batch-size', ">= 1"]),
        (["evaluate", "nowhere", "-m", "nomodel", "--batch-size", "-1"], ['"-1" for --batch-size', ">= 1"]),
        (["evaluate", "nowhere", "-m", "nomodel", "--worst", "-1"], ['"-1" for --worst']),
        (["evaluate", "nowhere", "-m", "nomodel"], ["nowhere"]),
        (["studio", "out", "--seed", "-1"], ["seed = -1"]),
        (["studio", "out", "--workers", "-1"], ["workers = -1"]),
        (["crops", "nowhere", "out", "--seed", "-1"], ['"-1" for --seed']),
        (["crops", "nowhere", "out", "--per-photo", "0"], ['"0" for --per-photo', ">= 1"]),
        (["export", "nowhere", "--size", "512xax768"], ["--size 512xax768"]),
        (["check", "[/red]\x1b[31m"], ["[/red]\\x1b[31m: "]),
        (["check", "nowhere"], ["nowhere"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_name_the_cause_and_write_nothing(
    arguments: list[str],
    parts: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CommandResult(capsys, *arguments)
    result.assert_error(*parts)
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_invalid_settings_are_an_error_before_anything_is_written(
    tiny: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("optimizer: {lrr: 1}\n")
    for arguments, part in (
        (["--batch-size", "0"], "batch_size"),
        (["--name", "../x"], "name"),
        (["--config", "c.yaml"], "did you mean 'optimizer.lr'?"),
        (["--dataset.split", "none.json"], "none.json"),
    ):
        CommandResult(capsys, "train", tiny, *arguments).assert_error(part)
        assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written_is_named(
    tiny: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    cache = ["--dataset.cache", tmp_path / "cache"]
    size = ["--input.height-px", "32", "--input.width-px", "32", "--batch-size", "4"]
    CommandResult(capsys, "train", tiny, "--dataset.cache", tmp_path / "file").assert_error("file")
    CommandResult(capsys, "train", tiny, *cache, *size, "--runs", tmp_path / "file").assert_error("file")


def test_model_prints_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    result = CommandResult(capsys, "model", "small")
    assert result.status == 0
    assert "2,066,497 parameters" in result.out


def test_studio_renders_into_the_current_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "set [red]"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("FORCE_COLOR", "1")
    request = ["--cars", 1, "--views", 2, "--height-px", 40, "--width-px", 60, "--workers", 1]
    result = CommandResult(capsys, "studio", ".", *request)
    assert result.status == 0
    assert "2 photos of 1 cars" in result.out
    assert "rendering" in result.err
    assert "rendering" not in result.out
    assert Path.cwd() == here
    assert len(list(Path("train").iterdir())) == len(list(Path("train_masks").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["set [red]"]
    again = CommandResult(capsys, "studio", here, *request)
    assert again.status == 0
    assert f"in {here}; 2 were there already" in again.out


def test_device_is_respected(tiny: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["evaluate", tiny, "-m", bright_is_vehicle(tmp_path / "net"), "--out", tmp_path / "out", "--worst", 0]
    CommandResult(capsys, *arguments, "--device", "cuda:99").assert_error("cuda:99")
    assert not (tmp_path / "out").exists()
    assert CommandResult(capsys, *arguments, "--device", "cpu").status == 0
    assert (tmp_path / "out" / "report.html").is_file()

    arguments = ["predict", tiny / "train" / "car0_01.jpg", tmp_path / "mask.png", "-m", tmp_path / "net"]
    CommandResult(capsys, *arguments, "--device", "cuda:99").assert_error("cuda:99")
    assert not (tmp_path / "mask.png").exists()
    result = CommandResult(capsys, *arguments, "--device", "cpu")
    assert result.status == 0
    assert "torch on cpu" in result.out


def test_options_override_the_config_file(tiny: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TINY_RUN))
    result = CommandResult(
        capsys, "train", tiny, "--config", tmp_path / "c.yaml", "--epochs", 1, "--optimizer.lr", 0.002,
        "--runs", tmp_path, "--name", "a", "--dataset.cache", tmp_path / "cache",
    )  # fmt: skip
    assert (result.status, result.err) == (0, "")
    written = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert (written["epochs"], written["optimizer"]["lr"]) == (1, 0.002)
    assert (written["batch_size"], written["input"]["width_px"], written["dataset"]["folds"]) == (4, 32, 3)
    # `model` shows the network of a run.
    assert "1 x 32 x 32" in CommandResult(capsys, "model", tmp_path / "a").out
    shutil.rmtree(tmp_path / "a")


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_ctrl_c_exits_130_and_resume_gives_the_same_weights(
    tiny: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**TINY_RUN, "epoch_samples": 240}))
    options = ["--config", tmp_path / "c.yaml", "--runs", tmp_path, "--dataset.cache", tmp_path / "cache"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert CommandResult(capsys, "train", tiny, *options, "--name", "whole").status == 0

    command = [sys.executable, "-m", "carmask", "train", str(tiny), *map(str, options), "--name", "stopped"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        give_up_s = time.monotonic() + 60
        while not (stopped / "metrics.csv").exists() and time.monotonic() < give_up_s:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert "carmask train --resume" in out
    assert len((stopped / "metrics.csv").read_text().splitlines()) < 3

    result = CommandResult(capsys, "train", "--resume", stopped)
    assert (result.status, result.err) == (0, "")
    epochs = [line.split(",")[0] for line in (stopped / "metrics.csv").read_text().splitlines()]
    assert epochs == ["epoch", "1", "2"]
    for which in ("last", "best"):
        one, other = (load_file(run / "weights" / which / "model.safetensors") for run in (whole, stopped))
        assert one.keys() == other.keys()
        assert all((one[name] == other[name]).all() for name in one)
    for run in (whole, stopped):
        shutil.rmtree(run)
