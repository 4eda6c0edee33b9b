"""The policy of conversations: what is routed, what sticks, which images are used."""

import pytest
from PIL import Image

from satlight.errors import SatlightError
from satlight.serving import pictures
from satlight.serving.conversation import conversation_key, image_urls, routed_text, strings

CHAT = [
    {"role": "system", "content": "You are kind."},
    {"role": "user", "content": "What is 2+2?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": [{"type": "text", "text": "And in"}, {"type": "text", "text": "French?"}]},
    {"role": "tool", "content": "ignored"},
]


@pytest.mark.parametrize(
    ("turns", "chars", "expected"),
    [
        (0, 100, "And in\nFrench?"),
        (1, 100, "Four.\n\nAnd in\nFrench?"),
        (9, 100, "What is 2+2?\n\nFour.\n\nAnd in\nFrench?"),
        (9, 20, "our.\n\nAnd in\nFrench?"),
        (9, 6, "And in"),
    ],
)
def test_the_window_is_the_last_user_turn_with_context_before_it(turns, chars, expected):
    assert routed_text(CHAT, turns, chars) == expected
    assert len(expected) <= chars


@pytest.mark.parametrize("messages", [[], [{"role": "system", "content": "x"}], [{"role": "user", "content": None}]])
def test_without_user_text_nothing_is_routed(messages):
    assert routed_text(messages, 3, 100) == ""


def test_a_conversation_keeps_its_key_as_it_grows():
    key = conversation_key(CHAT[:2], "client", None)
    assert conversation_key(CHAT, "client", None) == key
    assert conversation_key(CHAT, "other client", None) != key
    assert conversation_key(CHAT[1:], "client", None) != key
    assert conversation_key(CHAT, "client", "name") == conversation_key([], "client", "name")


def test_texts_of_a_body_are_counted_without_images():
    body = {"messages": [{"content": [{"text": "a"}, {"image_url": {"url": "data:image/png;base64,AAAA"}}]}]}
    assert [*strings(body)] == ["a"]


# -- images ------------------------------------------------------------------------------------------------


def test_data_urls_become_files(tmp_path, png_url):
    part = {"type": "image_url", "image_url": {"url": png_url()}}
    urls = image_urls([*CHAT, {"role": "user", "content": [part, {"type": "image_url", "image_url": png_url("blue")}]}])
    files = pictures.ImageStore(tmp_path).files(urls)
    assert [Image.open(file).getpixel((0, 0)) for file in files] == [(255, 0, 0), (0, 0, 255)]
    assert pictures.ImageStore(tmp_path).files(urls) == files


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png;base64,%%%", "not valid base64"),
        ("data:image/png;base64,AAAA", "no image of a known format"),
        ("data:text/html;base64,AAAA", "no data URL"),
        ("file:///etc/passwd", "host '' is not allowed"),
        ("http://allowed.example/cat.png", "HTTPS only"),
        ("https://other.example/cat.png", "'other.example' is not allowed"),
        ("https://allowed.example@evil.example/cat.png", "'evil.example' is not allowed"),
    ],
)
def test_other_addresses_are_refused(tmp_path, url, message):
    with pytest.raises(SatlightError, match=message):
        pictures.ImageStore(tmp_path, hosts=["allowed.example"]).files([url])
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "100.64.0.1"])
def test_an_allowed_host_with_a_private_address_is_not_asked(tmp_path, monkeypatch, address):
    public = (2, 1, 6, "", ("93.184.216.34", 443))
    monkeypatch.setattr(pictures.socket, "getaddrinfo", lambda *_, **__: [public, (2, 1, 6, "", (address, 443))])
    monkeypatch.setattr(pictures.socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    with pytest.raises(SatlightError, match="private address"):
        pictures.ImageStore(tmp_path, hosts=["allowed.example"]).files(["https://allowed.example/cat.png"])


def test_too_many_images_are_refused(tmp_path, png_url):
    with pytest.raises(SatlightError, match="at most 16"):
        pictures.ImageStore(tmp_path).files([png_url()] * 17)
