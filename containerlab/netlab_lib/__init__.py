"""netlab: runs containerlab's topology files in Linux namespaces, without a container engine."""
