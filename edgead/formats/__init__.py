"""Image files: what each format must hold to be whole, found before anything is decided on its pixels."""
