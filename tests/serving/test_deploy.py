"""The files of deploy/ and the Dockerfile's limits, as far as they can be shown without the systems they are for."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from service_process import Service

from carmask.cli import app
from carmask.serving.settings import MB, ServiceLimits

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OWN_MB = 300
NGINX_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "K": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "G": 2**30, "M": 2**20}


def size(text: str) -> float:
    """Bytes of a limit, read as the smaller where systems differ."""
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def containers() -> Iterator[tuple[str, list[str], float, float]]:
    """Of each way to run the service: its name, options, limit of memory in bytes, and seconds until it is killed."""
    unit = dict(line.split("=", 1) for line in (DEPLOY / "carmask@.service").read_text().splitlines() if "=" in line)
    words = shlex.split(unit["ExecStart"].replace("%i", "8001"))
    yield "systemd", words[words.index("serve") + 1 :], size(unit["MemoryMax"]), float(unit["TimeoutStopSec"])
    for name, one in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        if name != "proxy":
            options = [*one["entrypoint"][2:], *one["command"]]
            yield name, options, size(one["mem_limit"]), float(one["stop_grace_period"].removesuffix("s"))
    deployment = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = deployment["containers"]
    kill_s = deployment["terminationGracePeriodSeconds"] - float(
        container["lifecycle"]["preStop"]["exec"]["command"][1]
    )
    yield "kubernetes", container["args"], size(container["resources"]["limits"]["memory"]), kill_s


def manifests() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


@pytest.mark.parametrize(
    ("name", "options", "memory_bytes", "kill_s"), list(containers()), ids=lambda value: str(value)[:9]
)
def test_limits_match_those_of_the_service(name: str, options: list[str], memory_bytes: float, kill_s: float) -> None:
    called, bound, _ = app.parse_args(["serve", *options], exit_on_error=False, print_error=False)
    assert called.__name__ == "serve", name
    limits = bound.arguments.get("limits", ServiceLimits())
    assert memory_bytes >= (OWN_MB + limits.uploads_mb + limits.work_mb) * MB
    assert kill_s > limits.shutdown_s


def test_nginx_lets_through_what_the_service_takes() -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    (most,) = re.findall(r"client_max_body_size (\w+);", text)
    assert ServiceLimits().max_bytes < size(most)
    (idle_s,) = re.findall(r"keepalive_timeout (\d+)s;", text)
    assert int(idle_s) < ServiceLimits().keep_alive_s


def test_compose_puts_the_processes_where_nginx_looks() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    proxy = services.pop("proxy")
    (mounted,) = proxy["volumes"]
    assert (DEPLOY / mounted.partition(":")[0]).is_file()
    asked = set(re.findall(r"server 127\.0\.0\.1:(\d+) ", (DEPLOY / "nginx.conf").read_text()))
    assert asked == {one["entrypoint"][one["entrypoint"].index("--port") + 1] for one in services.values()}
    for one in services.values():
        port = one["entrypoint"][one["entrypoint"].index("--port") + 1]
        assert f"127.0.0.1:{port}/readyz" in one["healthcheck"]["test"][-1]
        assert one["network_mode"] == "service:proxy"
    # Docker's client reads the file without its server, where it has the plugin.
    compose = ["docker", "compose"]
    if (
        shutil.which("docker")
        and not subprocess.run([*compose, "version"], capture_output=True, check=False).returncode
    ):
        subprocess.run([*compose, "-f", DEPLOY / "compose.yaml", "config", "--quiet"], check=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is absent (Debian: systemd)")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("carmask")
    text = (DEPLOY / "carmask@.service").read_text()
    for name in ("carmask@.service", "carmask@8001.service"):
        (tmp_path / name).write_text(text.replace("/opt/carmask/bin/carmask", str(program)))
    command = ["systemd-analyze", "verify", "--recursive-errors=no", tmp_path / "carmask@8001.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(find_spec("kubernetes_validate") is None, reason="kubernetes-validate is not installed")
def test_the_manifests_follow_kubernetes_schema() -> None:
    import kubernetes_validate

    version = kubernetes_validate.latest_version()
    for manifest in manifests().values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_manifests_belong_together() -> None:
    found = manifests()
    pod = found["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    assert found["Service"]["spec"]["selector"].items() <= labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels
    assert found["Service"]["spec"]["ports"][0]["targetPort"] in {port["name"] for port in container["ports"]}
    user = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    security = pod["spec"]["securityContext"]
    assert user == [(str(security["runAsUser"]), str(security["runAsGroup"]))]


def test_metrics_have_names_as_prometheus_wants_them(service: Service) -> None:
    text = service.get("/metrics").body.decode()
    families = list(text_string_to_metric_families(text))
    assert families
    for family in families:
        assert family.name.startswith(("carmask_", "process_"))
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", family.name)
        assert family.documentation
        assert not re.search(r"_(ms|milliseconds|mb|kb|megabytes|percent|counter|gauge|histogram)\b", family.name)
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_photos", "_bytes"))
        assert (family.type == "counter") == (f"# TYPE {family.name}_total counter" in text)


def test_the_dashboard_names_only_metrics_that_exist(service: Service, photo: Path) -> None:
    service.segment(photo)
    service.segment(b"no photo")
    families = list(text_string_to_metric_families(service.get("/metrics").body.decode()))
    labels: dict[str, set[str]] = {}
    for family in families:
        labels[family.name + ("_total" if family.type == "counter" else "")] = set()
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    used = set()
    for query in queries:
        names = re.findall(r"\b(?:carmask|process)_\w+", query)
        assert names, query
        used.update(names)
        for name in names:
            assert name in labels, query
        for grouped in re.findall(r"by \(([^)]*)\)", query):
            known = set.union(*(labels[name] for name in names))
            assert set(grouped.split(", ")) <= known, query
    shown = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in used}
    own = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert {name for name in own if name.startswith("carmask_") and not name.endswith("_created")} <= shown, (
        "a metric that the dashboard does not show"
    )
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.skipif(
    shutil.which("nginx", path=NGINX_PATH) is None,
    reason="nginx is absent (Debian: nginx-light)",
)
def test_no_request_is_lost_while_processes_are_restarted(bright: Path, photo: Path) -> None:
    options = ["--requests", "100", "--restarts", "2", "--clients", "4", "--no-record"]
    command = [sys.executable, ROOT / "benchmarks" / "rolling_restart.py", photo, *options, "--", "-m", bright]
    command += ["--engine", "onnxruntime", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
