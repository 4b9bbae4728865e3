"""How a policy learns: networks and distributions, episodes as rows, the inner and outer steps of an iteration."""
