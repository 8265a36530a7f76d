"""Each form of a policy file is told apart and read strictly; what is too wide or unknown is named with its key."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.kernel import seccomp
from clawback.enforcement.policy.endpoints import RequestMatch
from clawback.enforcement.policy.globs import glob, host_glob
from clawback.enforcement.policy.loader import load
from clawback.enforcement.policy.types import PolicyFile
from clawback.errors import InvalidInput

DATA = Path(os.environ.get("CLAWBACK_TEST_DATA", Path(__file__).parents[4] / "shared" / "data")) / "openshell"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"others' policies are not here: {DATA}")

OPENSHELL = """\
version: 1
filesystem_policy:
  include_workdir: true
  read_only: [/usr, /etc, /srv/app]
  read_write: [/tmp, /srv/work]
landlock:
  compatibility: hard_requirement
process:
  run_as_user: sandbox
  run_as_group: "1500"
network_policies:
  github:
    endpoints:
      - host: api.github.com
        port: 443
        protocol: rest
        enforcement: enforce
        access: read-only
        deny_rules:
          - {method: "*", path: "/repos/*/*/hooks/**"}
      - host: "*.internal.example.com"
        ports: [443, 8443]
        allowed_ips: [10.20.0.0/16]
    binaries:
      - {path: /usr/bin/curl}
