"""Settings of the smallest DRAEM that tests train."""

TINY = ("size=64", "reconstructive_width=4", "discriminative_width=4", "steps=12", "batch_size=2")
