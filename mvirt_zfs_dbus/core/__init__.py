"""What the product does: the catalog, the operations and the jobs. This layer knows no bus."""