"""


def test_an_openshell_document():
    file = load(OPENSHELL, where="p")
    assert file.form == "OpenShell version 1"
    sandbox = file.sandbox
    assert (sandbox.readable, sandbox.writable) == (("/srv/app",), ("/tmp", "/srv/work"))
    assert (sandbox.workdir_writable, sandbox.skip_missing, sandbox.required) == (True, True, ("landlock",))
    (rule,) = file.network.rules
    assert (rule.key, rule.name, rule.binaries) == ("github", "github", ("/usr/bin/curl",))
    github, internal = rule.endpoints
    assert [match.method for match in github.allow] == ["GET", "HEAD", "OPTIONS"]
    assert github.deny == (RequestMatch(method="*", path="/repos/*/*/hooks/**"),)
    assert (github.enforce, github.ports, internal.ports, internal.allowed_ips) == (
        True, (443,), (443, 8443), ("10.20.0.0/16",),
    )  # fmt: skip
    assert file.unenforced == ("process.run_as_group",)


def test_what_openshell_leaves_out_has_its_defaults():
    file = load("version: 1\n", where="p")
    assert file.sandbox.workdir_writable
    assert file.sandbox.required == ()
    assert not load("version: 1\nfilesystem_policy: {read_only: [/usr]}\n", where="p").sandbox.workdir_writable
    endpoint = load(OPENSHELL.replace("        enforcement: enforce\n", ""), where="p").network.rules[0].endpoints[0]
    assert not endpoint.enforce  # audit is OpenShell's default


@needs_data
@pytest.mark.parametrize("name", sorted(path.name for path in DATA.glob("*.yaml")) if DATA.is_dir() else ["none"])
def test_policies_of_others_are_read(name: str):
    file = load((DATA / name).read_bytes(), where=name)
    assert file.form == ("NemoClaw preset" if name.startswith("preset") else "OpenShell version 1")
    assert file.network.rules
    assert all(rule.endpoints for rule in file.network.rules)
    if name.startswith("preset"):
        assert "matches no program" in file.effects[0].how


def edited(old: str, new: str) -> str:
    assert old in OPENSHELL
    return OPENSHELL.replace(old, new)


WRONG = [
    ("version: 1\n", "version: 2\n", 1, "version 2"),
    ("version: 1\n", "version: 1\nnetwork: {}\n", 2, "unknown key 'network'"),
    ("include_workdir", "include_workdirs", 3, "include_workdirs"),
    ("/srv/work", "/", 5, "whole host"),
    ("/srv/work", "/etc", 5, "part of the system"),
    ("/srv/work", "/etc/cron.d", 5, "part of the system"),
    ("/srv/work", "/usr/local", 5, "part of the system"),
    ("/srv/work", "/proc/sys", 5, "part of the system"),
    ("/srv/app", "/home/somebody", 4, "too wide: /home/somebody"),
    ("/srv/app", "/root", 4, "too wide: /root"),
    ("/srv/app", "../x", 4, "relative"),
    ("hard_requirement", "always", 7, "always"),
    ("run_as_user: sandbox", "run_as_user: root", 9, "root"),
    ("run_as_user: sandbox", 'run_as_user: "0"', 9, "root"),
    ("run_as_user: sandbox", 'run_as_user: "nobody"', 9, "not a user"),
    ("  github:", "  _provider_x:", 13, "providers"),
    ("host: api.github.com", "host: '*'", 14, "too wide"),
    ("host: api.github.com", "host: '*.com'", 14, "too wide"),
    ("host: api.github.com", "host: '*.co.uk'", 14, "too wide"),
    ("host: api.github.com", "host: 'a**.b.com'", 14, "wildcard"),
    ("host: api.github.com", "host: 'api.*x.example.com'", 14, "wildcard"),
    ("host: api.github.com", "host: https://api.github.com", 14, "not a URL"),
    ("host: api.github.com", "host: 0x7f.1", 14, "unusual spelling"),
    ("port: 443\n        protocol", "port: 0\n        protocol", 15, "port"),
    ("port: 443\n        protocol", "port: 443\n        ports: [1]\n        protocol", 16, "both port and ports"),
    ("protocol: rest", "protocol: sql", 16, "SQL"),
    ("protocol: rest", "protocol: gopher", 16, "gopher"),
    ("protocol: rest\n", "protocol: rest\n        tls: skip\n", 17, "TLS"),
    ("protocol: rest\n", "protocol: tcp\n", 17, "looks at no requests"),
    ("        protocol: rest\n", "", 17, "no effect without a protocol"),
    ("enforcement: enforce", "enforcement: maybe", 17, "maybe"),
    ("access: read-only", "access: everything", 18, "everything"),
    ("access: read-only", "access: full\n        rules: [{allow: {method: GET, path: /}}]", 19, "both"),
    ("        access: read-only\n", "", 14, "needs rules or access"),
    ('method: "*"', "method: get", 20, "not a method"),
    ("/repos/*/*/hooks/**", "repos", 20, "relative"),
    ("/repos/*/*/hooks/**", "/*/*/*/*/*/*/*/*/*", 20, "wildcards"),
    ("/repos/*/*/hooks/**", "/[a", 20, "does not end"),
    ("10.20.0.0/16", "0.0.0.0/0", 23, "too wide"),
    ("10.20.0.0/16", "169.254.169.254/32", 23, "never reached"),
    ("10.20.0.0/16", "10.20.0.1/16", 23, "not a network"),
    ("/usr/bin/curl", "curl", 25, "absolute"),
    ("/usr/bin/curl", "/usr/../bin/curl", 25, "absolute"),
    ('"*.internal.example.com"\n        ports', "api.github.com\n        ports", 21, "another allowed_ips"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "what"), WRONG)
def test_what_is_wrong_is_named(old: str, new: str, line: int, what: str):
    with pytest.raises(InvalidInput) as caught:
        load(edited(old, new), where="p.yaml")
    assert what in caught.value.message, caught.value.message
    # Within an entry the line may be the entry's first.
    named = int(caught.value.message.split(":")[1])
    assert abs(named - line) <= 2, caught.value.message
    assert caught.value.hint


def test_middlewares_are_refused_and_not_passed_over():
    text = OPENSHELL + "network_middlewares:\n  redact: {middleware: openshell/regex, endpoints: {include: [a.b.c]}}\n"
    with pytest.raises(InvalidInput, match="no middlewares"):
        load(text, where="p")


def test_other_protocols_matchers():
    text = """\
