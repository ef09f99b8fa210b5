"""A small local ECS: a rolling deployment on real processes and sockets, the article's before and after."""
