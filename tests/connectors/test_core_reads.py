from clawback.enforcement.core.specs import read_secrets
from clawback.model import CredentialRef, LaunchSpec


def test_the_core_gives_the_agent_what_is_current_and_knows_it_by_its_present_identity(store, tmp_path):
    before, after = (
        CredentialRef(kind="vault-token", name="vault-token", identifiers={"accessor": accessor}) for accessor in "ab"
    )
    spec = LaunchSpec(
        agent="refunds", command=("true",), policy="p", policy_version=1, policy_text="", credentials=(before,)
    )
    store.put("refunds", before, "before")
    assert read_secrets(tmp_path / "secrets", spec) == ({"vault-token": "before"}, (before,))
    store.stage("refunds", after, "after")
    assert read_secrets(tmp_path / "secrets", spec) == ({"vault-token": "before"}, (before,))
    store.promote("refunds", "vault-token")
    assert read_secrets(tmp_path / "secrets", spec) == ({"vault-token": "after"}, (after,))
