"""One-time codes by which a person is known where only a shared login is: each for one question and one person.

A code is a MAC under a key that only Clawback's own user can read, so nothing is stored with it. It counts once because
a person may answer a question once, and for as long as the question stands.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from clawback.errors import Refused
from clawback.model import Approval

__all__ = ["code_fits", "code_for"]

_DIGITS = 12  # 60 bits; a question takes few wrong ones


def code_for(state: Path, approval: Approval, who: str) -> str:
    """Their code for this question. `Refused` for whoever may not read the key."""
    message = f"{approval.id}:{approval.nonce}:{who}".encode()
    digits = base64.b32encode(hmac.digest(_key(state), message, hashlib.sha256)).decode()[:_DIGITS]
    return "-".join(digits[at : at + 4] for at in range(0, _DIGITS, 4))


def code_fits(state: Path, approval: Approval, who: str, code: str) -> bool:
    """Whether that is it; spaces, dashes and case do not matter."""
    plain = "".join(letter for letter in code.upper() if letter.isalnum())[: 2 * _DIGITS]
    return hmac.compare_digest(code_for(state, approval, who).replace("-", "").encode(), plain.encode())


def _key(state: Path) -> bytes:
    path = state / "approvals" / "code-key"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            pass
        key = path.read_bytes()
    except PermissionError:
        raise Refused(
            f"{path} is not yours to read", hint="codes are issued as Clawback's own user (sudo -u)"
        ) from None
    if len(key) != 32:
        raise Refused(f"{path} is no key", hint="remove it; codes issued before count no longer")
    return key