version: 1
network_policies:
  a:
    binaries: [{path: /**}]
    endpoints:
      - {host: a.example.com, port: 443, protocol: graphql, enforcement: enforce, access: read-write}
      - host: b.example.com
        port: 443
        protocol: mcp
        enforcement: enforce
        rules:
          - allow: {method: initialize}
          - allow: {method: tools/call, tool: {any: [search_*, list]}}
        deny_rules: [{method: tools/call, tool: send_mail}]
      - host: c.example.com
        port: 443
        protocol: websocket
        rules: [{allow: {method: GET, path: /live, query: {room: {any: [a, b]}, v: "1"}}}]
      - {host: d.example.com, port: 443, protocol: json-rpc, rules: [{allow: {method: reports.search}}]}
      - host: e.example.com
        port: 443
        protocol: graphql
        rules: [{allow: {operation_type: mutation, fields: [createIssue]}}]
      - {host: f.example.com, port: 5432, protocol: tcp}
      - {port: 22, allowed_ips: [10.1.2.0/24]}
"""
    a, b, c, d, e, f, g = load(text, where="p").network.rules[0].endpoints
    assert [match.operation for match in a.allow] == ["query", "mutation"]
    assert b.allow[1].params == (("name", ("search_*", "list")),)
    assert b.mcp_versions == ("2025-11-25",)
    assert c.allow[0].query == (("room", ("a", "b")), ("v", ("1",)))
    assert d.allow[0].method == "reports.search"
    assert e.allow[0].fields == ("createIssue",)
    assert f.allow == ()
    assert (g.host, g.allowed_ips) == ("", ("10.1.2.0/24",))


@pytest.mark.parametrize(
    ("pattern", "separator", "yes", "no"),
    [
        ("/repos/**", "/", ["/repos/a", "/repos/a/b"], ["/repos", "/reposx/a"]),
        ("/repos/*/x", "/", ["/repos/a/x"], ["/repos/a/b/x"]),
        ("/a**b", "/", ["/ab", "/axb"], ["/a/b"]),
        ("/v?/[0-9]", "/", ["/v1/2"], ["/v1/a", "/v//2"]),
        ("/[!a]x", "/", ["/bx"], ["/ax", "//x"]),
        ("*-api.example.com", ".", ["x-api.example.com"], ["a.x-api.example.com"]),
        ("**.example.com", ".", ["a.example.com", "a.b.example.com"], ["example.com", "aexample.com"]),
        ("1.*", ".", ["1.2"], ["1.2.3"]),
    ],
)
def test_globs(pattern: str, separator: str, yes: list[str], no: list[str]):
    assert all(glob(pattern, separator).fullmatch(text) for text in yes)
    assert not any(glob(pattern, separator).fullmatch(text) for text in no)
    assert host_glob("api.example.com").fullmatch("api.example.com")
    assert not host_glob("api.example.com").fullmatch("apixexample.com")


SANDBOX = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: support}
spec:
  isolation:
    syscalls:
"""


def lists(text: str) -> PolicyFile:
    return load(SANDBOX + "\n".join("      " + line for line in text.splitlines()) + "\n", where="p")


def test_lists_of_calls(bpf: Any):
    file = lists("""\
base: minimal
deny: [flock, {names: [mkdir, mkdirat], errno: ENOSYS}]
escalate: [connect, flock]
allow: [io_setup]
decide:
  - {names: [connect], decision: allow, addresses: ["127.0.0.1:3128"]}
  - {names: [connect], decision: deny, addresses: ["*:25"]}
