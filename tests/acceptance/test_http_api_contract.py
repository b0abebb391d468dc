"""The HTTP API keeps to its own description: its examples work, and nothing that a machine thinks of breaks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.support.api import Api, api_of, url_of
from tests.support.daemon import PROJECT, Daemon

#: How long schemathesis may think, in seconds.
_BUDGET_SECONDS = 60
#: What must hold of every answer: no failure of ours, and each status, type, header and body as described.
DEVICES = {"/v1/devices/{name}/pairing": "shop-2"}
_CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,allow_header_conformance,unsupported_method"
)


@pytest.fixture(scope="module")
def admin(daemon: Daemon) -> Api:
    daemon.add_paired("shop-1", "60120000001")
    daemon.add_platform("desk-1", "wablas")
    with daemon.fleet() as fleet:
        fleet.add_device("shop-2")
    return api_of(daemon, "admin", "--per-minute", "0")


def examples_of(operation: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the examples of an operation's body, each with its name; a body of JSON has one at least."""
    content = operation.get("requestBody", {}).get("content", {})
    told = [(name, each["value"]) for name, each in content.get("application/json", {}).get("examples", {}).items()]
    assert told or "application/json" not in content, f"{operation['operationId']} has no example"
    return told


def test_the_examples_of_the_description_work(admin: Api) -> None:
    description = httpx.get(f"{admin.url}/openapi.json", trust_env=False).json()
    tried = []
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], f"{method} {path} has no words"
            for name, body in examples_of(operation):
                name_in_path = DEVICES.get(path, "shop-1")
                address = path.format(name=name_in_path, number="60123456789", message_id=1, endpoint_id=1)
                reply = admin.client.request(method, address, json=body)
                # A message in doubt cannot be had for the asking.
                in_doubt = path.endswith("/resolve") and reply.json().get("code") == "not_in_doubt"
                assert reply.is_success or in_doubt, f"{method} {path}, example {name}: {reply.text}"
                refused = [each for each in reply.json().get("results", ()) if "id" not in each]
                assert refused == [], f"{method} {path}, example {name}"
                tried.append((method, path))
    assert {("post", "/v1/messages"), ("post", "/v1/messages/batch"), ("post", "/v1/devices")} <= set(tried)


def test_schemathesis_finds_no_failure_and_no_answer_that_is_not_described(daemon: Daemon, admin: Api) -> None:
    url = url_of(daemon)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", _CHECKS]
    command += ["--header", f"Authorization: Bearer {admin.key}", "--max-time", str(_BUDGET_SECONDS)]
    command += ["--request-timeout", "40", "--continue-on-failure", "--no-color", "--generation-database", "none"]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    finished = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    failures = [json.loads(line)["event"] for line in daemon.home.log_file.read_text().splitlines() if "error" in line]
    assert finished.returncode == 0, f"{finished.stdout[-8000:]}\n{finished.stderr[-2000:]}\n{failures}"
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
