"""Jira: a tracker on loopback that keeps issues, every request and reply of which Atlassian's document must allow."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from openapi_core import Config, OpenAPI
from openapi_core.testing import MockRequest, MockResponse

from clawback.config import JiraSettings
from clawback.connectors.jira import PROPERTY, Jira
from clawback.connectors.tracked_tickets import TrackedTickets
from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused, Unreachable
from clawback.reports import adf

DATA = Path(os.environ.get("CLAWBACK_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
TOKEN = "atlassian-token-0123456789abcdef"
AUTHORISED = "Basic c29jQGV4YW1wbGUudGVzdDphdGxhc3NpYW4tdG9rZW4tMDEyMzQ1Njc4OWFiY2RlZg=="

pytestmark = [pytest.mark.parts, pytest.mark.slow]


class Tracker:
    """Issues of one project, as Jira Cloud keeps them. `script` holds what answers instead, once for each request."""

    def __init__(self) -> None:
        self.issues: dict[str, dict[str, Any]] = {}
        self.indexed = True
        self.script: list[tuple[int, Any] | str] = []
        self.requests: list[tuple[str, str, Any]] = []

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        at = path.removeprefix("/rest/api/3/").split("/")
        if at == ["search", "jql"]:
            found = re.fullmatch(r'project = "SEC" AND labels = "([^"]+)" ORDER BY created ASC', body["jql"])
            assert found, body["jql"]
            hits = [key for key, x in self.issues.items() if found[1] in x["fields"]["labels"] and self.indexed]
            return 200, {"issues": [{"id": key[4:], "key": key, "fields": {}} for key in hits], "isLast": True}
        if at == ["issue"]:
            if body["fields"]["issuetype"]["name"] != "Incident":
                return 400, {"errorMessages": [], "errors": {"issuetype": "Specify a valid issue type"}}
            key = f"SEC-{len(self.issues) + 1}"
            self.issues[key] = {
                "fields": {**body["fields"], "status": {"name": "Open"}},
                "properties": {x["key"]: x["value"] for x in body["properties"]},
                "comments": [],
            }
            return 201, {"id": key[4:], "key": key, "self": f"https://site.test/rest/api/3/issue/{key[4:]}"}
        issue = self.issues.get(at[1])
        if issue is None:
            return 404, {"errorMessages": ["Issue does not exist or you do not have permission to see it."]}
        return self._issue(method, at, query, body, issue)

    def _issue(
        self, method: str, at: list[str], query: dict[str, list[str]], body: Any, issue: dict[str, Any]
    ) -> tuple[int, Any]:
        if at[2:] == ["comment"]:
            if method == "POST":
                issue["comments"].append(body)
                return 201, {"id": str(len(issue["comments"])), **body}
            assert query["expand"] == ["properties"]
            return 200, {"comments": issue["comments"][::-1], "total": len(issue["comments"]), "startAt": 0}
        if at[2:] == ["transitions"]:
            if method == "POST":
                issue["fields"]["status"] = {"name": {"21": "In Progress"}[body["transition"]["id"]]}
                return 204, None
            return 200, {"transitions": [{"id": "21", "name": "Start", "to": {"name": "In Progress"}}]}
        if method == "PUT":
            issue["fields"] |= body["fields"]
            issue["fields"]["labels"] += [x["add"] for x in body["update"]["labels"]]
            issue["properties"] |= {x["key"]: x["value"] for x in body["properties"]}
            return 204, None
        wanted = query["fields"][0].split(",")
        return 200, {
            "id": at[1][4:],
            "key": at[1],
            "fields": {key: value for key, value in issue["fields"].items() if key in wanted},
            "properties": {key: value for key, value in issue["properties"].items() if key in query["properties"]},
        }


@pytest.fixture(scope="session")
def document() -> OpenAPI:
    file = DATA / "jira" / "jira-cloud-v3.openapi.json"
    if not file.is_file():
        pytest.skip(f"Atlassian's OpenAPI document is not at {file}; set CLAWBACK_TEST_DATA")
    return OpenAPI.from_dict(json.loads(file.read_text("utf-8")), config=Config(spec_validator_cls=None))


@pytest.fixture
def server(document: OpenAPI) -> Iterator[tuple[Tracker, str]]:
    tracker, wrong = Tracker(), []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length) if length else b""
            url = urlsplit(self.path)
            body = json.loads(data) if data else None
            tracker.requests.append((self.command, url.path, body))
            try:
                self._check_and_answer(url, data, body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client did not wait
            except Exception as error:
                wrong.append(f"{self.command} {self.path}: {type(error).__name__} {error} {error.__cause__}")
                self.send_error(500)

        def _check_and_answer(self, url: Any, data: bytes, body: Any) -> None:
            request = MockRequest(
                "https://your-domain.atlassian.net",
                self.command.lower(),
                url.path,
                args={key: values[0] for key, values in parse_qs(url.query).items()},
                headers={"Authorization": self.headers["Authorization"]},
                data=data or None,
                content_type="application/json",
            )
            document.validate_request(request)
            assert self.headers["Authorization"] == AUTHORISED
            scripted = tracker.script.pop(0) if tracker.script else None
            if scripted == "made, and silent":
                tracker.answer(self.command, url.path, parse_qs(url.query), body)
            if isinstance(scripted, str):
                time.sleep(4)  # longer than the client waits
                return
            status, answer = scripted or tracker.answer(self.command, url.path, parse_qs(url.query), body)
            sent = b"" if answer is None else answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            if scripted is None and status not in (204, 404):  # the document has bodies for 204, which HTTP has not
                document.validate_response(request, MockResponse(sent, status, content_type="application/json"))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield tracker, f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
    assert not wrong


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def make(server: tuple[Tracker, str], tmp_path: Path) -> Callable[..., tuple[TrackedTickets, Clock]]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)

    def tickets(**changes: Any) -> tuple[TrackedTickets, Clock]:
        values: dict[str, Any] = {
            "base_url": server[1],
            "project": "SEC",
            "issue_type": "Incident",
            "user": "soc@example.test",
            "token_file": token,
        }
        clock = Clock()
        statuses = changes.pop("statuses", {})
        jira = Jira(JiraSettings(**{**values, **changes}))
        return TrackedTickets(tmp_path / "tickets", jira, statuses, clock=clock), clock

    return tickets


def text(phase: str = "contain", said: str = "an agent talks to strangers") -> str:
    about = {"id": "INC-1", "agent": "a", "phase": phase, "status": "open"}
    fields = {"summary": "INC-1", "description": adf.note(said), "labels": ["clawback", "INC-1"]}
    return json.dumps({"fields": fields, "properties": [{"key": PROPERTY, "value": about}]})


def test_one_incident_is_one_issue_kept_up_to_date(server: tuple[Tracker, str], make: Any) -> None:
    tracker, url = server
    tickets, _ = make()
    assert tickets.tracked("INC-1") is None
    where = tickets.write("INC-1", markdown="# x", jira=text())
    assert (where["tracker"], where["url"]) == ("SEC-1", f"{url}/browse/SEC-1")
    assert tickets.tracked("INC-1") == "INC-1\nan agent talks to strangers"
    again, _ = make()  # another process
    again.write("INC-1", markdown="# y", jira=text("eradicate", "contained"))
    assert list(tracker.issues) == ["SEC-1"]
    assert again.tracked("INC-1") == "INC-1\ncontained"
    assert len(tracker.issues["SEC-1"]["comments"]) == 1, "the phase changed"
    asked = len(tracker.requests)
    again.write("INC-1", markdown="# y", jira=text("eradicate", "contained"))
    assert [method for method, _, _ in tracker.requests[asked:]] == ["GET"], "nothing changed, nothing is sent"


def test_labels_that_people_added_stay_and_another_s_issue_with_our_label_is_not_taken(
    server: tuple[Tracker, str], make: Any
) -> None:
    tracker, _ = server
    tracker.issues["SEC-1"] = {
        "fields": {"summary": "x", "labels": ["INC-1"], "status": {"name": "Open"}}, "properties": {}, "comments": []
    }  # fmt: skip
    tickets, _ = make()
    assert tickets.write("INC-1", markdown="x", jira=text())["tracker"] == "SEC-2"
    tracker.issues["SEC-2"]["fields"]["labels"].append("seen-by-legal")
    tickets.write("INC-1", markdown="x", jira=text("recover"))
    assert "seen-by-legal" in tracker.issues["SEC-2"]["fields"]["labels"]


def test_it_is_moved_to_the_status_of_its_phase(server: tuple[Tracker, str], make: Any) -> None:
    tracker, _ = server
    tickets, _ = make(statuses={"contain": "in progress", "recover": "Done"})
    assert tickets.write("INC-1", markdown="x", jira=text())["status"] == "moved to status in progress"
    assert tracker.issues["SEC-1"]["fields"]["status"]["name"] == "In Progress"
    assert tickets.write("INC-1", markdown="x", jira=text())["status"] == "in status in progress"
    assert "no transition leads" in tickets.write("INC-1", markdown="x", jira=text("recover"))["status"]


def test_silence_while_an_issue_is_made_makes_no_second_one(server: tuple[Tracker, str], make: Any) -> None:
    tracker, _ = server
    tickets, clock = make()
    tracker.script = [(200, {"issues": [], "isLast": True}), "made, and silent"]
    with pytest.raises(Unreachable):
        tickets.write("INC-1", markdown="# x", jira=text())
    assert tickets.read("INC-1")["markdown"] == "# x", "the file is there"
    tracker.indexed = False
    clock.now += 5
    with pytest.raises(Unreachable, match="shows none yet"):
        tickets.write("INC-1", markdown="# x", jira=text())
    tracker.indexed = True
    assert tickets.write("INC-1", markdown="# x", jira=text())["tracker"] == "SEC-1"
    assert list(tracker.issues) == ["SEC-1"]


def test_silence_in_which_none_was_made_makes_one_later(server: tuple[Tracker, str], make: Any) -> None:
    tracker, _ = server
    tickets, clock = make()
    tracker.script = [(200, {"issues": [], "isLast": True}), "silent"]
    with pytest.raises(Unreachable):
        tickets.write("INC-1", markdown="# x", jira=text())
    clock.now += 120
    assert tickets.write("INC-1", markdown="# x", jira=text())["tracker"] == "SEC-1"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((500, {}), Unreachable),
        ((503, b"<html>maintenance</html>"), Unreachable),
        ((429, {"errorMessages": ["slow down"]}), Unreachable),
        ((200, b"<html>a login page</html>"), Unreachable),
        ((302, {}), ClawbackError),
        ((401, {"errorMessages": ["who are you"]}), Refused),
        ((403, {}), Refused),
    ],
)
def test_with_the_tracker_out_of_order_the_file_is_written_all_the_same(
    server: tuple[Tracker, str], make: Any, answer: Any, error: type[ClawbackError]
) -> None:
    tracker, _ = server
    tickets, _ = make()
    tracker.script = [answer]
    with pytest.raises(error) as raised:
        tickets.write("INC-1", markdown="# x", jira=text())
    assert tickets.read("INC-1")["markdown"] == "# x"
    assert TOKEN not in str(raised.value) + raised.value.hint + repr(raised.value.__context__)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    assert tickets.write("INC-1", markdown="# x", jira=text())["tracker"] == "SEC-1"


def test_a_refused_issue_was_not_made_and_is_asked_for_again_at_once(server: tuple[Tracker, str], make: Any) -> None:
    tickets, _ = make(issue_type="Nonsense")
    with pytest.raises(ClawbackError, match="valid issue type"):
        tickets.write("INC-1", markdown="# x", jira=text())
    assert make()[0].write("INC-1", markdown="# x", jira=text())["tracker"] == "SEC-1"


def test_an_issue_that_was_deleted_is_said_to_be_gone(server: tuple[Tracker, str], make: Any) -> None:
    tickets, _ = make()
    tickets.write("INC-1", markdown="# x", jira=text())
    server[0].issues.clear()
    with pytest.raises(NotFound):
        tickets.write("INC-1", markdown="# x", jira=text())
    with pytest.raises(NotFound):
        tickets.tracked("INC-1")


def test_a_tracker_that_answers_slowly_each_time_is_given_up_on(server: tuple[Tracker, str], make: Any) -> None:
    tickets, _ = make()
    tickets.write("INC-1", markdown="# x", jira=text())
    tickets._tracker.begin()
    tickets._tracker._until = time.monotonic() - 1
    with pytest.raises(Unreachable, match="too slow"):
        tickets._tracker.read("SEC-1")


def test_nobody_there_is_unreachable(make: Any) -> None:
    tickets, _ = make(base_url="http://127.0.0.1:1")
    with pytest.raises(Unreachable):
        tickets.write("INC-1", markdown="# x", jira=text())
    assert tickets.read("INC-1")["jira"] == text()


def test_a_token_file_that_others_may_read_is_refused(make: Any, tmp_path: Path) -> None:
    (tmp_path / "open").write_text(TOKEN)
    (tmp_path / "open").chmod(0o644)
    with pytest.raises(InvalidInput, match="others") as raised:
        make(token_file=tmp_path / "open")[0].write("INC-1", markdown="# x", jira=text())
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    "changes", [{"base_url": "http://jira.example.test"}, {"base_url": "https://u:p@x.test"}, {"project": 'A" OR 1=1'}]
)
def test_settings_that_would_leak_or_inject_are_refused(changes: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        JiraSettings(**{"base_url": "https://x.test", "project": "SEC", "token_file": tmp_path / "t", **changes})
