"""Jira Cloud by REST v3: one issue for each incident, made once, kept up to date, read back.

The requests and replies are those of Atlassian's OpenAPI document of Jira Cloud v3. Silence, rate limits and faults of
the server are `Unreachable`. Redirects are not followed: the token goes to `base_url` and nowhere else.
"""

from __future__ import annotations

import json
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clawback.connectors.secret_file import read_secret
from clawback.errors import ClawbackError, NotFound, Refused, Unreachable
from clawback.reports import adf
from clawback.reports.escape import plain

if TYPE_CHECKING:
    import httpx

    from clawback.config import JiraSettings

__all__ = ["PROPERTY", "Jira"]

PROPERTY = "clawback.incident"
_TIMEOUT = 3.0
_CONNECT = 1.0
_TOGETHER = 8.0  # seconds for all calls of one update: a response must not wait for its ticket
_MAX_BYTES = 4 << 20
_MAX_COMMENTS = 100


class Jira:
    """One project. Bounded in time; holds no state but its connections."""

    def __init__(self, settings: JiraSettings) -> None:
        self._settings = settings
        self._until = 0.0

    def begin(self) -> None:
        """Start the time that all calls until the next `begin` have together."""
        self._until = time.monotonic() + _TOGETHER

    def url(self, key: str) -> str:
        """Where people see it."""
        return f"{self._base}/browse/{key}"

    def find(self, incident: str) -> str | None:
        """The key of the incident's issue, by its label and its entity property; None where the index has none."""
        query = f'project = "{self._settings.project}" AND labels = "{incident}" ORDER BY created ASC'
        body = {"jql": query, "fields": ["labels"], "maxResults": 20}
        for issue in self._ask("POST", "search/jql", body).get("issues") or []:
            key = str(issue.get("key", ""))
            if key and self._is_of(key, incident):  # anybody can set a label
                return key
        return None

    def create(self, request: dict[str, Any]) -> str:
        """Make the issue; its key."""
        fields = {
            **request["fields"],
            "project": {"key": self._settings.project},
            "issuetype": {"name": self._settings.issue_type},
        }
        return str(self._ask("POST", "issue", {"fields": fields, "properties": request["properties"]})["key"])

    def update(self, key: str, request: dict[str, Any]) -> None:
        """Bring summary and description up to date; labels that people added stay."""
        fields = request["fields"]
        self._ask(
            "PUT",
            f"issue/{key}",
            {
                "fields": {"summary": fields["summary"], "description": fields["description"]},
                "update": {"labels": [{"add": label} for label in fields["labels"]]},
                "properties": request["properties"],
            },
        )

    def read(self, key: str) -> dict[str, Any]:
        """`text` (see `adf.words`: summary and description), `status` (its name), `about` (our entity property)."""
        issue = self._ask("GET", f"issue/{key}?fields=summary,description,status&properties={PROPERTY}")
        fields = issue.get("fields") or {}
        return {
            "text": adf.words(str(fields.get("summary") or ""), fields.get("description") or {}),
            "status": str((fields.get("status") or {}).get("name") or ""),
            "about": (issue.get("properties") or {}).get(PROPERTY) or {},
        }

    def comment(self, key: str, text: str, *, once: str) -> None:
        """Add a comment, unless one that carries the mark `once` is there."""
        there = self._ask("GET", f"issue/{key}/comment?maxResults={_MAX_COMMENTS}&orderBy=-created&expand=properties")
        for comment in there.get("comments") or []:
            if any(
                x.get("key") == PROPERTY and x.get("value") == {"at": once} for x in comment.get("properties") or []
            ):
                return
        body = {"body": adf.note(text), "properties": [{"key": PROPERTY, "value": {"at": once}}]}
        self._ask("POST", f"issue/{key}/comment", body)

    def move(self, key: str, status: str) -> str:
        """Move it to a status, by whichever transition leads there; what came of it, in words."""
        if self.read(key)["status"].casefold() == status.casefold():
            return f"in status {status}"
        for way in self._ask("GET", f"issue/{key}/transitions").get("transitions") or []:
            if str((way.get("to") or {}).get("name", "")).casefold() == status.casefold():
                self._ask("POST", f"issue/{key}/transitions", {"transition": {"id": str(way["id"])}})
                return f"moved to status {status}"
        return f"no transition leads to status {plain(status, 60)} from where it is"

    def _is_of(self, key: str, incident: str) -> bool:
        return bool(self.read(key)["about"].get("id") == incident)

    # ----------------------------------------------------------------------------------------------------------------

    @property
    def _base(self) -> str:
        return self._settings.base_url.rstrip("/")

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        token = read_secret(self._settings.token_file, "jira.token_file")
        user = self._settings.user
        return httpx.Client(
            auth=httpx.BasicAuth(user, token) if user else None,
            headers={"Accept": "application/json"} | ({} if user else {"Authorization": f"Bearer {token}"}),
            timeout=httpx.Timeout(_TIMEOUT, connect=_CONNECT),
            trust_env=False,
            follow_redirects=False,
        )

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        import httpx

        what = f"{method} {path.partition('?')[0]}"
        client = self._client
        if self._until and time.monotonic() > self._until:
            raise Unreachable(f"Jira is too slow: {what} was not asked", hint="`clawback resume` goes on with it")
        try:
            with client.stream(method, f"{self._base}/rest/api/3/{path}", json=body) as answer:
                read = bytearray()
                for part in answer.iter_bytes():
                    read += part
                    if len(read) > _MAX_BYTES:
                        raise Unreachable(f"Jira answered {what} with more than {_MAX_BYTES} bytes")
        except httpx.HTTPError as error:
            # `from None`: the traceback holds the request, and that the token.
            raise Unreachable(
                f"Jira at {self._base} did not answer {what} ({type(error).__name__})",
                hint="check that it is up and reachable; `clawback resume` tries again",
            ) from None
        return _understood(answer.status_code, bytes(read), what)


def _understood(status: int, body: bytes, what: str) -> dict[str, Any]:
    try:
        said = json.loads(body) if body.strip() else {}
    except ValueError:
        said = None
    if 200 <= status < 300:
        if not isinstance(said, dict):
            raise Unreachable(
                f"what answers for Jira is not Jira: {what} gave no JSON object", hint="check jira.base_url"
            )
        return said
    reason = f"Jira answered {what} with {status}{_why(said)}"
    if status == 429 or status >= 500:
        raise Unreachable(reason, hint="`clawback resume` tries again")
    if status in (401, 403):
        raise Refused(reason, hint="check jira.user, the token, and its rights in the project")
    if status == 404:
        raise NotFound(reason, hint="the issue, or the right to see it, is gone")
    raise ClawbackError(reason, hint="check jira.project and jira.issue_type, and which fields the project requires")


def _why(said: Any) -> str:
    if not isinstance(said, dict):
        return ""
    messages, errors = said.get("errorMessages"), said.get("errors")
    texts = [str(x) for x in messages] if isinstance(messages, list) else []
    texts += [f"{key}: {value}" for key, value in errors.items()] if isinstance(errors, dict) else []
    return f": {plain('; '.join(texts), 300)}" if texts else ""
