"""Policy files: the seed's forms are read, and what is unknown, too wide or malformed is named."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.policy.loader import load
from clawback.enforcement.policy.types import PolicyFile
from clawback.errors import InvalidInput

SANDBOX = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata:
  name: customer-support-agent
spec:
  isolation:
    network: restricted
    filesystem: read-only
    syscalls: minimal
  resources:
    maxMemory: 4Gi
    maxCPU: 2
    gpuAccess: inference-only
  permissions:
    allowedAPIs:
      - crm.read
      - ticket.resolve
    deniedAPIs:
      - admin.*
      - user.delete
  auditLog:
    enabled: true
    destination: siem://security-events
  filesystem:
    readOnly: [/data/reference]
    readWrite: [/data/work]
"""
NETWORK = """\
networkPolicy:
  name: sales-ops-agent
  egress:
    allow:
      - domain: "*.salesforce.com"
        methods: [GET, POST, PATCH]
      - domain: "api.hubspot.com"
        methods: [GET]
        paths: [/v1/**]
      - domain: "smtp.company.com"
        ports: [587]
    deny:
      - domain: "*" # deny all other outbound traffic
  ingress:
    allow:
      - source: "webhook.salesforce.com"
        path: "/api/v1/events"
  inspection:
    tlsDecrypt: true
    logPayloads: false
    scanForPII: true
"""


def test_the_documented_files_are_read():
    file = load(SANDBOX + "---\n" + NETWORK, where="p.yaml")
    sandbox = file.sandbox
    assert (sandbox.name, sandbox.syscalls.base, sandbox.max_memory, sandbox.max_cpu) == (
        "customer-support-agent", "minimal", 4 * 2**30, 2.0,
    )  # fmt: skip
    assert (sandbox.readable, sandbox.writable) == (("/data/reference",), ("/data/work",))
    assert sandbox.denied_apis == ("admin.*", "user.delete")
    assert [rule.domain for rule in file.network.allow] == ["*.salesforce.com", "api.hubspot.com", "smtp.company.com"]
    assert file.network.allow[2].ports == (587,)
    assert set(file.unenforced) == {
        "spec.permissions.allowedAPIs[0] crm.read", "spec.permissions.allowedAPIs[1] ticket.resolve",
        "spec.permissions.deniedAPIs[0] admin.*", "spec.permissions.deniedAPIs[1] user.delete",
        "spec.auditLog.destination", "networkPolicy.ingress", "networkPolicy.inspection.tlsDecrypt",
        "networkPolicy.inspection.scanForPII",
    }  # fmt: skip


def test_either_document_may_stand_alone_and_the_rest_is_tight():
    assert load(SANDBOX, where="p").network.allow == ()
    assert load(NETWORK, where="p").sandbox.filesystem == "read-only"


def test_bytes_and_text_are_the_same():
    assert load(NETWORK.encode(), where="p") == load(NETWORK, where="p")


