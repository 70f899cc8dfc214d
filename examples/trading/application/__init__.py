"""What the application can be asked for, and the process that leads an order from placed to settled."""