""")
    calls = file.sandbox.syscalls
    assert [rule.decision for rule in file.sandbox.escalations] == ["allow", "deny"]
    assert bpf.answer(calls, "mkdir") == seccomp.deny(38)
    assert bpf.answer(calls, "flock") == seccomp.deny()  # denied wins over escalated
    assert bpf.answer(calls, "connect") == seccomp.ESCALATE
    assert bpf.answer(calls, "io_setup") == seccomp.ALLOW
    assert bpf.answer(calls, "kcmp") == seccomp.deny()
    assert bpf.answer(calls, "ptrace") == seccomp.deny()


def test_only_what_is_listed(bpf: Any):
    from clawback.enforcement.policy.floor import NEEDED

    calls = lists(f"base: none\nallow: [{', '.join(NEEDED)}, openat]").sandbox.syscalls
    assert bpf.answer(calls, "openat") == seccomp.ALLOW
    assert bpf.answer(calls, "mkdir") == seccomp.deny()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("deny: [flokc]", "not a system call"),
        ("deny: [execve]", "too narrow"),
        ("deny: [seccomp]", "could not be sealed"),
        ("deny: [rt_sigreturn]", "could not be sealed"),
        ("base: none\nallow: [read]", "too narrow"),
        ("base: none", "allows nothing"),
        ("base: wide", "wide"),
        ("allow: [ptrace]", "no policy opens it"),
        ("escalate: [mount]", "no policy opens it"),
        ("escalate: [read]", "cannot be escalated"),
        ("escalate: [sendmsg]", "cannot be escalated"),
        ("deny: [{names: []}]", "no names"),
        ("deny: [{names: [flock], errno: ENOPE}]", "errno"),
        ("deny: [{names: [flock], args: [{index: 6, value: 1, op: eq}]}]", "index"),
        ("deny: [{names: [flock], args: [{index: 0, value: 1, op: about}]}]", "about"),
        ("deny: [{names: [flock], args: [{index: 0, value: 18446744073709551616, op: eq}]}]", "value"),
        ("deny: [{names: [flock], args: [{index: 0, value: 1, op: ge}, {index: 0, value: 9, op: le}]}]", "second test"),
        ("escalate: [connect]\ndecide: [{names: [openat], decision: deny}]", "not escalated"),
        ("escalate: [connect]\ndecide: [{names: [connect], decision: perhaps}]", "perhaps"),
        ("escalate: [connect]\ndecide: [{names: [connect], decision: allow, addresses: ['*:443']}]", "every host"),
        (
            "escalate: [connect]\ndecide: [{names: [connect], decision: allow, addresses: ['0.0.0.0/0:443']}]",
            "too wide",
        ),
        ("escalate: [flock]\ndecide: [{names: [flock], decision: allow, paths: [/srv]}]", "has no paths"),
        ("profile: {defaultAction: SCMP_ACT_ALLOW}\ndeny: [flock]", "unknown key"),
    ],
)
def test_lists_that_are_wrong(text: str, what: str):
    with pytest.raises(InvalidInput) as caught:
        lists(text)
    assert what in caught.value.message
    assert "spec.isolation.syscalls" in caught.value.message


def profile(**more: Any) -> str:
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []} | more)


def test_a_profile_inside_a_policy_alone_and_beside_it(tmp_path: Path, bpf: Any):
    rules = [{"names": ["flock"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    text = profile(syscalls=rules)
    alone = load(json.dumps(json.loads(text), indent="\t"), where="p")  # tabs, as in Docker's own
    assert alone.form == "seccomp profile"
    inside = lists(f"profile: {text}")
    place = tmp_path / "profile.json"
    place.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    beside = lists(f"profileFile: {place}\nsha256: {digest}")
    for file in (alone, inside, beside):
        assert bpf.answer(file.sandbox.syscalls, "flock") == seccomp.deny(38)
    place.write_text(text + " ")
    with pytest.raises(InvalidInput, match="is another file"):
        lists(f"profileFile: {place}\nsha256: {digest}")
    with pytest.raises(InvalidInput, match="No such file"):
        lists(f"profileFile: {place}-not\nsha256: {digest}")
    with pytest.raises(InvalidInput, match="not a file"):
        lists(f"profileFile: /dev/zero\nsha256: {digest}")
    with pytest.raises(InvalidInput, match="'sha256' is missing"):
        lists(f"profileFile: {place}")


def rule(name: str = "flock", action: str = "SCMP_ACT_ERRNO", **more: Any) -> str:
    return profile(syscalls=[{"names": [name], "action": action} | more])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (profile(defaultAction="SCMP_ACT_ERRNO"), "too narrow"),
        (profile(defaultAction="SCMP_ACT_NOPE"), "SCMP_ACT_NOPE"),
        (profile(defaultActions="x"), "defaultActions"),
        (profile(architectures=["SCMP_ARCH_S390X"]), "every call would kill"),
        (profile(architectures=[], archMap=[]), "both"),
        (profile(flags=["SECCOMP_FILTER_FLAG_NEW"]), "SECCOMP_FILTER_FLAG_NEW"),
        (rule("prctl"), "could not be sealed"),
        (rule("execve", "SCMP_ACT_KILL"), "too narrow"),
        (rule("flokc"), "not a system call"),
        (rule("write", "SCMP_ACT_NOTIFY"), "too narrow"),
        (rule("mprotect", "SCMP_ACT_NOTIFY"), "cannot be escalated"),
        (profile(defaultAction="SCMP_ACT_NOTIFY"), "too narrow"),
        (rule(name="x", names=None), "list"),
        (profile(syscalls=[{"name": "flock", "names": ["flock"], "action": "SCMP_ACT_ERRNO"}]), "both"),
        (profile(syscalls=[{"action": "SCMP_ACT_ERRNO"}]), "'names' is missing"),
        (profile(syscalls=[{"names": [], "action": "SCMP_ACT_ERRNO"}]), "no names"),
        (rule(errnoRet=4096), "errnoRet"),
        (rule(args=[{"index": 0, "value": 1}]), "'op' is missing"),
        (rule(args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]), "value"),
        (rule(includes={"kernel": "5"}), "kernel"),
        (rule(excludes={"minKernel": "five"}), "not a kernel version"),
    ],
)
def test_profiles_that_are_wrong(text: str, what: str):
    with pytest.raises(InvalidInput) as caught:
        load(text, where="p")
    assert what in caught.value.message, caught.value.message
    assert caught.value.hint


def kept(**more: Any) -> list[str]:
    """The rule's calls as far as the rule holds here, on x86-64 under Linux 6.1."""
    from clawback.enforcement.policy.nodes import documents
    from clawback.enforcement.policy.seccomp_profile import seccomp_profile

    root = documents(rule(**more), where="p")[1][0]
    found = seccomp_profile(root, [], machine="x86_64", release="6.1.0-18-amd64")
    return [name for one in found.rules for name in one.names]


