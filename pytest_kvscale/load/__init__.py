"""Load: creating VMIs at a pace, and deleting them."""
