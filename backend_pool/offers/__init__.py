"""What backends offer (nodes, models), what the pool offers together, and whether a prompt fits."""
