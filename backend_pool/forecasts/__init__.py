"""What waiting jobs may expect: how long work takes, learned, and the line played forward."""
