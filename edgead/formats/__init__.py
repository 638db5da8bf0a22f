"""Image formats: check that a file is complete before its pixels are decided on."""
