"""What comes to the gateway's API: JSON of one form, bounded, and from whom."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from clawback.errors import InvalidInput

__all__ = ["Body", "read", "uid_of"]

_MAX_BODY = 4 * 1024 * 1024  # a policy of 1 MiB may be longer as JSON


class Body(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


B = TypeVar("B", bound=Body)


async def read(request: Request, kind: type[B]) -> B:
    """The request's body. `InvalidInput` names the key."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > _MAX_BODY:
            raise InvalidInput("the request's body is too long", hint="a policy is at most 1 MiB")
    try:
        return kind.model_validate_json(bytes(data))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"request body: {key}: {first['msg']}", hint="see the client") from None


def uid_of(request: Request) -> int:
    """Of the peer, as the kernel says (see `peers`); -1 where it does not."""
    kind, _, number = (request.client.host if request.client else "").partition(":")
    return int(number) if kind == "uid" else -1
