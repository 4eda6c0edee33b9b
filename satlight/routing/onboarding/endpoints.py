"""Candidates that can be asked through litellm: any OpenAI-compatible address, any provider."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Protocol

from satlight.costs import PER
from satlight.errors import SatlightError
from satlight.images import content_keys, data_url
from satlight.routing.onboarding.cache import Answer, key_of
from satlight.routing.onboarding.items import Item
from satlight.routing.onboarding.runner import Passing
from satlight.serving.providers import import_litellm

NO_KEY = "not-needed"
"""Sent to an address without a key: litellm requires one, and must not send OPENAI_API_KEY to just any address."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are generated.

    Args:
        max_tokens: Most generated tokens.
        temperature: 0 = greedy.
        suffix: See :meth:`Item.prompt`.
    """

    max_tokens: int = 2048
    temperature: float = 0.0
    suffix: str | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or not 0 <= self.temperature <= 2:
            raise SatlightError(
                f"--max-tokens is {self.max_tokens} and --temperature {self.temperature}; allowed are 1 or more, and 0 "
                "to 2"
            )


class Source(Protocol):
    """Something that answers items."""

    sampling: Sampling

    def key(self, item: Item) -> str:
        """Return the key of its answer to an item in the cache."""

    async def ask(self, item: Item) -> Answer:
        """Ask; see :class:`satlight.routing.onboarding.runner.Ask`."""

    def prices(self) -> tuple[float, float] | None:
        """Return US dollars per million prompt and generated tokens, None if unknown."""


_NO_JSON = re.compile(r"<!doctype|<html|'str' object has no attribute|Expecting value|JSONDecode", re.IGNORECASE)


class Endpoint:
    """A model behind an address, or of a provider that litellm knows.

    Args:
        model: Name for litellm, e.g. ``"openai/my-model"`` or ``"anthropic/claude-sonnet-4-5"``.
        sampling: How answers are generated.
        api_base: Address, e.g. ``"http://localhost:8000/v1"``; None = the provider's.
        api_key: Key; None = the provider's variable of the environment, or no key where an address is given.
        timeout: Seconds for one answer.
    """

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        api_base: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.litellm = import_litellm()
        self.model, self.sampling, self.api_base, self.timeout = model, sampling, api_base, timeout
        self._api_key = api_key if api_key or api_base is None else NO_KEY

    def key(self, item: Item) -> str:
        return key_of(
            model=self.model,
            api_base=self.api_base,
            item=item.item_id,
            prompt=item.prompt(self.sampling.suffix),
            images=content_keys(item.images),
            temperature=self.sampling.temperature,
            max_tokens=self.sampling.max_tokens,
        )

    def prices(self) -> tuple[float, float] | None:
        try:
            info = self.litellm.get_model_info(self.model)
        except Exception:  # litellm raises a plain Exception for a model that is not in its table
            return None
        found = info.get("input_cost_per_token"), info.get("output_cost_per_token")
        return None if None in found else (found[0] * PER, found[1] * PER)

    async def ask(self, item: Item) -> Answer:
        prompt = item.prompt(self.sampling.suffix)
        images = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in item.images]
        content = [*images, {"type": "text", "text": prompt}] if images else prompt
        try:
            response = await self.litellm.acompletion(
                model=self.model,
                messages=[{"role": "user", "content": content}],
                api_base=self.api_base,
                api_key=self._api_key,
                temperature=self.sampling.temperature,
                max_tokens=self.sampling.max_tokens,
                timeout=self.timeout,
                num_retries=0,
                max_retries=0,
            )
            choice, usage = response.choices[0], getattr(response, "usage", None)
            text = choice.message.content or ""
        except asyncio.CancelledError:
            raise
        except Exception as error:
            return self._failed(error)
        tokens = (getattr(usage, "prompt_tokens", None) or None, getattr(usage, "completion_tokens", None) or None)
        return Answer(str(text), *tokens, finish=str(choice.finish_reason or "stop"))

    def _failed(self, error: Exception) -> Answer:
        """Return the answer that an error stands for, or raise what it means."""
        litellm, where = self.litellm, self.api_base or f"the provider of {self.model}"
        reason = self._without_key(f"{type(error).__name__}: {error}")
        status = getattr(error, "status_code", None)
        # The candidate cannot answer such an item in production either.
        if isinstance(error, litellm.ContextWindowExceededError | litellm.ContentPolicyViolationError):
            return Answer("", finish=type(error).__name__)
        if _NO_JSON.search(str(error)):
            raise SatlightError(
                f"{where} answered with something else than the JSON of a chat completion, e.g. a web page ({reason}); "
                "--api-base usually ends with /v1"
            ) from error
        if status in (401, 403):
            raise SatlightError(
                f"{where} refused the key ({reason}); name the variable that holds the right one: --api-key-env VAR"
            ) from error
        if isinstance(error, litellm.Timeout):
            raise Passing(f"{where} gave no answer within {self.timeout:g} s (--timeout)") from error
        if isinstance(error, litellm.APIConnectionError) or (isinstance(status, int) and _passes(status)):
            raise Passing(f"{where} failed ({reason})", _retry_after(error)) from error
        raise SatlightError(
            f"{where} refused the request ({reason}); check --api-base, and the name that the endpoint has for the "
            f"model: --litellm-model openai/NAME (now {self.model})"
        ) from error

    def _without_key(self, text: str) -> str:
        if self._api_key and self._api_key != NO_KEY:
            text = text.replace(self._api_key, "[key]")
        return " ".join(text.split())[:300]


def _passes(status: int) -> bool:
    return status in (408, 409, 425, 429) or status >= 500


def _retry_after(error: Exception) -> float | None:
    """Return the seconds of a Retry-After header, also in its form as a date."""
    from email.utils import parsedate_to_datetime
    from time import time

    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    headers = {**headers, **(getattr(error, "litellm_response_headers", None) or {})}
    value = next((str(value) for name, value in headers.items() if name.lower() == "retry-after"), None)
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return None
