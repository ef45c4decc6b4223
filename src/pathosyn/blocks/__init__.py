"""The layers that networks are built of: two U-Nets, and an autoencoder with its critic. torch alone."""
