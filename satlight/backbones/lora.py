"""Low-rank adapters: specification, target layers, and merging for export. Needs no peft."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from satlight.errors import SatlightError

# Some models (Phi-3) compute several projections in one matrix, which the paper's names then refer to.
_FUSED = {
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj",
}  # fmt: skip


@dataclass
class LoraSpec:
    """Low-rank adapters on a router LLM; the defaults are those of the authors' public script.

    Args:
        r: Rank of each adapter, at least 1.
        alpha: Scale; the adapter's output is multiplied by alpha / r.
        dropout: Dropout probability before the adapter, in [0, 1).
        target_modules: Names of the linear layers to adapt. ``q_proj`` and similar names refer to the fused
            matrix if the model has one.

    Reference:
        Hu et al. 2022, "LoRA"; [Zhang et al. 2025, public code].
    """

    r: int = 64
    alpha: int = 16
    dropout: float = 0.1
    target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj"]
    )


def lora_targets(model: nn.Module, spec: LoraSpec, name: str) -> list[str]:
    """Return the names of the linear layers of ``model`` that get an adapter.

    Args:
        model: A decoder without adapters.
        spec: Adapter specification.
        name: Backbone name, for messages.

    Raises:
        SatlightError: No linear layer has one of the names, or no name is given.

    Example:
        >>> model = nn.ModuleDict({"qkv_proj": nn.Linear(2, 6), "o_proj": nn.Linear(2, 2)})
        >>> lora_targets(model, LoraSpec(target_modules=["q_proj", "v_proj", "o_proj"]), "mine")
        ['o_proj', 'qkv_proj']
    """
    linear = {path.rsplit(".", 1)[-1] for path, part in model.named_modules() if isinstance(part, nn.Linear)}
    targets = {target if target in linear else _FUSED.get(target, target) for target in spec.target_modules}
    if not targets or targets - linear:
        raise SatlightError(
            f"backbone {name!r}: LoRA target_modules {sorted(targets - linear)} match no linear layer; "
            f"allowed: {sorted(linear)}."
        )
    return sorted(targets)


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with every adapter merged, under the parameter names of the plain model."""
    state = {
        key.replace(".base_layer.", "."): value for key, value in model.state_dict().items() if ".lora_" not in key
    }
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A") and hasattr(layer, "get_delta_weight"):
            weight = state[f"{name}.weight"]
            delta = layer.get_delta_weight("default")
            state[f"{name}.weight"] = (weight.float() + delta.float()).to(weight.dtype)
    return state
