"""Runs the notebooks beside it, and writes them back with their outputs: `make notebooks`.

python notebooks/rewrite.py [NOTEBOOK...]      by default all of them

Nothing of this machine or of this hour is written: no times, no versions. CI runs them again and compares
every text and table, without tolerance (`make check-notebooks`); pictures are not compared.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
_TIMEOUT_S = 1200
_COLORS = 128  # of a picture, which makes it a third as large


def rewrite(path: Path) -> None:
    """Raises nbclient's CellExecutionError, and writes nothing, where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=_TIMEOUT_S,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(HERE)}},
    ).execute()
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells, 1):
        cell.id, cell.metadata = f"cell-{number:02}", {}
        for output in cell.get("outputs", ()):
            make_small(output.get("data", {}))
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def make_small(data: dict[str, Any]) -> None:
    """The same picture with fewer colours."""
    if "image/png" in data:
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        small = io.BytesIO()
        picture.quantize(_COLORS, Image.Quantize.MAXCOVERAGE).save(small, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(small.getvalue()).decode()


def main() -> None:
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        rewrite(path)
        print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
