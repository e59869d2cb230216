"""The command line's HTTP: where it goes, what it carries, what it makes of the answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.controller_stub import Stub, controller_stub

from hedgerow import errors
from hedgerow.cli import api as api_module
from hedgerow.cli.api import Api, find_api
from hedgerow.config.problem import ConfigProblems


@pytest.fixture
def stub() -> Iterator[Stub]:
    with controller_stub() as running:
        yield running


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Neither environment nor lab; the place where cli.yaml would be."""
    for name in ("HEDGEROW_API", "HEDGEROW_TOKEN", "HEDGEROW_LAB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(api_module, "SETTINGS", tmp_path / "cli.yaml")
    monkeypatch.setattr(api_module, "_from_lab", lambda: None)
    return tmp_path / "cli.yaml"


def test_a_call_carries_the_token_and_gives_back_what_json_said(stub: Stub) -> None:
    stub.answers["POST /v2/apps"] = (201, {"id": "/web"})
    api = Api(stub.url, "secret")
    assert api.post("/v2/apps", {"id": "web"}, force=True) == {"id": "/web"}
    ((words, headers, body),) = stub.asked
    assert words == "POST /v2/apps?force=true"
    assert headers["authorization"] == "Bearer secret"
    assert headers["content-type"] == "application/json"
    assert body == b'{"id": "web"}'
    assert api.headers["warning"] == "299 - told"


def test_a_path_is_quoted(stub: Stub) -> None:
    stub.answers["GET /v1/endpoints/a%20b%3F"] = (200, {})
    Api(stub.url, None).get("/v1/endpoints/a b?")
    assert "authorization" not in stub.asked[0][1]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadInput),
        (403, errors.Refused),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (422, errors.BadInput),
        (500, errors.HedgerowError),
        (503, errors.Unreachable),
    ],
)
def test_a_refusal_becomes_the_error_of_its_kind(stub: Stub, status: int, kind: type[errors.HedgerowError]) -> None:
    stub.answers["GET /v1/networks/devv"] = (status, {"message": "there is no devv", "cure": "did you mean dev?"})
    with pytest.raises(errors.HedgerowError) as raised:
        Api(stub.url, "x").get("/v1/networks/devv")
    assert type(raised.value) is kind
    assert str(raised.value) == "there is no devv: did you mean dev?"


def test_without_the_right_token_the_cure_is_one_of_the_command_line(stub: Stub) -> None:
    stub.answers["GET /v1/status"] = (401, {"message": "no or wrong token", "cure": "send a header"})
    with pytest.raises(errors.Refused, match="no or wrong token: give the controller's token: --token-file"):
        Api(stub.url, "x").get("/v1/status")


def test_every_fault_that_marathon_lists_is_told(stub: Stub) -> None:
    told = {"message": "Object is not valid", "details": [{"path": "/id", "errors": ["error.path.missing", "two"]}]}
    stub.answers["POST /v2/apps"] = (422, told)
    with pytest.raises(errors.BadInput) as raised:
        Api(stub.url, "x").post("/v2/apps", {})
    assert raised.value.message == "Object is not valid\n  /id: error.path.missing\n  /id: two"


def test_an_answer_without_words_is_told_by_its_status(stub: Stub) -> None:
    stub.answers["GET /v1/status"] = (500, b"<html>")
    with pytest.raises(errors.HedgerowError, match="500 Internal Server Error"):
        Api(stub.url, "x").get("/v1/status")


def test_what_is_no_json_is_no_controller(stub: Stub) -> None:
    stub.answers["GET /v1/status"] = (200, b"<html>")
    with pytest.raises(errors.Unreachable, match="no JSON"):
        Api(stub.url, "x").get("/v1/status")


def test_a_controller_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(errors.Unreachable, match="does not answer: Connection refused"):
            Api(url, "x").get("/v1/status")


def test_a_stream_comes_in_pieces(stub: Stub) -> None:
    stub.answers["GET /logs"] = (200, b"one\ntwo\n" * 20_000)
    pieces = list(Api(stub.url, "x").stream("/logs", follow=True, tail=None))
    assert b"".join(pieces) == b"one\ntwo\n" * 20_000
    assert len(pieces) > 1
    assert stub.asked[0][0] == "GET /logs?follow=true"


def test_options_win_over_the_environment(nowhere: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEDGEROW_API", "http://environment:1")
    monkeypatch.setenv("HEDGEROW_TOKEN", "of the environment")
    token = tmp_path / "token"
    token.write_text("of the file\n")
    assert find_api() == Api("http://environment:1", "of the environment")
    assert find_api("http://option:2/", token) == Api("http://option:2", "of the file")


def test_the_environment_wins_over_the_file_and_a_token_never_goes_to_another_controller(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret")
    nowhere.write_text(f"api: http://file:3\ntoken_file: {tmp_path / 'token'}\n")
    assert find_api() == Api("http://file:3", "secret")
    assert find_api("http://file:3") == Api("http://file:3", "secret")
    monkeypatch.setenv("HEDGEROW_API", "http://environment:1")
    assert find_api() == Api("http://environment:1", None)


@pytest.mark.parametrize("text", ["api: 8080\n", "apu: http://x\n", "", "token_file: /x\n"])
def test_a_bad_settings_file_is_told_by_line(nowhere: Path, text: str) -> None:
    nowhere.write_text(text)
    with pytest.raises(ConfigProblems, match=r"cli\.yaml:1: "):
        find_api()


def test_with_no_controller_to_be_found_the_ways_to_name_one_are_told(nowhere: Path) -> None:
    with pytest.raises(errors.BadInput, match="no controller is known here"):
        find_api()


def test_a_token_file_that_cannot_be_read_is_named(nowhere: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.BadInput, match="none cannot be read"):
        find_api("http://x", tmp_path / "none")


def test_what_is_no_url_is_bad_input() -> None:
    with pytest.raises(errors.BadInput, match="ftp://x is no URL"):
        Api("ftp://x", None).get("/")
