"""Several models in one cluster: requests go to pools that serve theirs."""
