"""mvirt-zfsctl, the people's client. It talks to the service over the bus, as anybody else does."""