def test_conditions_of_rules_are_docker_s():
    assert kept() == ["flock"]
    assert kept(includes={"caps": ["CAP_SYS_ADMIN"]}) == []  # an agent has no capability
    assert kept(excludes={"caps": ["CAP_SYS_ADMIN"]}) == ["flock"]
    assert kept(includes={"arches": ["amd64", "x32"]}) == ["flock"]
    assert kept(includes={"arches": ["s390x"]}) == []
    assert kept(excludes={"arches": ["amd64"]}) == []
    assert kept(includes={"minKernel": "4.8"}) == ["flock"]
    assert kept(includes={"minKernel": "6.2"}) == []
    assert kept(excludes={"minKernel": "6.1"}) == []
    assert kept(includes={}, excludes={}, args=[], comment="") == ["flock"]
    assert kept(args=None) == ["flock"]


def test_an_unknown_call_is_told_apart_from_a_foreign_one():
    known = load(rule("riscv_flush_icache", "SCMP_ACT_ALLOW"), where="p")
    assert not known.unenforced
    new = load(rule("call_of_a_later_kernel", "SCMP_ACT_ALLOW"), where="p")
    assert "call_of_a_later_kernel" in new.unenforced[0]


def test_every_action_has_its_meaning(bpf: Any):
    words = {
        "SCMP_ACT_KILL": seccomp.KILL_THREAD, "SCMP_ACT_KILL_THREAD": seccomp.KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS": seccomp.KILL_PROCESS, "SCMP_ACT_TRAP": seccomp.TRAP,
        "SCMP_ACT_ERRNO": seccomp.deny(), "SCMP_ACT_TRACE": seccomp.deny(38), "SCMP_ACT_NOTIFY": seccomp.ESCALATE,
        "SCMP_ACT_LOG": seccomp.LOG, "SCMP_ACT_ALLOW": seccomp.ALLOW,
    }  # fmt: skip
    for word, result in words.items():
        assert bpf.answer(load(rule("flock", word), where="p").sandbox.syscalls, "flock") == result, word
    assert bpf.answer(load(rule("flock", errnoRet=0), where="p").sandbox.syscalls, "flock") == 0x00050000


