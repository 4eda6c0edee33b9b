"""Conversations in the format of chat APIs: the text and the images of the last user message."""

from __future__ import annotations

from typing import Any


def last_user_turn(value: Any) -> str | None:
    """Return the text of the last user message of a conversation, or None if ``value`` is no conversation.

    Args:
        value: A list of messages with ``role`` and ``content``; a content is text or a list of parts, of which
            the text parts are joined.

    Example:
        >>> last_user_turn([{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}])
        '1+1?'
    """
    content = _last_content(value)
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else None


def last_user_images(value: Any) -> list[Any]:
    """Return the URLs of the images in the last user message of a conversation; other parts are left out.

    Args:
        value: See :func:`last_user_turn`; a part with an image has the key ``image_url``: a URL, or an object with
            the key ``url``.

    Returns:
        What the parts give as URLs, unchecked.

    Example:
        >>> parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
        >>> last_user_images([{"role": "user", "content": parts}])
        ['data:,']

    Reference: the Chat Completions API of OpenAI, "Images and vision".
    """
    content = _last_content(value)
    parts = content if isinstance(content, list) else []
    given = [part["image_url"] for part in parts if isinstance(part, dict) and "image_url" in part]
    return [one.get("url") if isinstance(one, dict) else one for one in given]


def _last_content(value: Any) -> Any:
    """Return the content of the last user message, or of the last one without any; None if there is none."""
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(message, dict) and "role" in message and "content" in message for message in value):
        return None
    turns = [message["content"] for message in value if message["role"] in ("user", "human")]
    return turns[-1] if turns else value[-1]["content"]
