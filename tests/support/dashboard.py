"""A browser without a screen: keeps cookies, finds a form's proof, and reads what pages say."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Any

import requests

_PROOF = re.compile(r'name="form_proof" value="([0-9a-f]{64})"')
PASSWORD = "an invented password"


@dataclass
class Browser:
    """One visitor of the dashboard at ``url``. It follows no redirect by itself."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.session.get(self.url + path, headers=headers, allow_redirects=False, timeout=20)

    def post(self, path: str, page: str | None = None, **fields: str) -> requests.Response:
        """Send a form; its proof is taken from ``page`` (None: without any)."""
        if page is not None:
            found = _PROOF.search(self.get(page).text)
            assert found is not None, f"{page} has no form"
            fields["form_proof"] = found[1]
        return self.session.post(self.url + path, data=fields, allow_redirects=False, timeout=20)

    def sign_in(self, name: str, password: str = PASSWORD, target: str = "/") -> requests.Response:
        return self.post("/sign-in", "/sign-in", name=name, password=password, next=target)

    def signed_in(self, name: str) -> Browser:
        """Sign in, for certain, and return itself."""
        assert self.sign_in(name).status_code == 303
        return self

    def close(self) -> None:
        self.session.close()


def words(page: requests.Response) -> str:
    """Return what a page says, without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.text)).split())


def inline_code(page: str) -> list[Any]:
    """Return what a strict policy would not run: scripts and styles in the page itself, and handlers in attributes."""
    return [
        *re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", page),
        *re.findall(r"<style[^>]*>", page),
        *re.findall(r"<[^>]*\s(?:style|on[a-z]+)=[^>]*>", page),
        *re.findall(r"(?:href|src|action)=\"(?:https?:)?//[^\"]*\"[^>]*(?<!rel=\"noreferrer\")>", page),
    ]
