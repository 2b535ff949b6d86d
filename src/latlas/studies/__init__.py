"""Questions asked of the layers below; no maths of their own."""
