"""Real daemons under real faults, and an inspection of what they kept: `scripts/chaos`."""
