"""Nothing leaves the machine, and nothing is written but outputs, the command's cache and temporary files.

Every command runs in a network namespace of its own, which has only a loopback device, under strace.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

import pytest

from carmask.privacy import fonts_in_temporary_folder

STRACE = shutil.which("strace")
# `network` also has the calls that send without connecting before.
TRACED = "network,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat"
DNS_PORT = 53
# Of the kernel, and shared memory, which Ray's workers and Python's processes use.
SYSTEM = re.compile(r"/dev/|/proc/(self|thread-self|\d+)/|/sys/fs/cgroup/")

_CALL = re.compile(r"^\d+ +(?P<name>\w+)\((?P<arguments>.*)")
_ADDRESS = re.compile(
    r"sa_family=AF_INET6?, sin6?_port=htons\((?P<port>\d+)\).*?"
    r"(?:inet_addr\(|inet_pton\(AF_INET6, )\"(?P<host>[^\"]+)\""
)
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SENDING = {"connect", "sendto", "sendmsg", "sendmmsg"}
_WRITING = {"creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat"}


@dataclass(frozen=True)
class Trace:
    """What strace wrote of a process and its children."""

    lines: list[str]

    def calls(self) -> Iterator[tuple[str, str]]:
        for line in self.lines:
            if match := _CALL.match(line):
                yield match["name"], match["arguments"]

    def sent_elsewhere(self) -> list[str]:
        """Connections and packets to anything but this machine, and questions to a name server, even if it is here."""
        found = []
        for name, arguments in self.calls():
            if name in _SENDING:
                for address in _ADDRESS.finditer(arguments):
                    host = ip_address(address["host"].removeprefix("::ffff:"))
                    if not (host.is_loopback or host.is_unspecified) or int(address["port"]) == DNS_PORT:
                        found.append(f"{name}({arguments}")
        return found

    def written_elsewhere(self, *allowed: str) -> list[str]:
        """Files and folders outside these that were written to, or that it was tried to write to."""
        found = []
        for name, arguments in self.calls():
            writes = name in _WRITING or re.search(r"O_WRONLY|O_RDWR|O_CREAT", arguments)
            if not writes or name in _SENDING or arguments.rstrip().endswith(" = 0x0"):
                continue
            found += [
                f"{name}({arguments}"
                for path in _PATH.findall(arguments)
                if path.startswith("/") and not f"{path}/".startswith(allowed) and not SYSTEM.match(path)
            ]
        return found


def trace(folder: Path, group: str, **environment: str) -> Trace:
    """Run a group of commands in a folder; what it did."""
    if STRACE is None:
        pytest.skip("needs strace: apt-get install strace")
    log = folder.parent / "strace.txt"
    alone = ["unshare", "--net"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not create a network namespace")
    watch = [STRACE, "-f", "-qq", "-s", "300", "--seccomp-bpf", "-e", f"trace={TRACED}", "-o", str(log)]
    if subprocess.run([*watch, "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not trace processes")
    command = [sys.executable, str(Path(__file__).with_name("private_commands.py")), str(folder), group]
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG")}
    variables = {**kept, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder / "tmp"), **environment}
    done = subprocess.run([*alone, *watch, *command], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Trace(log.read_text(errors="replace").splitlines())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder; nothing may be written beside it."""
    (tmp_path / "work" / "tmp").mkdir(parents=True)
    return tmp_path / "work"


def test_no_command_sends_anything_or_writes_at_home(folder: Path) -> None:
    try:
        from video.clips import make_clip

        make_clip(folder / "clip.mp4")
    except ImportError:  # PyAV is not installed
        pass
    # In /proc nobody can create a file.
    seen = trace(folder, "most", HOME="/proc")
    assert any("masks-openvino" in line for line in seen.lines)
    assert seen.sent_elsewhere() == []
    assert seen.written_elsewhere(f"{folder}/") == []


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'carmask[cluster]'")
def test_a_cluster_on_this_machine_sends_nothing_and_writes_nothing_at_home(folder: Path) -> None:
    # One worker, however many cores there are.
    seen = trace(folder, "cluster", RAY_OVERRIDE_RESOURCES='{"CPU": 1}', RAY_worker_niceness="0")
    assert seen.sent_elsewhere() == []
    assert seen.written_elsewhere(f"{folder}/", "/tmp/") == []  # noqa: S108 - Ray's files need short names


def test_fonts_are_listed_where_the_user_says_or_in_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_there() -> bool:
        with fonts_in_temporary_folder():
            return os.environ.get("MPLCONFIGDIR", "").startswith(str(tmp_path / "carmask-fonts"))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("MPLCONFIGDIR", "mine")
    assert not is_there()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("MPLCONFIGDIR")
    assert is_there()
    assert "MPLCONFIGDIR" not in os.environ
    # As in a container in which nothing can be written.
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    assert not is_there()


def test_what_a_package_would_send_is_noticed(folder: Path) -> None:
    lines = [
        '7 connect(6, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0',
        '7 connect(6, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
        '7 sendto(6, "x", 1, 0, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), '
        'inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28 <unfinished ...>',
        '7 openat(AT_FDCWD, "/root/intel/id", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = -1 EACCES',
        '7 openat(AT_FDCWD, "/usr/lib/x.so", O_RDONLY|O_CLOEXEC) = 3',
        f'7 mkdir("{folder}/out", 0777) = 0',
    ]
    assert Trace(lines).sent_elsewhere() == [line[2:] for line in (lines[0], lines[2])]
    assert Trace(lines).written_elsewhere(f"{folder}/") == [lines[3][2:]]
