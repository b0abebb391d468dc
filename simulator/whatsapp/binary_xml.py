"""The binary form of stanzas: tokens for frequent words, lengths for the rest.

The format and its token tables (dictionary version 3) are those of the web client; the tables come from the
package ``pyaileys``.
"""

from __future__ import annotations

import struct
import zlib

from pyaileys.wabinary.constants import DOUBLE_BYTE_TOKENS, SINGLE_BYTE_TOKENS

from simulator.whatsapp.nodes import LID_SERVER, PHONE_SERVER, Attribute, Content, Jid, MalformedStanza, Node

_LIST_EMPTY, _LIST_8, _LIST_16 = 0, 248, 249
_DICTIONARY_FIRST, _DICTIONARY_LAST = 236, 239
_JID_WITH_DEVICE, _JID_PAIR = 247, 250
_HEXADECIMAL, _NIBBLES = 251, 255
_BYTES_8, _BYTES_20, _BYTES_32 = 252, 253, 254

_SINGLE: list[str] = list(SINGLE_BYTE_TOKENS)
_DOUBLE: list[list[str]] = [list(words) for words in DOUBLE_BYTE_TOKENS]
_TOKENS: dict[str, bytes] = {
    word: bytes([_DICTIONARY_FIRST + number, index])
    for number, words in enumerate(_DOUBLE)
    for index, word in enumerate(words)
} | {word: bytes([index]) for index, word in enumerate(_SINGLE) if word}

#: Servers of addresses with a device, by the byte that stands for them.
_DEVICE_DOMAINS = {0: PHONE_SERVER, 1: LID_SERVER, 128: "hosted", 129: "hosted.lid"}
_DOMAIN_BYTES = {server: byte for byte, server in _DEVICE_DOMAINS.items()}

_NIBBLE_DIGITS = "0123456789-."
_HEXADECIMAL_DIGITS = "0123456789ABCDEF"
#: First byte of a stanza: bit 1 says that the rest is compressed with zlib.
_COMPRESSED = 2


def encode(node: Node) -> bytes:
    """Return ``node`` in binary, uncompressed, with its leading flag byte."""
    parts = [b"\x00"]
    _write_node(node, parts)
    return b"".join(parts)


def decode(data: bytes) -> Node:
    """Read one stanza with its leading flag byte.

    Raises:
        MalformedStanza: ``data`` is not one whole stanza.
    """
    try:
        reader = _Reader(zlib.decompress(data[1:]) if data[0] & _COMPRESSED else data[1:])
        node = reader.node()
    except (IndexError, UnicodeDecodeError, zlib.error, RecursionError) as error:
        raise MalformedStanza(f"unreadable stanza: {error}") from None
    if not reader.finished:
        raise MalformedStanza(f"bytes after <{node.tag}>")
    return node


def _write_length(length: int) -> bytes:
    if length < 1 << 8:
        return bytes([_BYTES_8, length])
    if length < 1 << 20:
        return bytes([_BYTES_20]) + length.to_bytes(3, "big")
    return bytes([_BYTES_32]) + length.to_bytes(4, "big")


def _write_list(length: int) -> bytes:
    if length == 0:
        return bytes([_LIST_EMPTY])
    return bytes([_LIST_8, length]) if length < 256 else bytes([_LIST_16]) + struct.pack(">H", length)


def _write_text(text: str) -> bytes:
    token = _TOKENS.get(text)
    if token is not None:
        return token
    data = text.encode()
    return _write_length(len(data)) + data


def _write_value(value: Attribute) -> bytes:
    if isinstance(value, str):
        return _write_text(value)
    if value.device:
        return bytes([_JID_WITH_DEVICE, _DOMAIN_BYTES[value.server], value.device]) + _write_text(value.user)
    user = _write_text(value.user) if value.user else bytes([_LIST_EMPTY])
    return bytes([_JID_PAIR]) + user + _write_text(value.server)


def _write_node(node: Node, parts: list[bytes]) -> None:
    content = node.content
    parts.append(_write_list(2 * len(node.attributes) + 1 + (content is not None)))
    parts.append(_write_text(node.tag))
    for key, value in node.attributes.items():
        parts.append(_write_text(key))
        parts.append(_write_value(value))
    if content is None:
        return
    if isinstance(content, bytes):
        parts.append(_write_length(len(content)))
        parts.append(content)
    elif isinstance(content, (str, Jid)):
        parts.append(_write_value(content))
    else:
        parts.append(_write_list(len(content)))
        for child in content:
            _write_node(child, parts)


class _Reader:
    """Reads values one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def finished(self) -> bool:
        return self._at == len(self._data)

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise MalformedStanza("a stanza ends too early")
        self._at += length
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def list_length(self, tag: int) -> int:
        if tag == _LIST_EMPTY:
            return 0
        if tag == _LIST_8:
            return self.number(1)
        if tag == _LIST_16:
            return self.number(2)
        raise MalformedStanza(f"byte {tag} does not begin a list")

    def node(self) -> Node:
        length = self.list_length(self.number(1))
        tag = self.text()
        if length == 0 or not tag:
            raise MalformedStanza("an element has no tag")
        attributes: dict[str, Attribute | int | None] = {}
        for _ in range((length - 1) // 2):
            key = self.text()
            attributes[key] = self.attribute()
        return Node(tag, attributes, self.content() if length % 2 == 0 else None)

    def text(self) -> str:
        value = self.attribute()
        if not isinstance(value, str):
            raise MalformedStanza("an address stands where a word should")
        return value

    def attribute(self) -> Attribute:
        tag = self.number(1)
        if tag == _LIST_EMPTY:
            return ""
        if tag in (_BYTES_8, _BYTES_20, _BYTES_32):
            return self.take(self.length(tag)).decode()
        return self.word(tag)

    def content(self) -> Content:
        tag = self.number(1)
        if tag in (_LIST_EMPTY, _LIST_8, _LIST_16):
            return [self.node() for _ in range(self.list_length(tag))]
        if tag in (_BYTES_8, _BYTES_20, _BYTES_32):
            return self.take(self.length(tag))
        return self.word(tag)

    def length(self, tag: int) -> int:
        if tag == _BYTES_8:
            return self.number(1)
        return self.number(3) & 0xFFFFF if tag == _BYTES_20 else self.number(4)

    def word(self, tag: int) -> Attribute:
        if _DICTIONARY_FIRST <= tag <= _DICTIONARY_LAST:
            return _DOUBLE[tag - _DICTIONARY_FIRST][self.number(1)]
        if tag == _JID_PAIR:
            user = self.text()
            return Jid(user, self.text())
        if tag == _JID_WITH_DEVICE:
            domain, device = self.number(1), self.number(1)
            return Jid(self.text(), _DEVICE_DOMAINS.get(domain, PHONE_SERVER), device)
        if tag in (_HEXADECIMAL, _NIBBLES):
            return self.packed(_HEXADECIMAL_DIGITS if tag == _HEXADECIMAL else _NIBBLE_DIGITS)
        if 0 < tag < len(_SINGLE):
            return _SINGLE[tag]
        raise MalformedStanza(f"byte {tag} is no token")

    def packed(self, digits: str) -> str:
        """Two characters a byte; the top bit of the length says that the last half is filling."""
        length = self.number(1)
        halves = [half for byte in self.take(length & 127) for half in (byte >> 4, byte & 15)]
        if length & 128:
            halves.pop()
        return "".join(digits[half] for half in halves)
