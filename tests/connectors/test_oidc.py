"""Issuers that are absent, slow, hostile or wrong: each is called what it is, and no secret goes where it must not."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clawback.connectors.oidc import OidcConnector
from clawback.connectors.oidc_issuer import Issuer, client_parts
from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused, Unreachable
from clawback.services.process import free_port

CLIENT = json.dumps({"client_id": "c d", "client_secret": "s3cr3t:%"})


class Server:
    """Answers as told: path → (status, body); keeps what it was sent."""

    def __init__(self):
        self.answers, self.seen = {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                length = int(self.headers.get("content-length") or 0)
                server.seen.append((self.command, self.path, dict(self.headers), self.rfile.read(length).decode()))
                status, body = server.answers.get(self.path, (404, {}))
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("location", f"{server.url}/elsewhere")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the library's names

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.publish()

    def publish(self, **changes):
        names = ("token", "revocation", "introspection", "userinfo", "registration")
        document = {"issuer": self.url, **{f"{name}_endpoint": f"{self.url}/{name}" for name in names}, **changes}
        self.answers["/.well-known/openid-configuration"] = (200, document)

    def stop(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.stop()


@pytest.fixture
def oidc(server, tmp_path):
    file = tmp_path / "client.json"
    file.write_text(CLIENT)
    file.chmod(0o600)
    return OidcConnector([Issuer(server.url, credentials_file=file)])


def test_a_client_authenticates_as_the_standard_says(server, oidc):
    server.answers["/revocation"] = (200, b"")
    assert oidc.revoke(server.url, "tok", hint="access_token") == ""
    _, _, headers, body = server.seen[-1]
    assert headers["authorization"] == "Basic YyUyMGQ6czNjcjN0JTNBJTI1"  # form-encoded before it is encoded
    assert body == "token=tok&token_type_hint=access_token"
    for client, wanted in (
        ({"client_id": "p"}, "client_id=p"),
        (
            {"client_id": "p", "client_secret": "x", "token_endpoint_auth_method": "client_secret_post"},
            "client_secret=x",
        ),
    ):
        oidc.revoke(server.url, "tok", hint="access_token", client=json.dumps(client))
        assert "authorization" not in server.seen[-1][2]
        assert wanted in server.seen[-1][3]


@pytest.mark.parametrize(
    "value", ["", "x", "[]", '"s3cr3t"', '{"client_secret": "s3cr3t"}', '{"client_id": 1, "client_secret": "s3cr3t"}']
)
def test_a_client_credential_that_is_none_is_said_so_without_its_value(value):
    with pytest.raises(InvalidInput) as error:
        client_parts(value)
    assert "s3cr3t" not in str(error.value) + error.value.hint


def test_other_ways_to_authenticate_are_named():
    with pytest.raises(InvalidInput, match="private_key_jwt"):
        client_parts('{"client_id": "c", "client_secret": "s", "token_endpoint_auth_method": "private_key_jwt"}')


@pytest.mark.parametrize(
    "url",
    ["http://id.test", "ftp://id.test", "id.test", "https://", "https://u:p@id.test", "http://[::1", "https://h#f"],
)
def test_an_issuer_that_secrets_must_not_be_sent_to_is_refused(url):
    with pytest.raises(InvalidInput, match="https"):
        Issuer(url)


def test_metadata_that_names_another_issuer_or_leads_into_the_clear_is_refused(server, oidc):
    server.publish(issuer="https://other.test")
    with pytest.raises(NotFound, match="metadata of its own"):
        oidc.revoke(server.url, "t", hint="access_token")
    server.publish(revocation_endpoint="http://elsewhere.test/revoke")
    with pytest.raises(InvalidInput, match="revocation_endpoint"):
        oidc.revoke(server.url, "t", hint="access_token")
    assert all(method == "GET" for method, *_ in server.seen), "nothing was sent"


def test_metadata_of_plain_oauth_is_found_where_its_standard_puts_it(server, tmp_path):
    del server.answers["/.well-known/openid-configuration"]
    issuer = f"{server.url}/tenant"
    server.answers["/.well-known/oauth-authorization-server/tenant"] = (
        200, {"issuer": issuer, "token_endpoint": f"{server.url}/token"},
    )  # fmt: skip
    connector = OidcConnector([Issuer(issuer)])
    server.answers["/token"] = (401, {"error": "invalid_client"})
    assert connector.authenticates(issuer, CLIENT) == (False, "token endpoint: HTTP 401 invalid_client")
    assert connector.introspect(issuer, "t", hint="access_token") is None
    assert connector.revoke(issuer, "t", hint="access_token") == "the issuer has no revocation endpoint"
    assert connector.use(issuer, "t") is None
    with pytest.raises(Refused, match="registers no clients"):
        connector.register(issuer, {})


def test_a_redirect_is_not_followed(server, oidc):
    server.answers["/revocation"] = (307, {})
    with pytest.raises(ClawbackError, match="307"):
        oidc.revoke(server.url, "t", hint="access_token")
    assert not [path for _, path, *_ in server.seen if path == "/elsewhere"]


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ((400, {"error": "invalid_grant"}), True),
        ((400, {"error": "unauthorized_client"}), True),
        ((401, {"error": "unauthorized_client"}), False),
        ((401, b"no"), False),
        ((400, {"error": "invalid_client"}), False),
    ],
)
def test_a_known_client_is_told_from_a_strange_one(server, oidc, answer, accepted):
    server.answers["/token"] = answer
    assert oidc.authenticates(server.url, CLIENT)[0] is accepted


@pytest.mark.parametrize("answer", [(400, {"error": "invalid_request"}), (403, b"<html>"), (404, {})])
def test_an_answer_that_says_neither_is_no_answer(server, oidc, answer):
    server.answers["/token"] = answer
    with pytest.raises(ClawbackError):
        oidc.authenticates(server.url, CLIENT)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_an_issuer_that_cannot_serve_is_unreachable(server, oidc, status):
    server.answers["/introspection"] = (status, {"error": "server_error"})
    with pytest.raises(Unreachable):
        oidc.introspect(server.url, "t", hint="access_token")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", {"active": "yes"}, {}, b"\xff" * 10])
def test_an_introspection_that_says_nothing_is_not_read_as_inactive(server, oidc, body):
    server.answers["/introspection"] = (200, body)
    with pytest.raises(ClawbackError):
        oidc.introspect(server.url, "t", hint="access_token")


def test_what_the_issuer_sends_is_bounded_and_never_repeated(server, oidc):
    server.answers["/introspection"] = (200, b" " * (2 << 20))
    with pytest.raises(ClawbackError, match="more than"):
        oidc.introspect(server.url, "t", hint="access_token")
    server.answers["/introspection"] = (400, {"error": "x\x1b[31m s3cr3t", "error_description": "you sent s3cr3t"})
    with pytest.raises(ClawbackError) as error:
        oidc.introspect(server.url, "s3cr3t", hint="access_token")
    assert "s3cr3t" not in str(error.value)
    server.answers["/introspection"] = (200, {"active": True, "jti": "tok", "sub": "joe", "echo": "tok"})
    assert oidc.introspect(server.url, "tok", hint="access_token") == {"active": True, "sub": "joe"}


def test_nobody_there_is_unreachable_and_an_issuer_that_is_not_configured_is_named(oidc):
    gone = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable):
        OidcConnector([Issuer(gone)]).use(gone, "t")
    with pytest.raises(InvalidInput, match=r"strange\.test"):
        oidc.use("https://strange.test", "t")


def test_our_own_secrets_lie_where_nobody_else_reads_them(server, tmp_path):
    file = tmp_path / "client.json"
    file.write_text(CLIENT)
    file.chmod(0o644)
    for connector, hint in (
        (OidcConnector([Issuer(server.url, credentials_file=file)]), "chmod 600"),
        (OidcConnector([Issuer(server.url, credentials_file=tmp_path / "absent")]), "credentials_file"),
        (OidcConnector([Issuer(server.url)]), "credentials_file"),
    ):
        with pytest.raises(InvalidInput) as error:
            connector.revoke(server.url, "t", hint="access_token")
        assert hint in error.value.hint


def test_preparing_contacts_nobody(oidc, server):
    oidc.prepare()
    assert server.seen == []
