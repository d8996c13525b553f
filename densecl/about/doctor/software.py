"""Packages: are they there, in versions that go together, and can they be imported?"""

import importlib
import importlib.metadata as metadata
import platform
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from densecl import __version__
from densecl.about.doctor.finding import Finding, first_line

ESSENTIAL = ("torch", "torchvision", "timm", "avalanche.core")  # what breaks where binaries do not fit
SHOWN = ("torch", "torchvision", "timm", "avalanche-lib", "numpy", "pillow", "safetensors", "pydantic", "typer", "rich")
EXTRAS = {"tensorboard": "densecl run --tensorboard", "wandb": "densecl run --wandb"}


def packages() -> Iterator[Finding]:
    """Python, what densecl requires, and whether torch and torchvision were built for each other."""
    part = "packages"
    wanted = _requires_python()
    if Version(platform.python_version()) in wanted:
        yield Finding("ok", part, f"densecl {__version__}, Python {platform.python_version()}")
    else:
        text = f"Python {platform.python_version()}, densecl needs {wanted}"
        yield Finding("error", part, text, "make an environment with another Python")
    versions = {name: found for name in SHOWN if (found := version(name))}
    yield Finding("ok", part, ", ".join(f"{name} {found}" for name, found in versions.items()))
    for requirement in _requirements("densecl"):
        if fault := unmet(requirement, version(requirement.name)):
            yield Finding("error", part, fault, f"pip install '{requirement.name}{requirement.specifier}'")
    yield from pair(version("torch"), version("torchvision"), _requirements("torchvision"))
    for name in ESSENTIAL:
        try:
            importlib.import_module(name)
        except Exception as error:  # an extension that does not fit raises OSError or RuntimeError
            advice = f"pip install --force-reinstall {name.partition('.')[0].replace('avalanche', 'avalanche-lib')}"
            yield Finding("error", part, f"import {name} fails: {first_line(error)}", advice)


def pair(torch: str | None, torchvision: str | None, requirements: list[Requirement]) -> Iterator[Finding]:
    """Whether torch and torchvision were built for each other; `requirements` are torchvision's."""
    if torch is None or torchvision is None:
        return
    advice = "install both from one index: pip install --upgrade torch torchvision"
    for requirement in requirements:
        if requirement.name == "torch" and unmet(requirement, torch):
            text = f"torchvision {torchvision} needs torch{requirement.specifier}, and torch {torch} is installed"
            yield Finding("problem", "packages", text, advice)
    builds = [Version(each).local for each in (torch, torchvision)]
    if all(builds) and builds[0] != builds[1]:
        text = f"torch {torch} and torchvision {torchvision} are builds for different devices"
        yield Finding("problem", "packages", text, advice)


def extras() -> Iterator[Finding]:
    """Packages that single options need."""
    for name, use in EXTRAS.items():
        found = version(name)
        if found is None:
            yield Finding("note", "extras", f"{name} is not installed (for {use})", f"pip install 'densecl[{name}]'")
        else:
            yield Finding("ok", "extras", f"{name} {found}, for {use}")


def unmet(requirement: Requirement, found: str | None) -> str:
    """What is wrong with the installed version of a requirement; empty if nothing is."""
    if found is None:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return ""
    return f"{requirement.name} {found} is installed, {requirement.specifier} is needed"


def version(name: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements(name: str) -> list[Requirement]:
    """What a distribution needs, without extras; nothing where it runs from a folder that was not installed."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    parsed = map(Requirement, lines)
    return [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]


def _requires_python() -> SpecifierSet:
    try:
        return SpecifierSet(metadata.metadata("densecl")["Requires-Python"] or "")
    except (metadata.PackageNotFoundError, KeyError):
        return SpecifierSet("")
