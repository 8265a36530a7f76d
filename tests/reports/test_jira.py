"""The Jira form: valid against Atlassian's own documents, within Jira's limits, and built from nodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_core import Config, OpenAPI
from openapi_core.testing import MockRequest

from clawback.model import Incident
from clawback.reports import adf
from clawback.reports.ticket import jira, jira_request

ADF_PACKAGE = "@atlaskit/adf-schema@57.7.22"
DATA = Path(os.environ.get("CLAWBACK_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
HOSTILE = [
    '"},{"type":"mention"',
    "\ud800",
    "\0",
    "a\nb",
    "\u202e",
    "[x|https://evil.test]",
    "{code}",
    "",
    " ",
    "x" * 9000,
]


@pytest.fixture(scope="session")
def adf_schema() -> dict[str, Any]:
    """Atlassian's schema of a document, fetched once into the user's cache: it is theirs, and not kept here."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clawback-tests"
    file = base / "adf-57.7.22.json"
    if not file.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed, so the ADF schema cannot be fetched")
        base.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            [npm, "pack", "--silent", "--pack-destination", str(base), ADF_PACKAGE],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if packed.returncode:
            pytest.skip(f"npm could not fetch {ADF_PACKAGE}: status {packed.returncode}")
        archive = base / packed.stdout.split()[-1]
        with tarfile.open(archive) as tar:
            member = tar.extractfile("package/dist/json-schema/v1/full.json")
            assert member
            raw = member.read()
        new = file.with_suffix(f".{os.getpid()}")
        new.write_bytes(raw)
        new.rename(file)
        archive.unlink()
    schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return schema


@pytest.fixture(scope="session")
def check_adf(adf_schema: dict[str, Any]) -> Callable[[Any], None]:
    """Validates a document. The validator takes seconds for one, and all that the schema asks of a text is that it is a
    string and not empty: so that is looked at here, and each shape of documents is validated once, with `x` for texts.
    """
    validator, seen = jsonschema.Draft4Validator(adf_schema), set()

    def check(document: Any) -> None:
        shape = json.dumps(_without_texts(document))
        if shape in seen:
            return
        errors = sorted(validator.iter_errors(json.loads(shape)), key=lambda error: len(error.absolute_path))
        assert not errors, errors[0].message[:500]
        seen.add(shape)

    return check


def _without_texts(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_texts(each) for each in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("text"), str) and node["text"]:
        node = {**node, "text": "x"}
    return {key: _without_texts(value) for key, value in node.items()}


@pytest.fixture(scope="session")
def jira_api() -> OpenAPI:
    file = DATA / "jira" / "jira-cloud-v3.openapi.json"
    if not file.is_file():
        pytest.skip(f"Atlassian's OpenAPI document is not at {file}; set CLAWBACK_TEST_DATA")
    # `spec_validator_cls=None`: the document as published does not pass strict validation of itself.
    return OpenAPI.from_dict(json.loads(file.read_text("utf-8")), config=Config(spec_validator_cls=None))


def nodes(document: Any) -> Iterator[dict[str, Any]]:
    yield document
    for child in document.get("content", ()):
        yield from nodes(child)


def words(document: Any) -> str:
    return "\n".join(node["text"] for node in nodes(document) if node["type"] == "text")


def test_valid_for_jira(jira_api: OpenAPI, make: Callable[..., Incident]) -> None:
    request = MockRequest(
        "https://your-domain.atlassian.net",
        "post",
        "/rest/api/3/issue",
        headers={"Authorization": "Basic eDp5"},
        data=jira(make()).encode(),
        content_type="application/json",
    )
    jira_api.validate_request(request)


def test_the_check_can_fail(jira_api: OpenAPI, check_adf: Callable[[Any], None], make: Callable[..., Incident]) -> None:
    broken = jira_request(make()) | {"properties": "none"}
    request = MockRequest(
        "https://your-domain.atlassian.net",
        "post",
        "/rest/api/3/issue",
        headers={"Authorization": "Basic eDp5"},
        data=json.dumps(broken).encode(),
        content_type="application/json",
    )
    with pytest.raises(Exception, match="Request body"):
        jira_api.validate_request(request)
    with pytest.raises(AssertionError):
        check_adf("a plain string")
    with pytest.raises(AssertionError):
        check_adf({"type": "doc", "version": 1, "content": [{"type": "text", "text": ""}]})


@pytest.mark.slow
@pytest.mark.parametrize("text", ["ordinary", *HOSTILE])
def test_the_description_is_a_valid_document(
    check_adf: Callable[[Any], None], make: Callable[..., Incident], text: str
) -> None:
    check_adf(jira_request(make(text))["fields"]["description"])


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text())
def test_the_description_is_a_valid_document_whatever_the_agent_wrote(
    check_adf: Callable[[Any], None], make: Callable[..., Incident], text: str
) -> None:
    request = jira_request(make(text))
    check_adf(request["fields"]["description"])
    assert not {"mention", "media", "inlineCard", "blockCard", "status"} & {
        node["type"] for node in nodes(request["fields"]["description"])
    }
    marks = {mark["type"] for node in nodes(request["fields"]["description"]) for mark in node.get("marks", ())}
    assert marks <= {"code", "em", "strong"}


@pytest.mark.parametrize("text", ["ordinary", *HOSTILE])
def test_the_summary_is_one_short_line(make: Callable[..., Incident], text: str) -> None:
    summary = jira_request(make(text))["fields"]["summary"]
    assert len(summary) <= 255
    assert summary.isprintable()
    assert "INC-20261120-ABCDEF" in summary


@pytest.mark.slow
@pytest.mark.parametrize(("findings", "lines"), [(1, 1), (300, 2000), (0, 0)])
@pytest.mark.parametrize("text", ["ordinary", "😀" * 4000])
def test_it_stays_within_jiras_limit(
    check_adf: Callable[[Any], None], make: Callable[..., Incident], findings: int, lines: int, text: str
) -> None:
    document = jira_request(make(text, findings=findings, lines=lines))["fields"]["description"]
    assert adf.length(document) <= 32_767
    check_adf(document)
    if lines > 1000:
        assert "more are in the Markdown ticket" in words(document)


def test_it_says_what_a_responder_needs(make: Callable[..., Incident]) -> None:
    said = words(jira_request(make("GET /payroll"))["fields"]["description"])
    for needed in (
        "support-1",
        "support version 2",
        "open GET /payroll",
        "agent.freeze",
        "T1552.001",
        "ASI03",
        "ASI-03",
        "CSF RESPOND",
        "2.5 ms",
        "accessor=GET /payroll",
        "abababab",
    ):
        assert needed in said, needed


def test_the_incident_can_be_found_again(make: Callable[..., Incident]) -> None:
    request = jira_request(make(), project="SOC", issue_type="Incident")
    assert request["fields"]["project"] == {"key": "SOC"}
    assert "INC-20261120-ABCDEF" in request["fields"]["labels"]
    assert not any(" " in label for label in request["fields"]["labels"])
    assert request["properties"][0]["value"]["id"] == "INC-20261120-ABCDEF"


def test_no_secret_passes(make: Callable[..., Incident]) -> None:
    assert "CAESIJ0123456789" not in jira(make("hvs.CAESIJ0123456789abcdefghij"))
