"""The pages of the site that are made as it is built, from the code and from stored results.

Every module has `pages()`: path in the site -> Markdown, or the bytes of a picture.
"""
