"""The libraries to compare: how to set each up, feed it, and detect that it has finished."""
