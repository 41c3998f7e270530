"""Who may use the HTTP API: keys, names of the host, and what it takes to listen on a network. `api` asks it."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import os
from collections.abc import Sequence

from fastapi import Request

from jobs.common.errors import ConfigurationError
from jobs.settings.api_section import ApiSettings

# Secrets are not settings. Several keys, separated by commas, allow key rotation.
API_KEY_VARIABLE = "MOVEMENT_API_KEY"

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def api_keys() -> list[bytes]:
    """The keys of MOVEMENT_API_KEY. An empty list: no key is required."""
    return [key.strip().encode() for key in os.environ.get(API_KEY_VARIABLE, "").split(",") if key.strip()]


def is_allowed(given: str, keys: Sequence[bytes]) -> bool:
    """Whether `given` is one of `keys`, or no key is required."""
    # Compares with every key in constant time, so that the duration reveals nothing about a guess.
    return not keys or bool(sum(hmac.compare_digest(given.encode(), key) for key in keys))


def may_read(request: Request, keys: Sequence[bytes]) -> bool:
    """Whether the request may see documentation and metrics: a key in X-API-Key, or as the password of HTTP Basic."""
    given = request.headers.get("x-api-key") or basic_password(request.headers.get("authorization", ""))
    return is_allowed(given, keys)


def basic_password(authorization: str) -> str:
    """The password of an Authorization header of type Basic; empty if it is of another type."""
    kind, _, given = authorization.partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(given, validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def require_key_on_network(settings: ApiSettings, keys: Sequence[bytes]) -> None:
    """Raises ConfigurationError if `api.host` can be reached from other machines and no key is required."""
    if not keys and not _is_loopback(settings.host):
        raise ConfigurationError(
            f"api.host {settings.host} can be reached from other machines, and no key is required: set "
            f"{API_KEY_VARIABLE}, or listen on 127.0.0.1"
        )


def allowed_hosts(settings: ApiSettings, keys: Sequence[bytes]) -> list[str]:
    """The names that a request's Host header may have: `api.allowed_hosts`; without it, any name if a key is required.

    Without a key, only names of this machine: otherwise a web page could point its own name to 127.0.0.1 and read and
    post as the user (DNS rebinding).
    """
    if settings.allowed_hosts:
        return list(settings.allowed_hosts)
    return ["*"] if keys else [*_LOOPBACK_NAMES, settings.host]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
