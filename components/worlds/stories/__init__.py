"""Stories for children, and what makes one a warm one."""
