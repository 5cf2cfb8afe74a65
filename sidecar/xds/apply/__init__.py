"""What is done with resources: each is judged by itself, and takes the place of its last version when it is good."""
