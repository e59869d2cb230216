"""`hedgerow app` as a person runs it, against a controller that answers as it is told."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.controller_stub import Stub, controller_stub

from hedgerow.cli import app as verbs
from hedgerow.cli.main import main

TASK = {
    "id": "web.instance-1._app.1",
    "appId": "/web",
    "host": "n1",
    "state": "TASK_RUNNING",
    "ipAddresses": [{"ipAddress": "9.0.0.2", "protocol": "IPv4"}],
}
APP: dict[str, Any] = {
    "id": "/web",
    "cmd": "sleep 9",
    "networks": [{"mode": "container", "name": "dcos-1"}],
    "container": {"type": "DOCKER", "docker": {"image": "nginx"}},
    "instances": 1,
    "tasksRunning": 1,
    "tasks": [TASK],
}
FAILED = {"state": "TASK_FAILED", "host": "n1", "message": "there is no network nope"}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with controller_stub() as running:
        monkeypatch.setenv("HEDGEROW_API", running.url)
        monkeypatch.setenv("HEDGEROW_TOKEN", "secret")
        yield running


def file_of(tmp_path: Path, text: str = '{"id": "web"}') -> str:
    path = tmp_path / "web.json"
    path.write_text(text)
    return str(path)


def test_run_sends_the_file_and_shows_the_addresses_once_all_run(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers = {"POST /v2/apps": (201, APP), "GET /v2/apps/web": (200, {"app": APP})}
    assert main(["app", "run", file_of(tmp_path)]) == 0
    assert json.loads(stub.asked[0][2]) == {"id": "web"}
    assert capsys.readouterr().out.splitlines()[1].split() == ["/web", "dcos-1", "1/1", "9.0.0.2"]


def test_run_says_why_an_app_has_failed_and_what_to_do(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = APP | {"tasksRunning": 0, "lastTaskFailure": FAILED}
    stub.answers = {"POST /v2/apps": (201, APP), "GET /v2/apps/web": (200, {"app": failed})}
    assert main(["app", "run", file_of(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "/web failed on n1: there is no network nope" in error
    assert "hedgerow app rm /web" in error


def test_run_waits_no_longer_than_it_is_told(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers = {"POST /v2/apps": (201, APP), "GET /v2/apps/web": (200, {"app": APP | {"tasksRunning": 0}})}
    assert main(["app", "run", file_of(tmp_path), "--wait", "0.01"]) == 1
    assert "0 of 1 instances of /web run after 0.01 s" in capsys.readouterr().err
    assert main(["app", "run", file_of(tmp_path), "--wait", "0"]) == 0


@pytest.mark.parametrize(("text", "words"), [('{\n"id" 1}', "web.json:2: no JSON"), ("\udcff", "web.json is no text")])
def test_a_file_that_is_no_json_is_named_with_its_line(
    stub: Stub, tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "web.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert main(["app", "run", str(path)]) == 2
    assert words in capsys.readouterr().err
    assert stub.asked == []


def test_a_refused_app_shows_every_fault(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    details = [{"path": "/id", "errors": ["error.pattern"]}, {"path": "/cpus", "errors": ["error.min"]}]
    stub.answers = {"POST /v2/apps": (422, {"message": "Invalid JSON", "details": details})}
    assert main(["app", "run", file_of(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "/id: error.pattern" in error
    assert "/cpus: error.min" in error


def test_warnings_of_the_api_are_read_as_they_were_written() -> None:
    header = r'299 - "/a is ignored, so is \"b\"", 299 - "c\\d"'
    assert verbs.warnings(header) == ['/a is ignored, so is "b"', r"c\d"]


def test_show_lists_the_tasks_too(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers = {"GET /v2/apps/web": (200, {"app": APP | {"lastTaskFailure": FAILED}})}
    assert main(["app", "show", "/web"]) == 0
    out = capsys.readouterr().out
    assert "TASK_FAILED on n1: there is no network nope" in out
    assert out.splitlines()[-1].split()[:4] == ["web.instance-1._app.1", "n1", "TASK_RUNNING", "9.0.0.2"]


def test_many_addresses_are_cut_short_in_a_table_and_whole_in_json(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [TASK | {"ipAddresses": [{"ipAddress": f"9.0.0.{n}", "protocol": "IPv4"}]} for n in range(1, 6)]
    stub.answers = {"GET /v2/apps": (200, {"apps": [APP | {"tasks": tasks}]})}
    assert main(["app", "ls"]) == 0
    assert "9.0.0.1,9.0.0.2,9.0.0.3 and 2 more" in capsys.readouterr().out
    assert main(["app", "ls", "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["apps"][0]["tasks"]) == 5


def test_logs_of_several_tasks_are_told_apart_and_only_one_is_followed(
    stub: Stub, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [TASK, TASK | {"id": "web.instance-2._app.1"}]
    stub.answers = {
        "GET /v2/apps/web": (200, {"app": APP | {"tasks": tasks}}),
        "GET /v1/apps/web/logs": (200, b"said\n"),
    }
    assert main(["app", "logs", "web"]) == 0
    out = capfdbinary.readouterr().out
    assert out == b"==> web.instance-1._app.1 <==\nsaid\n\n==> web.instance-2._app.1 <==\nsaid\n"
    assert main(["app", "logs", "-f", "web"]) == 2
    assert main(["app", "logs", "-f", "web", "--task", "web.instance-2._app.1"]) == 0
    assert "task=web.instance-2._app.1" in stub.asked[-1][0]


def test_the_log_of_an_app_that_runs_no_more_is_that_of_its_last_task(
    stub: Stub, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    stub.answers = {
        "GET /v2/apps/web": (200, {"app": APP | {"tasks": []}}),
        "GET /v1/apps/web/logs": (200, b"the end\n"),
    }
    assert main(["app", "logs", "web", "--tail", "1"]) == 0
    assert capfdbinary.readouterr().out == b"the end\n"
    assert stub.asked[-1][0] == "GET /v1/apps/web/logs?tail=1&follow=false"


def test_rm_waits_until_the_last_task_has_ended(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers = {"DELETE /v2/apps/web": (200, {}), "GET /v2/tasks": (200, {"tasks": [TASK | {"appId": "/other"}]})}
    assert main(["app", "rm", "web"]) == 0
    stub.answers["GET /v2/tasks"] = (200, {"tasks": [TASK]})
    assert main(["app", "rm", "web", "--wait", "0.01"]) == 1
    assert "1 tasks on n1 have not ended" in capsys.readouterr().err


def test_an_unknown_app_is_not_found(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers = {"GET /v2/apps/web": (404, {"message": "App '/web' does not exist"})}
    assert main(["app", "show", "web"]) == 1
    assert "App '/web' does not exist" in capsys.readouterr().err


def test_a_definition_is_read_from_stdin(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"id": "in"}')))
    stub.answers = {"POST /v2/apps": (201, APP)}
    assert main(["app", "run", "-", "--wait", "0"]) == 0
    assert json.loads(stub.asked[0][2]) == {"id": "in"}
