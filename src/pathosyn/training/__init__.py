"""Around the one training loop, `pathosyn.train`: what it begins with, what it is fed, and what it shows of itself."""
