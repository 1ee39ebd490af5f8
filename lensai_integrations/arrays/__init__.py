"""Arrays of numpy, torch, JAX and TensorFlow, met by one set of functions.

In: an array of any of these libraries. Out: the functions of its namespace, its host copy, its type's name. Knows no
sketch and no measure, and imports none of the libraries: it recognises what is loaded already.
"""
