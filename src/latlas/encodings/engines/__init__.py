"""What carries work to workers: this process, processes of one launch or one machine, a Ray cluster."""