WRONG = [
    # what, line, what the message names
    (SANDBOX.replace("maxCPU", "maxCpu"), 12, "maxCpu"),
    (SANDBOX.replace("  resources:", "  isolation: {}\n  resources:"), 10, "twice"),
    (SANDBOX.replace("maxCPU: 2", "maxCPU: two"), 12, "maxCPU"),
    (SANDBOX.replace("maxCPU: 2", "maxCPU: 0"), 12, "maxCPU"),
    (SANDBOX.replace("4Gi", "4 gigs"), 11, "maxMemory"),
    (SANDBOX.replace("4Gi", "0"), 11, "maxMemory"),
    (SANDBOX.replace("read-only", "open"), 8, "filesystem"),
    (SANDBOX.replace("enabled: true", "enabled: yes"), 22, "enabled"),
    (SANDBOX.replace("enabled: true", "enabled: 'true'"), 22, "enabled"),
    (SANDBOX.replace("/data/work", "/"), 26, "readWrite[0]"),
    (SANDBOX.replace("/data/work", "/etc"), 26, "/etc"),
    (SANDBOX.replace("/data/work", "/proc/sys"), 26, "/proc"),
    (SANDBOX.replace("/data/work", "work"), 26, "relative"),
    (SANDBOX.replace("/data/work", "/data/../etc"), 26, ".."),
    (SANDBOX.replace("/data/reference", "/data//x"), 25, "readOnly[0]"),
    (SANDBOX.replace("[/data/work]", str([f"/d/{n}" for n in range(257)])), 26, "256"),
    (SANDBOX.replace("v1\n", "v2\n"), 1, "apiVersion"),
    (SANDBOX.replace("customer-support-agent", "../agent"), 4, "metadata.name"),
    (SANDBOX.replace("crm.read", "'*'"), 16, "every API"),
    (SANDBOX.replace("name: customer-support-agent", "other: 1"), 4, "other"),
    (SANDBOX + "---\n" + SANDBOX, 28, "second"),
    (NETWORK + "---\n" + NETWORK, 23, "second"),
    (SANDBOX + NETWORK, 28, "document of its own"),
    (NETWORK.replace("*.salesforce.com", "*"), 5, "every host"),
    (NETWORK.replace("*.salesforce.com", "*.com"), 5, "too wide"),
    (NETWORK.replace("*.salesforce.com", "*.co.uk"), 5, "too wide"),
    (NETWORK.replace("*.salesforce.com", "a.*.com"), 5, "'*'"),
    (NETWORK.replace("*.salesforce.com", "https://a.com/x"), 5, "URL"),
    (NETWORK.replace("*.salesforce.com", "a.com:443"), 5, "port"),
    (NETWORK.replace("*.salesforce.com", "0x7f.1"), 5, "unusual"),
    (NETWORK.replace("*.salesforce.com", "a_-.com"), 5, "host"),
    (NETWORK.replace("[GET, POST, PATCH]", "[get]"), 6, "methods[0]"),
    (NETWORK.replace("[GET, POST, PATCH]", "[GET, CONNECT]"), 6, "tunnel"),
    (NETWORK.replace("[GET, POST, PATCH]", "[]"), 6, "methods"),
    (NETWORK.replace("[587]", "[0]"), 11, "ports[0]"),
    (NETWORK.replace("[587]", "['587']"), 11, "ports[0]"),
    (NETWORK.replace("[587]", "587"), 11, "list"),
    (NETWORK.replace("/v1/**", "v1"), 9, "paths[0]"),
    (NETWORK.replace("/v1/**", "/v1/../x"), 9, "dot segment"),
    (NETWORK.replace("name: sales-ops-agent", "name: 5"), 2, "name"),
    (NETWORK.replace("tlsDecrypt", "tlsdecrypt"), 19, "tlsDecrypt"),
    ("a: &a [1]\nb: *a\n", 1, "aliases"),
    ("!!python/object/apply:os.system [id]\n", 1, "tags"),
    ("a: [\n", 2, "expected"),
    ("- 1\n", 1, "a list"),
    ("", 1, "empty"),
    ("---\n---\n", 1, "empty"),
    ("[" * 5000, 1, "deep"),
    ("x: '\x00'\n", 1, ""),
    (b"networkPolicy:\n  name: \xff\n", 2, "UTF-8"),
    (b"# " + b"x" * (1024 * 1024), 0, "bytes"),
]


@pytest.mark.parametrize(
    ("text", "line", "names"), WRONG, ids=[f"{n}-{names}" for n, (_, _, names) in enumerate(WRONG)]
)
def test_what_is_wrong_is_named_with_its_line_and_mend(text, line, names):
    with pytest.raises(InvalidInput) as caught:
        load(text, where="p.yaml")
    message = caught.value.message + " " + caught.value.hint
    assert message.startswith(f"p.yaml:{line}:" if line else "p.yaml:"), message
    assert names in message
    assert caught.value.hint
    assert len(message) < 600


def test_no_network_and_an_egress_rule_contradict_each_other():
    with pytest.raises(InvalidInput, match="network is none"):
        load(SANDBOX.replace("network: restricted", "network: none") + "---\n" + NETWORK, where="p")


def _load(text: str | bytes) -> None:
    wrong = None
    try:
        assert isinstance(load(text, where="p"), PolicyFile)
    except InvalidInput as error:
        wrong = error
    if wrong is not None:
        assert wrong.message.startswith("p")
        assert wrong.message.isprintable()


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_crash_the_loader(data):
    _load(data)


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=300))
def test_no_text_crashes_the_loader(text):
    _load(text)


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_no_damaged_policy_crashes_the_loader(data):
    text = SANDBOX + "---\n" + NETWORK
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        piece = data.draw(
            st.sampled_from(
                [
                    "",
                    "*",
                    "&a ",
                    "!!int ",
                    "{",
                    "[",
                    ": ",
                    "- ",
                    "\n",
                    "null",
                    "0x1F",
                    "\t",
                    "'",
                    "---\n",
                    "1:30",
                    ".inf",
                    "\u2028",
                    "<<: ",
                ]
            )
        )
        text = text[:start] + piece + text[end:]
    _load(text)
