"""Router folders on the Hugging Face hub."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from satlight.errors import SatlightError

_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md"]


def local_folder(source: Path | str, revision: str | None = None) -> Path:
    """Return a router folder on this machine; ``owner/name`` is downloaded if there is no such folder.

    Raises:
        SatlightError: No such folder, and none on the hub or no hub to reach.
    """
    folder = Path(source).expanduser()
    if folder.is_dir() or not _REPO.fullmatch(str(source)):
        return folder
    if os.environ.get("SATLIGHT_OFFLINE") == "1" or os.environ.get("HF_HUB_OFFLINE") == "1":
        raise SatlightError(
            f"There is no folder {folder}, and SATLIGHT_OFFLINE or HF_HUB_OFFLINE forbids to look for "
            f"{source} on the hub"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=_FILES))
    except Exception as error:  # connection errors are those of the HTTP library in use
        raise SatlightError(
            f"There is no folder {folder}, and {source} could not be fetched from the Hugging Face hub: "
            f"{_reason(error)}. Give a folder, or check name, network and `hf auth login`"
        ) from error


def push(save: Callable[[Path], None], repo_id: str, private: bool, token: str | None) -> str:
    """Save a router into a temporary folder and upload it as one commit; returns the commit's address."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "router"
        save(folder)
        api = HfApi(token=token)
        try:
            repo = api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo.repo_id, folder_path=folder, commit_message="Upload a satlight router", delete_patterns="*"
            )
        except Exception as error:  # as above
            raise SatlightError(
                f"The router could not be uploaded to {repo_id}: {_reason(error)}. Check the name, network "
                "and `hf auth login`; nothing on this machine was changed"
            ) from error
    return str(done.commit_url)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
