"""A stand-in of W&B's server: it answers what W&B's own client asks, and keeps what it was sent."""

import http.server
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = {"id": "p", "name": "hspace", "entityName": "me", "entity": {"id": "e", "name": "me"}}
NO_MORE = {"hasNextPage": False, "endCursor": None}


class Standin:
    """What the server was sent and what it answers.

    Attributes:
        address: Where it listens.
        operations: Names and variables of what was asked for by GraphQL, in order.
        files: Contents of the files that were uploaded, by name.
        history: Points of the curves that were streamed, in order.
        sweep: Configuration that agents of a sweep are given, in YAML.
        commands: What the next agent is told to do.
        projects: Whether the projects that are asked for are there.
        runs: Finished runs, as W&B's client reads them.
    """

    def __init__(self) -> None:
        """Starts with nothing sent."""
        self.address = ""
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, bytes] = {}
        self.history: list[dict[str, Any]] = []
        self.sweep = ""
        self.commands: list[dict[str, Any]] = []
        self.projects = True
        self.runs: list[dict[str, Any]] = []

    def sent(self, operation: str) -> list[dict[str, Any]]:
        """The variables of each call of an operation."""
        return [variables for name, variables in self.operations if name == operation]

    def answer(self, query: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The data that answers a query or mutation."""
        found = re.search(r"(?:query|mutation) (\w+)", query)
        assert found, query
        name = found[1]
        self.operations.append((name, asked))
        match name:
            case "Viewer" | "GetDefaultEntity":
                user = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
                return {"viewer": user}
            case "ProjectInternalId":
                return {"project": {"id": "p", "internalId": "p"} if self.projects else None}
            case "GetProjects":
                return {"models": {"edges": [], "pageInfo": NO_MORE}}
            case "CreateProject":
                return {"result": {"project": PROJECT, "model": PROJECT, "inserted": True}}
            case "UpsertView2" | "upsertView":
                place = {"id": "p", "name": asked["projectName"], "entityName": asked["entityName"]}
                view = {**asked, "id": "VmlldzoxMjM=", "project": place, "updatedAt": "2026-01-01T00:00:00Z"}
                return {"upsertView": {"view": view, "inserted": True}}
            case "UpsertSweep":
                self.sweep = asked["config"]
                sweep = {"name": "sweep-id", "project": PROJECT}
                return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}
            case "SweepWithRuns":
                return {"project": {"sweep": {"id": "s", "config": self.sweep, "runs": {"edges": []}}}}
            case "CreateAgent":
                return {"createAgent": {"agent": {"id": "agent"}}}
            case "Heartbeat":
                told, self.commands = self.commands, []
                return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(told)}}
            case "RunResumeStatus":
                return {"model": None}
            case "UpsertBucket":
                run = {"id": "b", "name": asked["name"], "displayName": asked["displayName"] or "", "project": PROJECT}
                return {"upsertBucket": {"bucket": {**run, "config": asked["config"], "historyLineCount": 0}}}
            case "ArtifactType":
                return {"project": {"artifact": None}}
            case "CreateArtifact":
                made = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
                return {"createArtifact": {"artifact": made}}
            case "CreateRunFiles":
                places = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in asked["files"]]
                return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": places}}
            case "Runs":
                edges = [{"node": run, "cursor": "c"} for run in self.runs]
                return {
                    "project": {
                        "internalId": "p",
                        "runCount": len(edges),
                        "runs": {"edges": edges, "pageInfo": NO_MORE},
                    }
                }
            case "Run":
                return {"project": {"run": next(run for run in self.runs if run["name"] == asked["name"])}}
            case _:
                return {}


@contextmanager
def listening(standin: Standin) -> Iterator[Standin]:
    """Serves on a free port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer: dict[str, Any] = {}
            if self.path == "/graphql":
                asked = json.loads(body)
                answer = {"data": standin.answer(asked["query"], asked.get("variables") or {})}
            elif self.path.startswith("/upload/"):
                standin.files[self.path.removeprefix("/upload/")] = body
            elif self.path.endswith("/file_stream"):
                lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
                standin.history += map(json.loads, lines)
            said = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_PUT = do_POST

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        standin.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield standin
        server.shutdown()


def logged_in(standin: Standin, home: Path) -> dict[str, str]:
    """Variables of the environment of a process that has a key of the stand-in, and nothing else of the user's W&B."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    here = {"NETRC": str(home / "none"), "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    return env | here | {"WANDB_BASE_URL": standin.address, "WANDB_API_KEY": "a" * 40}
