"""Add up closed runs once, so that figures over months need not read every attempt."""
