"""A stand-in for a model's OpenAI-compatible endpoint: it answers with its name, or fails as it is told.

python benchmarks/standin/upstream.py --name math --port 9001
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from typing import Any

MODES = ("ok", "html", "500", "hang")
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def main() -> None:
    """Serve until killed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--name", required=True, help="what the answers begin with")
    options.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    options.add_argument("--mode", choices=MODES, default="ok", help="how it answers")
    options.add_argument("--delay", type=float, default=0.0, help="seconds before an answer")
    args = options.parse_args()
    asyncio.run(serve(args))


async def serve(args: argparse.Namespace) -> None:
    """Answer on a port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request_head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(b": ", 1) for line in request_head.split(b"\r\n")[1:] if b": " in line)
                body = await reader.readexactly(int(fields.get(b"content-length", 0)))
                await asyncio.sleep(3600 if args.mode == "hang" else args.delay)
                known = request_head.startswith(b"POST /v1/chat/completions ")
                missing = http("404 Not Found", "application/json", b'{"error": {"message": "no such path"}}')
                writer.write(answer(args, json.loads(body)) if known else missing)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", args.port, limit=1 << 24, backlog=1024)
    async with server:
        await server.serve_forever()


def answer(args: argparse.Namespace, request: dict[str, Any]) -> bytes:
    """Return a whole HTTP response."""
    if args.mode == "html":
        return http("200 OK", "text/html", b"<html>This is no API</html>")
    if args.mode == "500":
        return http("500 Internal Server Error", "application/json", b'{"error": {"message": "broken"}}')
    if request.get("stream"):
        events = b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks(args.name, request))
        return http("200 OK", "text/event-stream", events + b"data: [DONE]\n\n")
    choice = {"index": 0, "finish_reason": "stop", "message": message(args.name, request)}
    content = head(args.name, "chat.completion") | {"choices": [choice], "usage": USAGE}
    return http("200 OK", "application/json", json.dumps(content).encode())


def message(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer: the name and the last message, or a call of the first tool with what was received."""
    last = request["messages"][-1]["content"]
    if not request.get("tools"):
        return {"role": "assistant", "content": f"{name}: {last}"}
    function = {"name": request["tools"][0]["function"]["name"], "arguments": json.dumps({"tools": request["tools"]})}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call-1", "type": "function", "function": function}],
    }


def chunks(name: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream, one word each."""
    for word in message(name, request)["content"].split(" "):
        yield head(name, "chat.completion.chunk") | {"choices": [{"index": 0, "delta": {"content": f"{word} "}}]}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    yield head(name, "chat.completion.chunk") | {"choices": [last], "usage": USAGE}


def head(name: str, kind: str) -> dict[str, Any]:
    """Return what every object of the API begins with."""
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": name}


def http(status: str, kind: str, body: bytes) -> bytes:
    """Return a response as it goes over the wire."""
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


if __name__ == "__main__":
    main()
