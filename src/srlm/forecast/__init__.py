"""Know before you train: the trajectory of self-rewarding, from draws of the base."""
