"""A local transformers model as a candidate that can be asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.routing.onboarding.cache import Answer, key_of
from satlight.routing.onboarding.endpoints import Sampling
from satlight.routing.onboarding.items import Item


class LocalModel:
    """A causal language model of transformers, asked one item at a time, with its chat template if it has one.

    Args:
        path: Folder, or a name on the Hugging Face hub; weights in safetensors.
        sampling: How answers are generated; greedy only.

    Raises:
        SatlightError: It cannot be loaded, or a temperature above 0.
    """

    def __init__(self, path: str, sampling: Sampling) -> None:
        if sampling.temperature:
            raise SatlightError("--hf generates greedily; leave out --temperature")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.path, self.sampling = path, sampling
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
            model: Any = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, dtype="auto")
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise SatlightError(
                f"--hf {path}: transformers cannot load a causal language model from it "
                f"({' '.join(str(error).split())[:300]})"
            ) from error
        self.model = model.to(device).eval()
        weights = sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else []
        self._version = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights]

    def key(self, item: Item) -> str:
        prompt = item.prompt(self.sampling.suffix)
        where, version = str(Path(self.path).resolve()) if self._version else self.path, self._version
        return key_of(hf=where, version=version, item=item.item_id, prompt=prompt, max_tokens=self.sampling.max_tokens)

    def prices(self) -> tuple[float, float] | None:
        return None

    async def ask(self, item: Item) -> Answer:
        if item.images:
            raise SatlightError(f"The item '{item.item_id}' has images, which --hf does not read; use an endpoint")
        return await asyncio.to_thread(self._generate, item.prompt(self.sampling.suffix))

    def _generate(self, prompt: str) -> Answer:
        import torch

        if self.tokenizer.chat_template:
            message = [{"role": "user", "content": prompt}]
            inputs = self.tokenizer.apply_chat_template(
                message, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
        else:
            inputs = self.tokenizer(prompt, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        padding = self.tokenizer.pad_token_id
        with torch.inference_mode():
            ids_T = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=self.sampling.max_tokens,
                pad_token_id=self.tokenizer.eos_token_id if padding is None else padding,
            )[0, inputs["input_ids"].shape[1] :]
        text = self.tokenizer.decode(ids_T, skip_special_tokens=True)
        full = len(ids_T) >= self.sampling.max_tokens
        return Answer(text, inputs["input_ids"].shape[1], len(ids_T), "length" if full else "stop")