def test_apis_come_to_egress_rules_where_their_requests_are_known():
    text = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: support}
spec:
  permissions:
    allowedAPIs: [crm.read, "ticket.*", unknown.api]
    deniedAPIs: ["admin.*", user.delete]
    apis:
      crm.read: [{domain: crm.example.com, methods: [GET]}]
      ticket.create: [{domain: tickets.example.com, methods: [POST]}, {domain: t2.example.com}]
      admin.users: [{domain: crm.example.com, paths: ["/admin/**"]}]
---
networkPolicy:
  name: support
  egress: {allow: [{domain: api.example.com}]}
"""
    file = load(text, where="p")
    assert [(rule.name, rule.domain) for rule in file.network.allow] == [
        ("allow-1:api.example.com", "api.example.com"),
        ("allowedAPIs:crm.read", "crm.example.com"),
        ("allowedAPIs:ticket.create-1", "tickets.example.com"),
        ("allowedAPIs:ticket.create-2", "t2.example.com"),
    ]
    assert [(rule.name, rule.paths) for rule in file.network.deny] == [("deniedAPIs:admin.users", ("/admin/**",))]
    assert file.unenforced == (
        "spec.permissions.allowedAPIs[2] unknown.api", "spec.permissions.deniedAPIs[1] user.delete",
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="network is none"):
        load(text.replace("spec:\n", "spec:\n  isolation: {network: none}\n"), where="p")
    with pytest.raises(InvalidInput, match="too wide"):
        load(text.replace("crm.example.com, methods", '"*.com", methods'), where="p")


def test_a_gpu_is_given_to_nobody():
    text = SANDBOX.replace("  isolation:\n    syscalls:\n", "  resources: {gpuAccess: ACCESS}\n")
    for access in ("none", "inference-only"):
        assert not load(text.replace("ACCESS", access), where="p").unenforced
    with pytest.raises(InvalidInput, match="device nodes are not shown"):
        load(text.replace("ACCESS", "full"), where="p")


def test_forms_are_not_mixed():
    with pytest.raises(InvalidInput, match="second document"):
        load(OPENSHELL + "---\n" + SANDBOX, where="p")
    with pytest.raises(InvalidInput, match="second document"):
        load(profile() + "\n---\nversion: 1\n", where="p")


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["*", "GET", "SCMP_ACT_ERRNO"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
places = st.sampled_from([
    "version", "filesystem_policy", "landlock", "process", "network_policies", "preset", "defaultAction", "syscalls",
    "architectures", "archMap", "flags",
])  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.dictionaries(places, hostile, max_size=5))
def test_hostile_documents_are_refused_and_nothing_else(document: dict[str, Any]):
    try:
        load(json.dumps(document), where="p")
    except InvalidInput as error:
        sound = bool(error.hint) and error.message.isprintable()
    else:
        sound = True
    assert sound
