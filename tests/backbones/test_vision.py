"""Image encoders: conversion of the published weights, patch tokens, formats, folders, messages."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from satlight.backbones import efficientnet, weights
from satlight.backbones.efficientnet import EfficientNetLite0, convert_pth
from satlight.backbones.image_backbone import Pixels
from satlight.backbones.loading import safetensors_folder
from satlight.backbones.store import Manifest
from satlight.backbones.vision import load_image_backbone
from satlight.cli import weights as weights_commands
from satlight.errors import SatlightError

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((20, 30), (64, 64), (7, 50))]
TINY = ("tiny:conv", "tiny:vit")


def write_pth(path: Path, **changes: object) -> dict[str, torch.Tensor]:
    """Random weights of EfficientNet-Lite0 with the names of the published file."""
    torch.manual_seed(0)
    network = EfficientNetLite0()
    own = network.state_dict()
    for name in own:
        if name.endswith("running_var"):
            own[name].uniform_(0.5, 2)
    tensors = {".".join(p if p.isdigit() or p in LEAVES else f"_{p}" for p in n.split(".")): t for n, t in own.items()}
    tensors |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save(tensors | changes, path)
    return own


LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# EfficientNet-Lite0


def test_pth_is_converted_once_and_read_exactly(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = write_pth(tmp_path / "lite0.pth")
    assert len(own) + 2 == 296
    backbone = load_image_backbone(str(tmp_path / "lite0.pth"))
    assert all(torch.equal(tensor, own[name]) for name, tensor in backbone.network.state_dict().items())
    folder = safetensors_folder(str(tmp_path / "lite0.pth"))
    assert folder.is_relative_to(cache)
    assert Manifest.read(folder).damaged(folder) == []  # type: ignore[union-attr]
    monkeypatch.setattr("satlight.backbones.loading.convert_pth", None)  # calling it again would fail
    assert safetensors_folder(str(tmp_path / "lite0.pth")) == folder


def test_weights_fetch_converts_pth_too(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pth(tmp_path / "lite0.pth")
    weights_commands.fetch(argparse.Namespace(names=[str(tmp_path / "lite0.pth")], accept_terms=False))
    assert (Path(capsys.readouterr().err.rsplit("ready in ", 1)[1].strip()) / "model.safetensors").is_file()


class Malicious:
    def __reduce__(self) -> tuple:
        return (print, ("code of a pickle ran",))


@pytest.mark.parametrize("damage", ["code", "truncated", "shape", "no dictionary"])
def test_another_pth_is_refused(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lite0.pth"
    write_pth(path, _conv_stem=torch.zeros(1), **({"_extra": Malicious()} if damage == "code" else {}))
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "shape":
        write_pth(path, **{"_conv_stem.weight": torch.zeros(2, 2)})
    elif damage == "no dictionary":
        torch.save([1, 2], path)
    readable = damage in ("shape", "no dictionary")
    with pytest.raises(SatlightError, match="does not hold the weights" if readable else "cannot be read"):
        convert_pth(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "ran" not in capsys.readouterr().out


@torch.no_grad()
def test_the_first_blocks_are_those_of_the_whole_network() -> None:
    torch.manual_seed(0)
    whole, first = EfficientNetLite0().eval(), EfficientNetLite0(5).eval()
    first.load_state_dict(whole.state_dict(), strict=False)
    kept = {}
    whole.blocks[4].register_forward_hook(lambda *args: kept.update(features=args[-1]))
    pixels = torch.randn(1, 3, 64, 64)
    assert whole(pixels).shape == (1, 1280, 2, 2)
    assert torch.equal(first(pixels), kept["features"])
    assert (first.width, first.stride, whole.stride) == (40, 8, 32)


@torch.no_grad()
def test_an_image_has_the_same_features_in_training_and_in_any_batch() -> None:
    for name in ("tiny:conv", "small-conv"):
        backbone = load_image_backbone(name).train()
        pixels = backbone.prepare(IMAGES)
        torch.testing.assert_close(backbone(pixels)[1:2], backbone.eval()(pixels[1:2]), atol=1e-5, rtol=0)
    network = EfficientNetLite0(3)
    pixels = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(network.train()(pixels)[:1], network.eval()(pixels[:1]), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("photo", "expected"), [("grace_hopper.jpg", 652), ("flower.jpg", 985)])
def test_published_weights_recognize_known_photos(photo: str, expected: int) -> None:
    """The class of ImageNet: 652 = military uniform, 985 = daisy."""
    source = weights.WheelSource.parse(weights.EMBEDDED[efficientnet.NAME].name)
    if not Manifest.is_intact(source.folder):
        pytest.skip("satlight weights fetch efficientnet-lite0")
    from PIL import Image
    from sklearn.datasets import load_sample_image

    if photo == "flower.jpg":
        image = load_sample_image(photo)[:, 106:-107]
    else:
        cbook = pytest.importorskip("matplotlib.cbook")
        image = np.asarray(Image.open(cbook.get_sample_data(photo, asfileobj=False)).convert("RGB"))
    backbone = load_image_backbone(efficientnet.NAME).eval()
    classifier = load_file(safetensors_folder(efficientnet.NAME) / "model.safetensors")
    feature_D = backbone(backbone.prepare([image]))[0].mean(dim=0)
    assert int((classifier["fc.weight"] @ feature_D + classifier["fc.bias"]).argmax()) == expected


# Any encoder


@torch.no_grad()
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("image_size", [None, 48])
def test_patch_tokens(name: str, image_size: int | None) -> None:
    backbone = load_image_backbone(name, image_size=image_size).eval()
    pixels = backbone.prepare(IMAGES)
    assert pixels.shape == (3, 3, *[image_size or {"tiny:conv": 64, "tiny:vit": 32}[name]] * 2)
    assert backbone(pixels).shape == (3, backbone.grid**2, backbone.width)


@torch.no_grad()
@pytest.mark.parametrize("name", TINY)
def test_position_survives_row_by_row(name: str) -> None:
    """A change in the top right corner moves the token there the most."""
    backbone = load_image_backbone(name).eval()
    image = np.full((64, 64, 3), 255, np.uint8)
    other = image.copy()
    other[:8, 56:] = 0
    token_T = (backbone(backbone.prepare([image])) - backbone(backbone.prepare([other])))[0].norm(dim=1)
    assert int(token_T.argmax()) == backbone.grid - 1


def test_images_are_padded_with_white_and_keep_their_proportions() -> None:
    pixels = Pixels(8, (0.0,) * 3, (1.0,) * 3).of([np.zeros((10, 20, 3), np.uint8)])
    assert pixels.shape == (1, 3, 8, 8)
    assert (pixels[0, :, 2:6] == 0).all()
    assert (pixels[0, :, :2] == 1).all()
    assert (pixels[0, :, 6:] == 1).all()


@torch.no_grad()
@pytest.mark.parametrize("name", [*TINY, "lite0"])
def test_a_written_folder_is_read_exactly(name: str, tmp_path: Path, cache: Path) -> None:
    if name == "lite0":
        write_pth(tmp_path / "lite0.pth")
        backbone = load_image_backbone(str(tmp_path / "lite0.pth"), num_layers=3, image_size=64).eval()
    else:
        backbone = load_image_backbone(name, image_size=64).eval()
    for parameter in backbone.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    backbone.save(tmp_path / "mine")
    again = load_image_backbone(str(tmp_path / "mine")).eval()
    assert (again.grid, again.width, again.pixels) == (backbone.grid, backbone.width, backbone.pixels)
    pixels = backbone.prepare(IMAGES)
    assert torch.equal(again.prepare(IMAGES), pixels)
    assert torch.equal(again(pixels), backbone(pixels))
    random = load_image_backbone(str(tmp_path / "mine"), pretrained=False).eval()
    assert random.grid == backbone.grid
    assert not torch.equal(random(pixels), backbone(pixels))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str) -> None:
    backbone = load_image_backbone("tiny:vit", dtype=dtype).eval()
    assert backbone(backbone.prepare(IMAGES)).dtype == getattr(torch, dtype)


# Vision towers of transformers


def save_tower(kind: str, folder: Path) -> torch.nn.Module:
    """A small model as the hub has it: CLIP and SigLIP with their text tower."""
    import transformers

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    if kind == "dinov3":
        config = transformers.DINOv3ViTConfig(**vision, num_register_tokens=4)
    elif kind == "vit":
        config = transformers.ViTConfig(**vision)
    else:
        text = sizes | {"vocab_size": 20, "max_position_embeddings": 8}
        parts = {"vision_config": vision, "text_config": text}
        config = {"clip": transformers.CLIPConfig, "siglip": transformers.SiglipConfig}[kind](**parts)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config)
    model.save_pretrained(folder)
    content = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "size": {"shortest_edge": 36}}
    content |= {"crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov3", "vit"])
def test_towers_of_transformers(kind: str, tmp_path: Path) -> None:
    model = save_tower(kind, tmp_path / kind)
    backbone = load_image_backbone(str(tmp_path / kind)).eval()
    assert backbone.pixels == Pixels(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    pixels = backbone.prepare(IMAGES)
    tower = getattr(model, "vision_model", model)
    expected = tower(pixel_values=pixels).last_hidden_state[:, -16:]
    torch.testing.assert_close(backbone(pixels), expected, atol=1e-5, rtol=0)
    backbone.save(tmp_path / "mine")
    assert torch.equal(load_image_backbone(str(tmp_path / "mine")).eval()(pixels), backbone(pixels))
    first = load_image_backbone(str(tmp_path / kind), num_layers=1, image_size=64).eval()
    assert first(first.prepare(IMAGES)).shape == (3, 64, 32)


# Messages


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("tiny:resnet", {}, "allowed: efficientnet-lite0, small-conv, OWNER/NAME"),
        ("tiny:conv", {"num_layers": 2}, "num_layers is 2; allowed: null"),
        ("tiny:vit", {"num_layers": 5}, "num_layers is 5, the model has 2 layers"),
        ("tiny:vit", {"image_size": 4}, "image_size is 4; allowed: 16 to 2048"),
        ("tiny:vit", {"dtype": "int8"}, "dtype 'int8' is unknown; allowed: float32"),
        ("small_conv", {}, "'small_conv' is unknown; allowed: minilm"),
    ],
)
def test_arguments_out_of_range(name: str, options: dict, says: str) -> None:
    with pytest.raises(SatlightError, match=says):
        load_image_backbone(name, **options)


def test_a_text_model_is_no_image_encoder(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    BertModel(BertConfig(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(SatlightError, match=r"preprocessor_config\.json"):
        load_image_backbone(str(tmp_path))
    Pixels(32).write(tmp_path)
    with pytest.raises(SatlightError, match="is a BertModel, not a vision transformer"):
        load_image_backbone(str(tmp_path))


def test_an_incomplete_input_format(tmp_path: Path) -> None:
    load_image_backbone("tiny:vit").save(tmp_path / "mine")
    (tmp_path / "mine" / "preprocessor_config.json").write_text('{"size": 32}')
    with pytest.raises(SatlightError, match="lacks size, image_mean or image_std"):
        load_image_backbone(str(tmp_path / "mine"))
