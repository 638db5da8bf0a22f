"""TransFusion (ECCV 2024); the method itself is in `method`."""
