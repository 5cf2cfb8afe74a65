"""What every stage of the path shares: message heads, stream info, timers, the cork, errors and the protocols between stages."""
