"""`movement serve` refuses what would only fail, or be unsafe, later: a taken port, a network without a key."""

from __future__ import annotations

import socket

import pytest

from jobs.common.errors import ConfigurationError
from jobs.settings.api_section import ApiSettings
from movement.cli.serve import check_port, serve
from producer.api_access import API_KEY_VARIABLE, allowed_hosts, require_key_on_network


def test_a_taken_port_is_one_line_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"^port {port} of 127.0.0.1 is taken .*--port"):
            serve(port=port)
    check_port("127.0.0.1", port)


def test_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1"):
        check_port("192.0.2.1", 0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "api.example.com"])  # noqa: S104
def test_a_network_without_a_key_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match=f"api.host {host}.*{API_KEY_VARIABLE}"):
        serve(host=host)
    require_key_on_network(ApiSettings(host=host), [b"key"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_alone_needs_no_key(host: str) -> None:
    require_key_on_network(ApiSettings(host=host), [])
    assert host in allowed_hosts(ApiSettings(host=host), [])


def test_with_a_key_any_name_is_served_unless_names_are_set() -> None:
    assert allowed_hosts(ApiSettings(), [b"key"]) == ["*"]
    assert allowed_hosts(ApiSettings(allowed_hosts=["a.example"]), [b"key"]) == ["a.example"]
