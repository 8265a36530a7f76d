"""The walk over CloudTrail's events as AWS writes them: with answers, refusals, and whose session it was."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from clawback.action import Context
from clawback.actions._tracing import trace
from clawback.model import CredentialRef, Life
from clawback.world import Identity, Trail, TrailEvent, World

SECOND = 1_000_000_000
NOW = time.time_ns() // SECOND * SECOND
KEY = CredentialRef(kind="aws-access-key", name="key", identifiers={"user": "ann", "access_key_id": "AKIA1"})
FIRST, SECOND_ROLE = "arn:aws:iam::1:role/first", "arn:aws:iam::1:role/second"


def event(name: str, key: str, *, at: int = 0, **values: Any) -> TrailEvent:
    return TrailEvent(time_ns=NOW + at * SECOND, name=name, caller_key=key, **values)


class Cloud:
    """IAM and CloudTrail in memory, as far as tracing asks."""

    settle = 0.0

    def __init__(self, *events: TrailEvent) -> None:
        self.events = events
        self.held = {"ann": {"AKIA1": ("Active", NOW)}}
        self.policies: dict[str, dict[str, dict[str, Any]]] = {}
        self.cut: tuple[str, ...] = ()
        self.until = 0

    def server_time(self) -> datetime:
        return datetime.fromtimestamp(NOW / SECOND, UTC)

    def trail(self, *, since_ns: int) -> Trail:
        assert since_ns < NOW
        return Trail(events=self.events, cut=self.cut, until_ns=self.until)

    def trail_of(self, access_key_id: str) -> Trail:
        return Trail(
            events=tuple(one for one in self.events if one.caller_key == access_key_id),
            cut=self.cut,
            until_ns=self.until,
        )

    def keys(self, user: str) -> dict[str, tuple[str, int]]:
        return self.held.get(user, {})

    def roles(self) -> list[Identity]:
        return []

    def exists(self, principal: str) -> bool:
        return principal != "user/gone"

    def inline(self, principal: str) -> dict[str, dict[str, Any]]:
        return self.policies.get(principal, {})

    def attached(self, principal: str) -> list[str]:
        return []

    def trust(self, role: str) -> dict[str, Any]:
        return {}

    def works(self, credential: str) -> tuple[bool, str]:
        return True, "it is ann"

    def permitted(self, credential: str) -> tuple[bool, str]:
        return True, "listed"


@pytest.fixture
def walk(there: Any, make_incident: Any, make_finding: Any) -> Any:
    there.secrets.held = {"a": {"key": (KEY, '{"access_key_id": "AKIA1"}')}}

    def go(cloud: Cloud, **incident: Any) -> Any:
        world = World(
            core=there.core,
            policies=there.policies,
            secrets=there.secrets,
            tickets=there.tickets,
            cloud_or_none=cloud,  # type: ignore[arg-type]
            cloud_records_or_none=cloud,  # type: ignore[arg-type]
        )
        finding = make_finding(time_ns=NOW)
        context = Context(incident=make_incident(findings=(finding,), **incident), world=world, actor="t")
        graph = trace(context, "a")
        return graph, {node.key: node for node in graph.nodes}

    return go


def test_a_chain_is_followed_by_whose_session_each_call_was(walk: Any) -> None:
    _, found = walk(
        Cloud(
            event("AssumeRole", "AKIA1", at=1, params={"roleArn": FIRST}, made={"accessKeyId": "ASIA1"}),
            event("AssumeRole", "ASIA1", at=2, issuer=FIRST, params={"roleArn": SECOND_ROLE}, made={"x": "y"}),
            event("AssumeRole", "ASIA9", at=2, issuer="arn:aws:iam::1:role/other", params={"roleArn": "arn:x:role/no"}),
        )
    )
    assert found[f"aws-role-sessions/{SECOND_ROLE}"].parents == (f"aws-role-sessions/{FIRST}",)
    assert found[f"aws-role-sessions/{SECOND_ROLE}"].issued_ns == NOW + 2 * SECOND
    assert not [key for key in found if "arn:x" in key]


def test_what_aws_refused_made_nothing(walk: Any) -> None:
    _, found = walk(Cloud(event("AssumeRole", "AKIA1", params={"roleArn": FIRST}, error="AccessDenied")))
    assert set(found) == {"aws-access-key/AKIA1", "aws-user-sessions/ann"}


def test_an_answer_names_the_key_that_was_made(walk: Any) -> None:
    made = {"userName": "bob", "accessKeyId": "AKIA2"}
    cloud = Cloud(event("CreateAccessKey", "AKIA1", params={"userName": "bob"}, made=made))
    cloud.held["bob"] = {"AKIA2": ("Active", NOW), "AKIA3": ("Active", NOW)}
    _, found = walk(cloud)
    assert found["aws-access-key/AKIA2"].life is Life.ALIVE
    assert "aws-access-key/AKIA3" not in found, "somebody else's, of the same second"


def test_a_user_s_own_sessions_make_what_stands_under_their_own_keys(walk: Any) -> None:
    cloud = Cloud(
        event("GetSessionToken", "AKIA1", at=1, user="ann", made={"accessKeyId": "ASIA1"}),
        event("CreateUser", "ASIA1", at=2, user="ann", params={"userName": "back"}, made={"userName": "back"}),
        event("CreateUser", "ASIA7", at=2, user="carl", params={"userName": "rightful"}, made={"userName": "x"}),
    )
    _, found = walk(cloud)
    assert "aws-identity/user/back" in found
    assert "aws-identity/user/rightful" not in found


def test_a_key_of_the_same_user_made_since_is_taken_though_no_record_names_its_maker(walk: Any) -> None:
    cloud = Cloud()
    cloud.cut, cloud.until = ("CloudTrail may not yet hold what happened since noon",), NOW + SECOND
    cloud.held["ann"] |= {"AKIA2": ("Active", NOW + SECOND), "AKIA0": ("Active", NOW)}
    graph, found = walk(cloud)
    assert "made since AKIA1, and it is not ours" in found["aws-access-key/AKIA2"].said
    assert "aws-access-key/AKIA0" not in found, "the trail covers that moment, and names nobody of the agent's"
    assert cloud.cut[0] in graph.missing


def deny(before: str) -> dict[str, Any]:
    condition = {"DateLessThan": {"aws:TokenIssueTime": before}}
    return {"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}]}


@pytest.mark.parametrize(
    ("policies", "life", "says"),
    [
        ({}, Life.ALIVE, "nothing of this incident's"),
        ({"clawback-INC-1-x": deny("2999-01-01T00:00:00Z")}, Life.GONE, "refused are those issued before 2999"),
        ({"clawback-INC-1-x": deny("2001-01-01T00:00:00Z")}, Life.ALIVE, "one was issued at"),
        ({"clawback-INC-12-x": deny("2999-01-01T00:00:00Z")}, Life.ALIVE, "nothing of this incident's"),
        ({"other": deny("2999-01-01T00:00:00Z")}, Life.ALIVE, "nothing of this incident's"),
        ({"clawback-INC-1-x": {"Statement": []}}, Life.ALIVE, "nothing of this incident's"),
        ({"clawback-INC-1-x": {"Statement": "x"}}, Life.ALIVE, "nothing of this incident's"),
        ({"clawback-INC-1-x": deny("soon")}, Life.ALIVE, "nothing of this incident's"),
    ],
)
def test_sessions_are_closed_by_a_policy_of_ours_that_covers_the_last_of_them(
    walk: Any, policies: dict[str, Any], life: Life, says: str
) -> None:
    cloud = Cloud(event("GetSessionToken", "AKIA1", user="ann", made={"accessKeyId": "ASIA1"}))
    cloud.policies["user/ann"] = policies
    _, found = walk(cloud)
    assert found["aws-user-sessions/ann"].life is life, found["aws-user-sessions/ann"].seen
    assert says in found["aws-user-sessions/ann"].seen


def test_an_identity_that_is_gone_is_closed(walk: Any) -> None:
    cloud = Cloud(event("CreateUser", "AKIA1", params={"userName": "gone"}, made={"userName": "gone"}))
    _, found = walk(cloud)
    assert found["aws-identity/user/gone"].life is Life.GONE


def test_what_is_not_undone_here_is_said(walk: Any) -> None:
    graph, _ = walk(Cloud(event("CreateLoginProfile", "AKIA1", params={"userName": "ann"}, made={"x": "y"})))
    assert "for a person to judge: CreateLoginProfile ann" in graph.missing[0]
