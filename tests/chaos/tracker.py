"""A tracker that keeps issues as Jira Cloud's REST v3 has them, as much of it as `connectors.jira` asks for."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["Tracker"]


class Tracker:
    """One project, `SEC`. `answer` takes a request and returns status and JSON."""

    def __init__(self) -> None:
        self.issues: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        url = urlsplit(target)
        at, asked = url.path.removeprefix("/rest/api/3/").split("/"), json.loads(body) if body else {}
        if at == ["search", "jql"]:
            label = re.findall(r'labels = "([^"]+)"', asked["jql"])[0]
            return 200, {"issues": [{"key": key} for key, x in self.issues.items() if label in x["fields"]["labels"]]}
        if at == ["issue"]:
            key = f"SEC-{len(self.issues) + 1}"
            properties = {one["key"]: one["value"] for one in asked["properties"]}
            self.issues[key] = {"fields": {**asked["fields"], "status": {"name": "Open"}}, "properties": properties}
            self.issues[key]["comments"] = []
            return 201, {"key": key}
        issue = self.issues.get(at[1])
        if issue is None:
            return 404, {"errorMessages": ["Issue does not exist"]}
        if at[2:] == ["comment"]:
            if method == "GET":
                return 200, {"comments": issue["comments"][::-1]}
            issue["comments"].append(asked)
            return 201, asked
        if method == "GET":
            wanted = parse_qs(url.query)["fields"][0].split(",")
            fields = {name: value for name, value in issue["fields"].items() if name in wanted}
            return 200, {"key": at[1], "fields": fields, "properties": issue["properties"]}
        issue["fields"] |= asked["fields"]
        added = [one["add"] for one in asked["update"]["labels"]]
        issue["fields"]["labels"] = list(dict.fromkeys([*issue["fields"]["labels"], *added]))  # a set, to Jira
        issue["properties"] |= {one["key"]: one["value"] for one in asked["properties"]}
        return 204, None
