"""Stanzas: the XML-like nodes both sides exchange, and the addresses (JIDs) in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

#: The server of addresses made from phone numbers.
PHONE_SERVER = "s.whatsapp.net"
#: The server of LIDs, the addresses that hide the phone number.
LID_SERVER = "lid"


@dataclass(frozen=True)
class Jid:
    """An address: a user (or nobody: the server itself), a device of that user, and a server."""

    user: str
    server: str
    device: int = 0

    def __str__(self) -> str:
        """Return the address as people write it: ``user:device@server``."""
        if not self.user:
            return self.server
        return f"{self.user}:{self.device}@{self.server}" if self.device else f"{self.user}@{self.server}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``user@server`` or ``user:device@server``.

        Raises:
            ValueError: ``text`` is neither.
        """
        user, at, server = text.partition("@")
        if not at:
            return cls("", text)
        name, colon, device = user.partition(":")
        return cls(name, server, int(device) if colon else 0)

    @property
    def account(self) -> Self:
        """The same user without a device."""
        return replace(self, device=0)


#: The server's own address.
SERVER = Jid("", PHONE_SERVER)

Attribute = str | Jid
Content = bytes | str | Jid | Sequence["Node"] | None


class MalformedStanza(Exception):
    """A stanza lacks something the protocol demands."""


class Node:
    """One element: a tag, attributes, and either bytes, text or further elements."""

    __slots__ = ("attributes", "content", "tag")

    def __init__(
        self,
        tag: str,
        attributes: Mapping[str, Attribute | int | None] | None = None,
        content: Content = None,
    ) -> None:
        self.tag = tag
        self.attributes: dict[str, Attribute] = {
            key: str(value) if isinstance(value, int) else value
            for key, value in (attributes or {}).items()
            if value is not None and value != ""
        }
        self.content = content

    @property
    def children(self) -> Sequence[Node]:
        """The elements inside this one."""
        content = self.content
        return () if content is None or isinstance(content, (bytes, str, Jid)) else content

    def child(self, *path: str) -> Node | None:
        """Return the first element found along ``path``, or None."""
        node: Node | None = self
        for tag in path:
            node = next((inner for inner in node.children if inner.tag == tag), None) if node else None
        return node

    def need(self, *path: str) -> Node:
        """Return the element at ``path``.

        Raises:
            MalformedStanza: there is none.
        """
        found = self.child(*path)
        if found is None:
            raise MalformedStanza(f"<{self.tag}> lacks <{'/'.join(path)}>")
        return found

    def data(self, length: int | None = None) -> bytes:
        """Return the bytes inside, which must be ``length`` long when that is given.

        Raises:
            MalformedStanza: there are none, or not that many.
        """
        content = self.content
        if isinstance(content, str):
            content = content.encode()
        if not isinstance(content, bytes) or (length is not None and len(content) != length):
            raise MalformedStanza(f"<{self.tag}> does not hold {length or 'any'} bytes")
        return content

    def text(self, name: str) -> str:
        """Return an attribute as text, empty when it is missing."""
        return str(self.attributes.get(name, ""))

    def jid(self, name: str) -> Jid:
        """Return an attribute that must be an address.

        Raises:
            MalformedStanza: it is missing or was sent as text.
        """
        value = self.attributes.get(name)
        if not isinstance(value, Jid):
            raise MalformedStanza(f"<{self.tag}> has no address in {name!r}")
        return value

    def __repr__(self) -> str:
        """Return the element roughly as XML, bytes only counted."""
        attributes = "".join(f' {key}="{value}"' for key, value in self.attributes.items())
        if self.content is None:
            return f"<{self.tag}{attributes}/>"
        if isinstance(self.content, bytes):
            inner = f"[{len(self.content)} bytes]"
        elif isinstance(self.content, (str, Jid)):
            inner = str(self.content)
        else:
            inner = "".join(map(repr, self.content))
        return f"<{self.tag}{attributes}>{inner}</{self.tag}>"
