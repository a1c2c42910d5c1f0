"""A small grid of cells, and rows as its runs would have left them."""

from bnn_lightning.studies import rows

GRID = {
    "method": {"BBB": {"model.method": "BBB"}, "LRT": {"model.method": "LRT", "seeds": [0, 3]}},
    "model.lr": [0.1, 1],
}


def row_of(study, name, seed, **values):
    """A row as a run of that cell would have left it."""
    cell = next(cell for cell in study.all_cells() if cell.name == name)
    head = rows.head(study.task(cell, seed))
    return head | {"marks": "", "versions": "v", "machine": "m", "command": "c", "seconds": "60"} | values
