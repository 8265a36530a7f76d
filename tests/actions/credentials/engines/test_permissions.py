import pytest

from clawback.actions import vault_raise_transit_minimum, vault_rotate_secret_id, vault_rotate_static_role
from clawback.model import Enforcement

pytestmark = pytest.mark.parts


def test_the_documented_rights_are_enough_for_secret_ids(with_secret_id, least):
    bench = with_secret_id()
    bench.vault = least
    bench.store.begin(bench.agent, "approle")
    step = bench.step(vault_rotate_secret_id.ACTION, name="approle", every=True)
    assert step.run().enforcement is Enforcement.FULL
    assert step.revert().verified


def test_the_documented_rights_are_enough_for_static_roles(with_static_role, least):
    bench = with_static_role(mount="database")
    bench.vault = least
    assert bench.step(vault_rotate_static_role.ACTION, name="orders-db").run().enforcement is Enforcement.FULL


@pytest.mark.parametrize("kind", ["aes256-gcm96", "ed25519", "hmac"])
def test_the_documented_rights_are_enough_for_transit_keys(with_key, least, kind):
    bench = with_key(type=kind, **({"key_size": 32} if kind == "hmac" else {}))
    bench.vault = least
    step = bench.step(vault_raise_transit_minimum.ACTION, name="orders-key")
    assert step.run().enforcement is Enforcement.FULL
    assert step.revert().verified
