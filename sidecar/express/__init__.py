"""The express lane: the way of a plain request through all stages in one function, for heads of a shape that is known.

What a request of a given shape becomes is found out once, by the stages themselves; the lane repeats their result. Whatever
is out of the ordinary goes on through the stages, with the same objects, from the point that it has reached.
"""
