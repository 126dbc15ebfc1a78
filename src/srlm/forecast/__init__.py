"""Know before you train: the trajectory of self-rewarding, from samples of the base."""
