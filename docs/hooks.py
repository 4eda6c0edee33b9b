"""Hooks of mkdocs and an extension of griffe: add the READMEs outside docs/ and an API page per package.

Links in Markdown are relative to the repository, as on a code host. The hooks rewrite them to the location of
the page on the site; a link to a file outside the site is a warning, which --strict turns into an error.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"{folder}/README.md" for folder in ("configs", "benchmarks", "experiments")),
]
EXPERIMENTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("experiments/*/README.md"))
ASSETS = ["LICENSE", *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("experiments/*/*.png"))]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("satlight/*/__init__.py"))


def site_path(path: str) -> str:
    """Return the place on the site of a file of the repository."""
    if path == "docs/README.md":
        return "index.md"
    return re.sub(r"(^|/)README\.md$", r"\1index.md", path.removeprefix("docs/"))


def modules(package: str) -> list[str]:
    """Return the dotted names of the modules of a package, the package first."""
    files = sorted(ROOT.glob(f"satlight/{package}/**/*.py"), key=lambda file: (file.name != "__init__.py", file))
    dotted = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in dotted]


def on_config(config: Any) -> Any:
    """Fill the sections of the navigation that have one page per folder."""
    for section in config["nav"]:
        if "API" in section:
            section["API"] = ["api/index.md", *(f"api/{package}.md" for package in PACKAGES)]
        if "Results" in section:
            section["Results"] += [
                {"Experiments": [site_path(path) for path in ["experiments/README.md", *EXPERIMENTS]]}
            ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and pictures outside docs/ and the API pages."""
    for path in [*PAGES, *EXPERIMENTS, *ASSETS]:
        files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    rows = [f"- [satlight.{package}]({package}.md)\n" for package in PACKAGES]
    shared = "".join(f"\n::: satlight.{name}\n" for name in modules_of_top())
    files.append(File.generated(config, "api/index.md", content=f"# API\n\n{''.join(rows)}{shared}"))
    for package in PACKAGES:
        first, *others = modules(package)
        parts = f"::: {first}\n    options: {{members: false}}\n\n" + "".join(f"::: {name}\n\n" for name in others)
        files.append(File.generated(config, f"api/{package}.md", content=f"# satlight.{package}\n\n{parts}"))
    return files


def modules_of_top() -> list[str]:
    """Return the names of the public modules directly in satlight/."""
    return sorted(path.stem for path in ROOT.glob("satlight/*.py") if not path.stem.startswith("_"))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite relative links from places in the repository to places on the site."""
    source = page.file.abs_src_path
    if source is None:  # an API page
        return markdown
    path = Path(source).relative_to(ROOT)
    start = posixpath.dirname(site_path(path.as_posix())) or "."

    def moved(link: re.Match[str]) -> str:
        target, mark, anchor = link[1].partition("#")
        if not target or "://" in target:
            return link[0]
        place = posixpath.normpath(posixpath.join(path.parent.as_posix(), target))
        return f"]({posixpath.relpath(site_path(place), start)}{mark}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", moved, markdown)


class Docstrings(griffe.Extension):
    """Adapt docstrings to mkdocstrings: `Example:` is a section, and Sphinx roles are plain code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^Example:", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r":(?:class|func|meth|mod|data|attr|exc):`~?", "`", text)
