"""Settings of how people are told and asked: tickets, channels, approvals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clawback.config.section import Section, is_private
from clawback.model import Phase

__all__ = [
    "AnswerSettings",
    "ApprovalRule",
    "ApprovalSettings",
    "ChannelSettings",
    "JiraSettings",
    "NotifySettings",
]


class JiraSettings(Section):
    """`jira:`: a Jira Cloud project in which each incident gets an issue."""

    base_url: str = Field(pattern=r"^https?://[^/\s?#@]+/?$", description="https://SITE.atlassian.net")
    project: str = Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$", description="the project's key")
    issue_type: str = Field("Task", min_length=1, max_length=60)
    user: str = Field("", max_length=254, description="account that the API token is of; empty: it is an OAuth token")
    token_file: Path = Field(description="the token, mode 0600")
    statuses: dict[Phase, str] = Field(
        default_factory=dict, description="phase of the incident → status that its issue is moved to"
    )

    @model_validator(mode="after")
    def _private(self) -> Self:
        if not is_private(self.base_url):
            raise ValueError("a token over plain HTTP can be read on the way: https://")
        return self


class ChannelSettings(Section):
    """One of `notify.channels`. The address of a webhook is a secret: whoever has it can write there."""

    kind: Literal["pagerduty-events-v2", "slack-webhook", "teams-webhook", "webhook"]
    url_file: Path | None = Field(None, description="file with the channel's address, mode 0600")
    url: str = Field("", description="the address outright, where it is no secret: PagerDuty's")
    secret_file: Path | None = Field(None, description="PagerDuty's integration key, or what `webhook` signs with")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "pagerduty-events-v2":
            if self.url_file or not self.secret_file:
                raise ValueError("secret_file holds the integration key; url, if any, is no secret")
            if self.url and not is_private(self.url):
                raise ValueError("url: the integration key over plain HTTP can be read on the way: https://")
            return self
        if self.url or not self.url_file:
            raise ValueError("the address is a secret: put it into a file, and that under url_file")
        if bool(self.secret_file) != (self.kind == "webhook"):
            raise ValueError("secret_file: a webhook signs with it; the others have none")
        return self


class NotifySettings(Section):
    """`notify:`: whom `notify.send` tells, by a name of your choice."""

    channels: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")], ChannelSettings] = Field(
        default_factory=dict
    )


class ApprovalRule(Section):
    """One line of `approvals.rules`. The first rule that matches a step decides; containment never waits."""

    actions: tuple[str, ...] = Field(("*",), description="action ids; `*` and `?` match as in file names")
    phases: tuple[Phase, ...] = Field((), description="phases of the incident; none: any")
    drills: bool | None = Field(None, description="only drills, or only real incidents; none: both")
    quorum: int = Field(1, ge=0, le=16, description="grants needed; 0: the step does not wait")
    approvers: tuple[str, ...] = Field((), description="user names that may answer; none: anybody")
    separate: bool = Field(True, description="whoever asked, or contained the agent, may not grant it")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.approvers and len(set(self.approvers)) < self.quorum:
            raise ValueError(f"quorum {self.quorum} of {len(set(self.approvers))} approvers can never be reached")
        return self


class AnswerSettings(Section):
    """One of `approvals.channels`: who signs, and who is who there."""

    secret_file: Path = Field(description="the channel's signing secret, mode 0600")
    people: dict[str, str] = Field(description="the channel's user id → user name, as `approvers` names people")


class ApprovalSettings(Section):
    """`approvals:`: which steps wait for a person. Where no rule matches, those whose action asks for consent."""

    minutes: float = Field(15, gt=0, le=24 * 60, description="how long a question stands, and then a grant")
    rules: tuple[ApprovalRule, ...] = ()
    prefect: Literal["off", "shared", "codes"] = Field(
        "off",
        description="questions can be answered in Prefect, whose login is shared: not at all, as the user"
        " `prefect:shared`, or by a person with a one-time code of `clawback approvals code`",
    )
    listen: str = Field(
        "127.0.0.1:8471", description="address where `clawback up` takes the channels' signed callbacks"
    )
    channels: dict[str, AnswerSettings] = Field(
        default_factory=dict, description="slack, teams or pagerduty → whose signed callbacks are taken for answers"
    )
