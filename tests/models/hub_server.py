"""A Hub on this machine: as much of its HTTP interface as pushing and pulling take, with a folder behind it."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

LICENSES = {"mit", "apache-2.0", "bsd-3-clause", "cc0-1.0", "other", "unknown"}
DATA_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class LocalHub(ThreadingHTTPServer):
    """Keeps what is pushed in `root`/owner/name, always the latest; `asked` lists the requests."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def repository(self, name: str) -> Path:
        return self.root / name

    def large_file(self, oid: str) -> Path:
        return self.root / ".large" / oid

    def commit_of(self, name: str) -> str:
        """Forty hex digits that change with the content."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path in sorted(self.repository(name).rglob("*")):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


@contextmanager
def local_hub(root: Path) -> Iterator[LocalHub]:
    with LocalHub(root) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()


def complaints(card: str) -> list[str]:
    """What is wrong with a card's front matter, by the Hub's modelcard.md: without a look at huggingface_hub."""
    opening, front, _ = card.split("---\n", 2)
    data = yaml.safe_load(front)
    found = ["no front matter"] * bool(opening)
    found += [f"license {data.get('license')}"] * ("license" in data and data["license"] not in LICENSES)
    found += [f"datasets {one}" for one in data.get("datasets", []) if not DATA_ID.fullmatch(one)]
    for index in data.get("model-index", []):
        found += ["no name"] * (not isinstance(index["name"], str))
        for result in index["results"]:
            found += ["no task type"] * ("type" not in result["task"])
            found += ["no data name"] * ("name" not in result["dataset"])
            found += ["data type"] * (not DATA_ID.fullmatch(result["dataset"]["type"]))
            found += ["no metrics"] * (not result["metrics"])
            found += ["metric"] * any("type" not in metric or "value" not in metric for metric in result["metrics"])
    return found


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        path, body = self._path(), self._body()
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            self.server.repository(name).mkdir(parents=True, exist_ok=True)
            self._answer({"url": f"{self.server.url}/{name}", "id": name})
        elif path == "/api/validate-yaml":
            errors = [{"message": text} for text in complaints(json.loads(body)["content"])]
            self._answer({"errors": errors, "warnings": []}, 400 if errors else 200)
        elif re.fullmatch(r"/api/models/.+/preupload/main", path):
            modes = {True: "lfs", False: "regular"}
            files = [
                {
                    "path": file["path"],
                    "uploadMode": modes[file["path"].endswith(".safetensors")],
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/large/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._answer({"error": path}, 404)

    def do_PUT(self) -> None:
        path, body = self._path(), self._body()
        oid = path.removeprefix("/large/")
        if hashlib.sha256(body).hexdigest() != oid:
            self._answer({"error": "other bytes than were announced"}, 400)
            return
        place = self.server.large_file(oid)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(body)
        self._answer({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._path()
        found = re.fullmatch(r"/(?P<name>[^/]+/[^/]+)/resolve/[^/]+/(?P<file>.+)", path)
        place = self.server.repository(found["name"]) / found["file"] if found else None
        if place is None or not place.is_file():
            code = "EntryNotFound" if found and self.server.repository(found["name"]).is_dir() else "RepoNotFound"
            self._answer({"error": path}, 404, {"X-Error-Code": code})
            return
        data = place.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": self.server.commit_of(found["name"]),
        }
        self._send(data, 200, headers)

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            place = self.server.repository(name) / line["value"].get("path", "")
            if line["key"] == "file":
                place.write_bytes(base64.b64decode(line["value"]["content"]))
            elif line["key"] == "lfsFile":
                place.write_bytes(self.server.large_file(line["value"]["oid"]).read_bytes())
        commit = self.server.commit_of(name)
        self._answer({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})

    def _path(self) -> str:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        return path

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
