"""Images in: built-in sets, folders, arrays. `data` converts at the door; inside, images are floats in [0, 1]."""
