"""Settings of the smallest networks that tests train."""

TINY = ("size=64", "reconstructive_width=4", "discriminative_width=4", "steps=12", "batch_size=2")
"""Of the smallest DRAEM."""

SMALL = {
    "draem": ("size=64x96", "reconstructive_width=4", "discriminative_width=4", "steps=3", "batch_size=2"),
    "differnet": ("size=64x96", "scales=1", "hidden=8", "blocks=2", "steps=3", "batch_size=2"),
    "aand": ("size=65x97", "keys=4", "steps=4", "batch_size=2"),
    "transfusion": ("size=32x48", "attention_levels=2", "reverse_steps=2", "steps=3", "batch_size=2"),
    "transfusion with depth": (
        "depth=true",
        "size=32x48",
        "attention_levels=2",
        "reverse_steps=1",
        "steps=3",
        "batch_size=2",
    ),
    "drept": ("size=64x96", "width=4", "components=3", "steps=3", "batch_size=2"),
    "patchcore": ("size=64x96", "levels=2,3", "memory=16", "batch_size=2"),
    "student": ("size=64x96", "widths=16,16", "pictures=8", "rounds=2", "steps=4", "batch_size=2"),
    "student with backbone": (
        "backbone=squeezenet1_1",
        "size=64x96",
        "widths=16,16",
        "pictures=8",
        "rounds=2",
        "steps=4",
        "batch_size=2",
    ),
}
"""Settings under which each method trains in seconds; a new method adds a line. The name begins with the method's."""
LARGE = ("aand", "transfusion", "transfusion with depth")
"""Of these, the methods whose graphs take longest to write: their lower precisions are judged by the long tests."""
