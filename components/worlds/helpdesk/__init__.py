"""The shipped world: a helpdesk with faults, remedies, people who ask and people who judge."""
