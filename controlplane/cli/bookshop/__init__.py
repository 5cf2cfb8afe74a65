"""A small book shop of four services, so that there is something to look at: page, details, reviews and ratings."""
