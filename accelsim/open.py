"""One door to everything that can be simulated: traces, recipes, topology files and networks by name."""

from __future__ import annotations

from pathlib import Path

from accelsim.arguments import path_of
from accelsim.errors import AccelsimError, listed
from accelsim.synthetic.networks import NETWORKS, Request, network, split_name
from accelsim.synthetic.recipe import Recipe, looks_like_recipe
from accelsim.synthetic.scalesim import Depthwise, read_topology
from accelsim.synthetic.workload import SyntheticWorkload
from accelsim.trace.file import SUFFIX, Trace
from accelsim.trace.find import find_trace, has_manifest

_TOPOLOGIES = (".csv", ".txt", ".tsv")
_MODELS = {
    ".onnx": "an ONNX model, expected a trace of it: `accelsim export` makes one",
    ".pt2": "a PyTorch model, expected a trace of it: `accelsim export` makes one",
    ".py": "a Python script, expected a trace of its model: `accelsim export` makes one",
    ".pt": "a PyTorch checkpoint, expected a trace of the model: accelsim.torch.export makes one",
    ".pth": "a PyTorch checkpoint, expected a trace of the model: accelsim.torch.export makes one",
}


def open_workload(
    name_or_path: str | Path,
    *,
    seq: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
    depthwise: Depthwise | None = None,
) -> Trace | SyntheticWorkload:
    """A trace, ready to be asked for layers.

    name_or_path: a trace file, a recipe file, a SCALE-Sim topology (.csv, .txt, .tsv), a bundled trace's
    name, or a network's (`resnet50`, `bert-base`, `bert-base@seq=384,batch=4`). seq, batch, seed: sizes and
    randomness of a network; a topology takes batch and seed, and depthwise: `by-name` (the default) or
    `never`, whether layers of one filter are depthwise where their names say so. Raises AccelsimError on bad
    input, with one clear line.
    """
    path, request = path_of(name_or_path, "trace"), Request(seq, batch, seed)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # too long a name, an embedded NUL byte
        is_file = False
    if is_file and path.suffix.lower() in _TOPOLOGIES:
        return SyntheticWorkload(read_topology(path, request, depthwise or "by-name"), path)
    if depthwise is not None:
        raise AccelsimError(f"trace {name_or_path}: depthwise is given, expected a topology file")
    if not is_file:
        name, asked = split_name(str(name_or_path)) if _is_network(name_or_path) else ("", Request())
        if name:
            merged = {**asked.given(), **request.given()}
            both = set(asked.given()) & set(request.given())
            if both:
                raise AccelsimError(f"network {name}: {min(both)} is given in the name and beside it")
            asked = Request(**merged)
            return SyntheticWorkload(network(name, asked), Path(name + asked.suffix()))
    try:
        found = find_trace(name_or_path)
    except AccelsimError as error:
        raise AccelsimError(f"{error}; networks: {listed(NETWORKS, name_or_path)}") from None
    if given := request.given():
        raise AccelsimError(
            f"trace {name_or_path}: {', '.join(given)} given, expected none: the file says what it holds"
        )
    if looks_like_recipe(found):
        return SyntheticWorkload(Recipe.open(found), found)
    if found.suffix.lower() != SUFFIX and not has_manifest(found, if_damaged=False):
        raise AccelsimError(f"trace {name_or_path}: is {_what_else(found)}")
    return Trace.open(found)


def _what_else(file: Path) -> str:
    """Of a file that is no workload: what it is, and what was expected."""
    known = ", ".join(_TOPOLOGIES)
    other = (
        f"no trace ({SUFFIX}), no recipe (.json) and no SCALE-Sim topology ({known}), expected one of them"
    )
    return _MODELS.get(file.suffix.lower(), other)


def _is_network(name_or_path: str | Path) -> bool:
    return str(name_or_path).partition("@")[0] in NETWORKS
