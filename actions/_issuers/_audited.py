"""What the audit device's log says was issued with one token, or by logins with one secret-id."""

from __future__ import annotations

from clawback.actions._records import Records
from clawback.actions._walk import Issued
from clawback.model import CredentialNode, Known
from clawback.world import Audited, AuditLog

__all__ = ["from_batch", "from_log"]

_MAX_HASHES = 2_000
_SECOND_NS = 1_000_000_000


def from_batch(records: Records, log: AuditLog, node: CredentialNode, token: str) -> Issued:
    """What was issued with a batch token, by its own HMAC: leases, as it can make no tokens."""
    found: dict[str, CredentialNode] = {}
    for entry in log.entries:
        if entry.actor_token_hash == token:
            for made in _made(records, node, entry):
                found[made.key] = found[made.key].merged(made) if made.key in found else made
    return Issued(nodes=tuple(found.values()))


def from_log(records: Records, log: AuditLog, node: CredentialNode, *, actor: str = "", login: str = "") -> Issued:
    """By HMAC of the token's accessor, or of the secret-id.

    A token that is dead has no accessor to be found by: what it issued is looked for through it, to any depth, for a
    dead child may have left an orphan.
    """
    actors, logins = [actor] if actor else [], [login] if login else []
    seen: set[str] = set()
    found: dict[str, CredentialNode] = {}
    while (actors or logins) and len(seen) < _MAX_HASHES:
        by_login = not actors
        one = logins.pop() if by_login else actors.pop()
        if one in seen:
            continue
        seen.add(one)
        for entry in log.entries:
            if one != (entry.login_hash if by_login else entry.actor_hash):
                continue
            for made in _made(records, node, entry):
                found[made.key] = found[made.key].merged(made) if made.key in found else made
            if entry.token_hash and not records.accessor_of(entry.token_hash):
                actors.append(entry.token_hash)
            if entry.secret_id_hash and not _live_secret_id(records, entry):
                logins.append(entry.secret_id_hash)
    missing = [log.cut] if log.cut else []
    if actors or logins:
        missing.append(f"{node.key}: more than {_MAX_HASHES} steps in the audit log were not followed")
    return Issued(nodes=tuple(found.values()), missing=tuple(missing))


def _made(records: Records, node: CredentialNode, entry: Audited) -> list[CredentialNode]:
    made = []
    said = f"the audit log has it issued at {entry.path[:200]}"
    if entry.token_hash:
        accessor = records.accessor_of(entry.token_hash)
        if accessor and accessor != node.id and accessor not in records.reissued:
            made.append(
                CredentialNode(kind="vault-token", id=accessor, known=Known.ISSUER, said=said, issued_ns=entry.time_ns)
            )
    if entry.batch_hash:
        made.append(
            CredentialNode(
                kind="vault-batch-token",
                id=entry.batch_hash.removeprefix("hmac-sha256:")[:32],
                known=Known.ISSUER,
                said=said,
                facts={"hashed": entry.batch_hash, "path": entry.path[:200]},
                issued_ns=entry.time_ns,
                expires_ns=entry.time_ns + entry.ttl_seconds * _SECOND_NS if entry.ttl_seconds else 0,
            )
        )
    if entry.lease:
        made.append(
            CredentialNode(kind="vault-lease", id=entry.lease, known=Known.ISSUER, said=said, issued_ns=entry.time_ns)
        )
    if accessor := _live_secret_id(records, entry):
        role = _role(entry.path)
        made.append(
            CredentialNode(
                kind="approle-secret-id",
                id=f"{role}/{accessor}",
                known=Known.ISSUER,
                said=said,
                facts={"role": role, "accessor": accessor, "login": entry.secret_id_hash},
                issued_ns=entry.time_ns,
            )
        )
    return made


def _live_secret_id(records: Records, entry: Audited) -> str:
    """The accessor of the secret-id that was issued, if it still lives."""
    if not entry.secret_id_accessor_hash or not (role := _role(entry.path)):
        return ""
    listed = records.world.vault_records.secret_ids(role)
    return next((one for one in listed if records.hash(one) == entry.secret_id_accessor_hash), "")


def _role(path: str) -> str:
    """`auth/approle/role/NAME/secret-id` → `auth/approle/role/NAME`; empty for any other path."""
    role, found, _ = path.partition("/secret-id")
    return role if found and "/role/" in role and path.startswith("auth/") else ""
