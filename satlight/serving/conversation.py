"""The part of a conversation that is routed, and which conversation a request belongs to."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, Generic, TypeVar

Message = Mapping[str, Any]
V = TypeVar("V")


class LRU(Generic[V]):
    """A mapping that forgets the entry used longest ago; safe among threads.

    Args:
        size: Maximum number of entries.

    Example:
        >>> memory = LRU[int](size=1)
        >>> memory.put("a", 1)
        >>> memory.put("b", 2)
        >>> memory.get("a"), memory.get("b")
        (None, 2)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._entries: OrderedDict[str, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> V | None:
        """Return an entry, or None."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: str, value: V) -> None:
        """Add or replace an entry."""
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self.size:
                self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


def text_of(message: Message) -> str:
    """Return the text of a message, whose content is a text or a list of parts.

    Example:
        >>> text_of({"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image_url"}]})
        'Hello'
    """
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def routed_text(messages: Sequence[Message], context_turns: int, window_chars: int) -> str:
    """Return the text that decides: the last user turn, after some of the messages before it.

    Args:
        messages: A conversation in OpenAI's format.
        context_turns: Number of user and assistant messages before the last user turn to include.
        window_chars: Maximum length; the beginning of the context goes first, then the end of the last turn.

    Returns:
        The text, empty if there is no user turn with text.

    Example:
        >>> chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
        ...         {"role": "user", "content": "2+2?"}]
        >>> routed_text(chat, context_turns=0, window_chars=99)
        '2+2?'
        >>> routed_text(chat, context_turns=2, window_chars=10)
        'Yes?\\n\\n2+2?'
    """
    turns = [message for message in messages if message.get("role") in ("user", "assistant")]
    last = max((n for n, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    if last is None or not (text := text_of(turns[last])[:window_chars].strip()):
        return ""
    before = "\n\n".join(filter(None, map(text_of, turns[max(0, last - context_turns) : last])))
    room = window_chars - len(text) - 2
    return f"{before[-room:].strip()}\n\n{text}" if before and room > 0 else text


def image_urls(messages: Sequence[Message]) -> list[str]:
    """Return the addresses in the ``image_url`` parts of the last user turn."""
    users = [message for message in messages if message.get("role") == "user"]
    content = users[-1].get("content") if users else None
    found = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict) and part.get("type") == "image_url":
            image = part.get("image_url")
            found.append(str(image.get("url", "") if isinstance(image, dict) else image))
    return found


def conversation_key(messages: Sequence[Message], scope: str, given: str | None) -> str:
    """Return the key of a conversation: its name if the client gave one, else its beginning.

    Args:
        messages: The conversation so far; its key is that of everything up to the first user turn.
        scope: What keeps conversations of different clients and rules apart.
        given: Name of the conversation from the client.
    """
    digest = hashlib.sha256(scope.encode())
    if given is not None:
        digest.update(b"\0name\0" + given.encode())
        return digest.hexdigest()
    for message in messages:
        digest.update(f"\0{message.get('role')}\0{text_of(message)}".encode())
        if message.get("role") == "user":
            break
    return digest.hexdigest()


def strings(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, except those of data URLs."""
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
