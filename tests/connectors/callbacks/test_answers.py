"""Answers by chat: only what its sender signed, by somebody known, for this very question, counts, and once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawback.connectors.answers import Sender, answers
from clawback.connectors.callbacks import MAX_BODY, channel, channels
from clawback.errors import ClawbackError, InvalidInput, Refused
from clawback.journal import Journal
from clawback.journal.approvals import Need
from clawback.model import Approval, ApprovalState, Finding, Phase, Severity

SECRETS = {
    "slack": b"8f742231b10e8888abcd99yyyzzz85a5",
    "teams": base64.b64encode(b"t" * 32),
    "pagerduty": b"pd-secret",
}
USERS = {"slack": "U024BE7LH", "teams": "8f2a4f3c-0000-4000-8000-000000000001", "pagerduty": "PLH1HKV"}
FINDING = Finding(
    detector="d", agent="agent-1", instance="agent-1-a", severity=Severity.HIGH, technique="T", resource="/r",
    policy="p", policy_version=1, title="t", summary="s", time_ns=1, events=("e",),
)  # fmt: skip


def mac(secret: bytes, message: bytes) -> bytes:
    return hmac.new(secret, message, hashlib.sha256).digest()


def request(
    name: str, words: str, *, user: str = "", secret: bytes = b"", at: float = 0
) -> tuple[bytes, dict[str, str]]:
    """A body and its headers, as the channel's own documentation describes them."""
    user, secret = user or USERS[name], secret or SECRETS[name]
    if name == "slack":
        payload = {"type": "block_actions", "user": {"id": user}, "actions": [{"action_id": "a", "value": words}]}
        body, stamp = urlencode({"payload": json.dumps(payload)}).encode(), str(int(at or time.time()))
        signature = "v0=" + mac(secret, f"v0:{stamp}:".encode() + body).hex()
        return body, {"x-slack-request-timestamp": stamp, "x-slack-signature": signature}
    if name == "teams":
        text = f"<at>clawback</at>&nbsp;{words}"
        body = json.dumps({"type": "message", "text": text, "from": {"aadObjectId": user}}).encode()
        return body, {"authorization": "HMAC " + base64.b64encode(mac(base64.b64decode(secret), body)).decode()}
    agent = {"id": user, "type": "user_reference"}
    body = json.dumps(
        {"event": {"event_type": "incident.annotated", "agent": agent, "data": {"content": words}}}
    ).encode()
    return body, {"x-pagerduty-signature": "v1=" + "0" * 64 + ",v1=" + mac(secret, body).hex()}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    yield opened
    opened.dispose()


@pytest.fixture
def asked(journal: Journal) -> Approval:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    return journal.ask(
        incident, "k", "aws.delete-key", Phase.POST_INCIDENT, {}, Need(approvers=("ann",)), shown=(), actor="responder"
    )


@pytest.fixture
def post(journal: Journal):
    senders = {name: Sender(secret=SECRETS[name], people={USERS[name]: "ann"}) for name in SECRETS}
    app = answers(journal, senders)

    def send(name: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        import anyio

        async def go() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://answers") as client:
                return await client.post(f"/{name}", content=body, headers=headers)

        return anyio.run(go)

    return send


def words(asked: Approval, verb: str = "grant") -> str:
    return f"{verb} {asked.id} {asked.nonce}"


def test_every_channel_of_the_folder_is_tested() -> None:
    assert set(channels()) == set(SECRETS)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(("verb", "state"), [("grant", ApprovalState.GRANTED), ("deny", ApprovalState.DENIED)])
def test_a_signed_answer_of_a_known_person_counts_once(journal, asked, post, name, verb, state) -> None:
    body, headers = request(name, words(asked, verb))
    taken = post(name, body, headers)
    assert (taken.status_code, taken.text) == (200, f"{asked.id}: {state}\n")
    vote = journal.approval(asked.id).votes[0]
    assert (vote.who, vote.channel, vote.grant) == ("ann", name, verb == "grant")
    assert post(name, body, headers).status_code == 403
    assert len(journal.approval(asked.id).votes) == 1


@pytest.mark.parametrize("name", SECRETS)
def test_what_is_not_signed_right_counts_for_nothing(journal, asked, post, name) -> None:
    body, headers = request(name, words(asked))
    wrong = base64.b64encode(b"x" * 32)
    for bad_body, bad_headers in (
        (body, {}),
        (body + b" ", headers),
        request(name, words(asked), secret=wrong),
        (body, dict.fromkeys(headers, "")),
        (body, {key: value[:-2] for key, value in headers.items()}),
    ):
        assert post(name, bad_body, bad_headers).status_code == 403
    assert journal.approval(asked.id).votes == ()


@pytest.mark.parametrize("name", SECRETS)
def test_a_stranger_is_refused(journal, asked, post, name) -> None:
    assert post(name, *request(name, words(asked), user="U0STRANGER")).status_code == 403
    assert journal.approval(asked.id).votes == ()


@pytest.mark.parametrize("name", SECRETS)
def test_another_questions_nonce_is_refused(journal, asked, post, name) -> None:
    assert post(name, *request(name, f"grant {asked.id} {'0' * 32}")).status_code == 403
    assert post(name, *request(name, f"grant APR-{'0' * 12} {asked.nonce}")).status_code == 404
    assert post(name, *request(name, "looks good to me")).status_code == 400
    assert journal.approval(asked.id).votes == ()


def test_an_old_press_of_slacks_is_refused(journal, asked, post) -> None:
    for at in (time.time() - 360, time.time() + 360):
        assert post("slack", *request("slack", words(asked), at=at)).status_code == 403
    assert journal.approval(asked.id).votes == ()


def test_unknown_channels_and_wide_bodies_are_refused(post) -> None:
    assert post("irc", b"{}", {}).status_code == 404
    assert post("slack", b"x" * (MAX_BODY + 1), {}).status_code == 400


def test_a_note_that_no_user_wrote_is_refused(asked, post) -> None:
    event = {"event_type": "incident.annotated", "agent": None, "data": {"content": words(asked)}}
    body = json.dumps({"event": event}).encode()
    headers = {"x-pagerduty-signature": "v1=" + mac(SECRETS["pagerduty"], body).hex()}
    assert post("pagerduty", body, headers).status_code == 403


@given(name=st.sampled_from(sorted(SECRETS)), body=st.binary(max_size=300), value=st.text(max_size=80))
def test_whatever_comes_is_read_or_refused(name: str, body: bytes, value: str) -> None:
    secret = SECRETS[name]
    stamp = "1700000000"
    key = base64.b64decode(secret) if name == "teams" else secret
    for headers in (
        {"x-slack-signature": value, "x-slack-request-timestamp": value, "authorization": value},
        {
            "x-slack-signature": "v0=" + mac(secret, f"v0:{stamp}:".encode() + body).hex(),
            "x-slack-request-timestamp": stamp,
            "authorization": "HMAC " + base64.b64encode(mac(key, body)).decode(),
            "x-pagerduty-signature": "v1=" + mac(secret, body).hex(),
        },
    ):
        with pytest.raises((Refused, InvalidInput)):
            channel(name).read(body, headers, secret, 1_700_000_000.0)


def test_errors_are_of_the_house() -> None:
    with pytest.raises(ClawbackError):
        channel("no-such")
