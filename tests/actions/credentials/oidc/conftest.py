"""A real OpenID Connect provider, once for all tests here, and agents that hold its clients and tokens."""

import base64
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from clawback.model import CredentialRef

_HERE = Path(__file__).parents[3] / "oidc_provider" / "provider.py"
_SPEC = importlib.util.spec_from_file_location("oidc_provider_for_tests", _HERE)
_ROOM = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _ROOM
_SPEC.loader.exec_module(_ROOM)


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    if why := _ROOM.absent():
        pytest.skip(why)
    made = _ROOM.Provider(tmp_path_factory.mktemp("oidc"))
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def with_oidc(provider, make_bench):
    """A bench whose agent holds a client, and by it a user's tokens. `policy`: `rotate`, an update replaces the secret,
    or `keep`, it does not. `name` `steady`: the registration access token stays. `managed`: Clawback may manage it.
    """

    def make(policy="rotate", *, name="agent", managed=True, jwt=False):
        bench = make_bench()
        bench.oidc = provider.connector(policy)
        registered = provider.register(policy, client_name=name)
        identifiers = {"issuer": provider.issuer, "client_id": registered["client_id"]}
        bench.client = json.dumps({key: registered[key] for key in ("client_id", "client_secret")})
        bench.client_ref = CredentialRef(kind="oidc-client", name="client", identifiers=identifiers)
        bench.store.put(bench.agent, bench.client_ref, bench.client)
        bench.store.values.add(registered["client_secret"])
        tokens = provider.control_("grant", client_id=registered["client_id"], sub="joe", scope="openid offline_access")
        if jwt:
            won = json.loads(provider.credentials_token(bench.client, resource="urn:jwt", scope="read"))
            tokens["access_token"] = won["access_token"]
        bench.tokens = tokens
        bench.store.values |= set(tokens.values())
        bench.token_ref = CredentialRef(kind="oidc-token", name="tokens", identifiers=identifiers)
        bench.store.put(bench.agent, bench.token_ref, json.dumps(tokens))
        bench.registered = registered
        if managed:
            uri = registered["registration_client_uri"]
            ours = CredentialRef(kind="oidc-registration", name="reg", identifiers=identifiers | {"uri": uri})
            bench.store.put("clawback", ours, registered["registration_access_token"])
            bench.store.values.add(registered["registration_access_token"])
        bench.identifiers = identifiers
        return bench

    return make


@pytest.fixture
def with_token(with_oidc):
    """The same, with another value in the place of the tokens."""

    def make(value, **options):
        bench = with_oidc(**options)
        bench.store.put(bench.agent, bench.token_ref, value)
        return bench

    return make


@pytest.fixture
def holding():
    """What else a reference says."""

    def say(bench, **identifiers):
        ref = dataclasses.replace(bench.token_ref, identifiers=bench.identifiers | identifiers)
        bench.store.put(bench.agent, ref, bench.store.current(bench.agent, "tokens"))

    return say


def unsigned(payload):
    """A JWT in form."""
    parts = ({"alg": "RS256", "typ": "at+jwt"}, payload)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2ln"])


@pytest.fixture
def make_jwt():
    return unsigned
