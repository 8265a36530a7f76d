from clawback.enforcement.core.specs import read_secrets
from clawback.model import CredentialRef, LaunchSpec


def test_the_core_gives_the_agent_what_is_current(store, tmp_path):
    ref = CredentialRef(kind="vault-token", name="vault-token", identifiers={"accessor": "a"})
    spec = LaunchSpec(
        agent="refunds", command=("true",), policy="p", policy_version=1, policy_text="", credentials=(ref,)
    )
    store.put("refunds", ref, "before")
    assert read_secrets(tmp_path / "secrets", spec) == {"vault-token": "before"}
    store.stage("refunds", ref, "after")
    assert read_secrets(tmp_path / "secrets", spec) == {"vault-token": "before"}
    store.promote("refunds", "vault-token")
    assert read_secrets(tmp_path / "secrets", spec) == {"vault-token": "after"}
