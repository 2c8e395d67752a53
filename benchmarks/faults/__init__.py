"""How fast a job reacts to what happens to it in a worker elsewhere."""
