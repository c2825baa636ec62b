"""The randomwalks world: find the shortest walk to the goal of a random graph. Its optimum is known exactly."""
