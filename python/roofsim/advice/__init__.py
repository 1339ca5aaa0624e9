"""What to make of a deployment: the regimes a step passes through, the levers that change it."""
