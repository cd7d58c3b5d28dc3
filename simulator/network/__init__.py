"""Links that flows share, the topology they make up, and what a cluster sends over them."""
