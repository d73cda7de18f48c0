"""The access token of the hub. It is huggingface_hub's to keep, where all its programs find it, and is never shown."""

from __future__ import annotations

import contextlib
import logging

from pusa_app.errors import ModelError, StoreError
from pusa_app.models.home import Home


def has_token() -> bool:
    """Whether there is one, in a variable or as huggingface_hub keeps it."""
    from huggingface_hub import get_token

    with contextlib.suppress(Exception):
        return bool(get_token())
    return False


def save_token(home: Home, token: str) -> str:
    """Have the hub check a token, and keep it; returns the name of its account. Raises ModelError or StoreError."""
    from huggingface_hub import login, whoami

    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ModelError("That is no access token: it looks like hf_..., and has no spaces.")
    settings = f"{home.hub_endpoint}/settings/tokens"
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        name = str(whoami(token)["name"])
        login(token=token, add_to_git_credential=False)
        return name
    except OSError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            raise ModelError(f"The hub does not know this access token: make a new one at {settings}.") from None
        if status is None and error.errno is not None:
            raise StoreError(f"The token cannot be kept: {error.strerror or error}.") from None
        raise ModelError("The hub cannot be asked about this token now: check the network and try again.") from None
    except (ValueError, KeyError):
        raise ModelError(f"The hub does not take this token: make one of your own account at {settings}.") from None
    except Exception as error:
        # httpx's errors are no OSErrors, and which library raises them is huggingface_hub's choice.
        if not any(kind.__name__ in ("TransportError", "HTTPError") for kind in type(error).__mro__):
            raise
        raise ModelError("The hub cannot be asked about this token now: check the network and try again.") from None


def drop_token() -> None:
    """Forget the token that huggingface_hub keeps."""
    from huggingface_hub import logout

    with contextlib.suppress(OSError):
        logout()
