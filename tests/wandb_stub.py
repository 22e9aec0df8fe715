"""A server that speaks as much of W&B's protocol as runs, sweeps, agents and `wandb.Api()` need, on the loopback alone.

The protocol is private to W&B and changes: what a new wandb asks for and this does not know is refused and listed in `unhandled`,
and `Stub.__exit__` then fails with that list. It searches nothing: a sweep is the grid over its parameters.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import wandb
import yaml

ENTITY = "stub"
KEY = "local-" + "0123456789" * 4
NOW = "2026-01-01T00:00:00Z"


@dataclass
class Run:
    """What the server knows of a run."""

    id: str
    project: str
    display: str
    sweep: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"
    exitcode: int | None = None
    preempting: bool = False
    stop_sent: float | None = None

    @property
    def tree(self) -> dict[str, Any]:
        """The configuration without what W&B notes for itself."""
        return {key: part["value"] for key, part in self.config.items() if key != "_wandb"}

    def node(self) -> dict[str, Any]:
        """As GraphQL returns it."""
        keys = {key: {"typeCounts": [{"type": "number", "count": 1}]} for row in self.history for key in row}
        last = max((row.get("_step", 0) for row in self.history), default=0)
        return {
            **{"id": self.id, "name": self.id, "displayName": self.display, "sweepName": self.sweep, "group": self.group},
            **{"project": project(self.project), "projectId": 1, "tags": self.tags, "state": self.state, "jobType": None},
            **{"config": json.dumps(self.config), "summaryMetrics": json.dumps(self.summary), "systemMetrics": "{}"},
            **{"historyLineCount": len(self.history), "eventsLineCount": 0, "logLineCount": 0, "historyKeys": {"keys": keys}},
            **{"commit": None, "readOnly": False, "description": None, "notes": None, "createdAt": NOW, "heartbeatAt": NOW},
            **{"user": {"name": ENTITY, "username": ENTITY}, "exitcode": self.exitcode, "stopped": False, "running": False},
            **{"shouldStop": False, "failed": False, "historyTail": "[]", "eventsTail": "[]", "wandbConfig": "{}"},
        } | {"historyKeys": {"keys": keys, "lastStep": last, "sets": []}}


@dataclass
class Sweep:
    """A sweep, its trials that are still to come, and the commands that wait for agents."""

    id: str
    project: str
    config: str
    trials: list[dict[str, Any]]
    state: str = "RUNNING"
    given: list[str] = field(default_factory=list)

    def node(self, runs: list[Run]) -> dict[str, Any]:
        """As GraphQL returns it."""
        return {
            **{"__typename": "Sweep", "id": self.id, "name": self.id, "displayName": None, "method": "grid", "state": self.state},
            **{"description": None, "bestLoss": None, "config": self.config, "createdAt": NOW, "updatedAt": NOW},
            **{"runCount": len(runs), "runCountExpected": None, "project": project(self.project), "heartbeatAt": NOW},
            **{"earlyStopJobRunning": False, "controller": None, "scheduler": None},
            "runs": {"edges": [{"node": run.node() | {"sampledHistory": [run.history]}} for run in runs]},
        }


def project(name: str) -> dict[str, Any]:
    """A project as GraphQL returns it."""
    return {"id": name, "name": name, "internalId": "1", "readOnly": False, "entity": {"id": ENTITY, "name": ENTITY}}


class Stub:
    """The server; a context manager.

    Args:
        failing: An HTTP status that answers everything, or ``silent`` for no answer at all.
    """

    def __init__(self, failing: int | str | None = None) -> None:
        self.failing = failing
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, Sweep] = {}
        self.stops: set[str] = set()
        self.seen: list[str] = []
        self.unhandled: list[str] = []
        self._lock, self._closed = threading.RLock(), threading.Event()
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """Variables for a process that shall use it, with a home folder of its own."""
        proxies = {name: "" for kind in ("http", "https", "all") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())}
        return {
            **proxies,
            **{"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "online"},
            **{"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home), "NO_PROXY": "127.0.0.1"},
            **{"WANDB_SILENT": "false", "WANDB_CONSOLE": "off"},
        }

    def __enter__(self) -> Stub:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        assert not self.unhandled, (
            f"wandb {wandb.__version__} asked for what tests/wandb_stub.py does not answer: "
            f"{', '.join(sorted(set(self.unhandled)))}"
        )

    # ---- what arrives

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body for one request."""
        if self.failing == "silent":
            self._closed.wait()
        if self.failing is not None:
            return (int(self.failing) if self.failing != "silent" else 500), b"{}"
        with self._lock:
            if path == "/graphql":
                return self._graphql(json.loads(body))
            stream = re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)
            if stream and method == "POST":
                return 200, json.dumps(self._stream(stream[3], json.loads(body))).encode()
            upload = re.fullmatch(r"/upload/([^/]+)/(.+)", path)
            if upload and method == "PUT":
                self.runs[upload[1]].files[upload[2]] = body
                return 200, b""
            self.unhandled.append(f"{method} {path}")
            return 400, b'{"errors": [{"message": "unknown to the stub"}]}'

    def _graphql(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        found = re.search(r"\b(?:query|mutation)\s+(\w+)", asked["query"])
        name = found[1] if found else asked["query"]
        self.seen.append(name)
        handler: Callable[[dict[str, Any]], Any] | None = getattr(self, f"_{name}", None)
        if handler is None:
            self.unhandled.append(f"the operation {name}")
            return 400, json.dumps({"errors": [{"message": f"unknown to the stub: {name}"}]}).encode()
        return 200, json.dumps({"data": handler(asked.get("variables") or {})}).encode()

    def _stream(self, run_id: str, content: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[run_id]
        for name, part in (content.get("files") or {}).items():
            lines = part.get("content", [])
            if name == "wandb-history.jsonl":
                run.history += [json.loads(line) for line in lines]
            elif name == "wandb-summary.json" and lines:
                run.summary = json.loads(lines[-1])
        run.preempting |= bool(content.get("preempting"))
        if content.get("complete"):
            run.exitcode = content.get("exitcode")
            run.state = "finished" if run.exitcode == 0 else "preempted" if run.preempting else "failed"
        return {"exitcode": None, "limits": {}}

    # ---- operations, by their names

    def _Viewer(self, given: dict[str, Any]) -> Any:
        viewer = {"id": ENTITY, "entity": ENTITY, "username": ENTITY, "email": None, "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    _GetDefaultEntity = _Viewer

    def _ServerFeaturesQuery(self, given: dict[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def _OrganizationCoreWeaveOrganizationID(self, given: dict[str, Any]) -> Any:
        return {"entity": {"organization": None}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> Any:
        run = self.runs.get(given["name"])
        model = project(given["project"]) | {"bucket": run.node() if run else None}
        return {"model": model}

    def _UpsertBucket(self, given: dict[str, Any]) -> Any:
        run_id = given.get("name") or given.get("id")
        new = run_id not in self.runs
        if new:
            name = given.get("displayName") or run_id
            self.runs[run_id] = Run(run_id, given.get("project") or "uncategorized", name, given.get("sweep"))
        run = self.runs[run_id]
        run.config = json.loads(given["config"]) if given.get("config") else run.config
        run.group, run.tags = given.get("groupName") or run.group, given.get("tags") or run.tags
        run.state = "running" if given.get("state") in (None, "running") else run.state
        return {"upsertBucket": {"inserted": new, "bucket": run.node()}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> Any:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _UpsertSweep(self, given: dict[str, Any]) -> Any:
        if given.get("state"):
            self.sweeps[given["id"]].state = given["state"]
            return {"upsertSweep": {"sweep": {"name": given["id"]}}}
        config = yaml.safe_load(given["config"])
        parameters = config["parameters"]
        choices = [part["values"] if "values" in part else [part["value"]] for part in parameters.values()]
        trials = [dict(zip(parameters, row, strict=True)) for row in itertools.product(*choices)]
        sweep = Sweep(f"sweep{len(self.sweeps)}", given.get("projectName") or "uncategorized", given["config"], trials)
        self.sweeps[sweep.id] = sweep
        return {"upsertSweep": {"sweep": sweep.node([]), "configValidationWarnings": []}}

    def _SweepWithRuns(self, given: dict[str, Any]) -> Any:
        sweep = self.sweeps[given["sweep"]]
        return {"project": project(sweep.project) | {"sweep": sweep.node(self._trials(sweep.id))}}

    def _GetSweep(self, given: dict[str, Any]) -> Any:
        return self._SweepWithRuns({"sweep": given["name"]})

    _GetSweepState = _SweepWithRuns

    def _CreateAgent(self, given: dict[str, Any]) -> Any:
        agent = f"agent{len(self.agents)}"
        self.agents[agent] = self.sweeps[given["sweep"]]
        return {"createAgent": {"agent": {"id": agent}}}

    def _Heartbeat(self, given: dict[str, Any]) -> Any:
        running, sweep = json.loads(given["runState"]), self.agents[given["id"]]
        commands: list[dict[str, Any]] = [{"type": "stop", "run_id": run} for run in running if run in self.stops]
        for command in commands:
            self.runs[command["run_id"]].stop_sent = self.runs[command["run_id"]].stop_sent or time.monotonic()
        if not running and sweep.trials:
            args = {key: {"value": value} for key, value in sweep.trials.pop(0).items()}
            run_id = f"{sweep.id}trial{len(sweep.given)}"
            sweep.given.append(run_id)
            program = yaml.safe_load(sweep.config).get("program", "")
            commands.append({"type": "run", "run_id": run_id, "program": program, "args": args})
        elif not running:
            commands.append({"type": "exit"})
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}

    def _Runs(self, given: dict[str, Any]) -> Any:
        runs = [run for run in self.runs.values() if run.project == given["project"]]
        wanted = re.search(r'"sweep": ?"(\w+)"', given.get("filters") or "")
        runs = [run for run in runs if wanted is None or run.sweep == wanted[1]]
        first = [] if given.get("cursor") else [{"node": run.node(), "cursor": run.id} for run in runs]
        page = {"endCursor": first[-1]["cursor"] if first else None, "hasNextPage": False}
        return {"project": project(given["project"]) | {"runCount": len(runs), "runs": {"edges": first, "pageInfo": page}}}

    def _Run(self, given: dict[str, Any]) -> Any:
        run = self.runs.get(given["name"])
        return {"project": project(given["project"]) | {"run": run.node() if run else None}}

    _RunHistoryKeys = _Run

    def _RunFullHistory(self, given: dict[str, Any]) -> Any:
        run = self.runs[given.get("run") or given["name"]]
        return {"project": {"run": {"history": [json.dumps(row) for row in run.history], "events": []}}}

    def _RunParquetHistory(self, given: dict[str, Any]) -> Any:
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": []}}}}

    def _HistoryPage(self, given: dict[str, Any]) -> Any:
        rows = [row for row in self.runs[given["run"]].history if given["minStep"] <= row["_step"] < given["maxStep"]]
        return {"project": {"run": {"history": [json.dumps(row) for row in rows]}}}

    def _SampledHistoryPage(self, given: dict[str, Any]) -> Any:
        spec = json.loads(given["spec"])
        rows = [row for row in self.runs[given["run"]].history if spec["minStep"] <= row["_step"] <= spec["maxStep"]]
        wanted = [{key: row[key] for key in spec["keys"]} for row in rows if all(key in row for key in spec["keys"])]
        return {"project": {"run": {"sampledHistory": [wanted]}}}

    def _trials(self, sweep: str) -> list[Run]:
        return [run for run in self.runs.values() if run.sweep == sweep]


class _Handler(BaseHTTPRequestHandler):
    stub: Stub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at what has arrived."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def do_POST(self) -> None:
        status, text = self.stub.answer(self.command, self.path.split("?")[0], self._body())
        # who asked may have given up
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    do_GET = do_PUT = do_POST


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    """Whether something becomes true within a time."""
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.05)
    return what()
