"""Makes people to order: pictures with exact joints in two and three dimensions, for training without a data set.

`body` is the person's shape and its skin, `pose` how it stands, `looks` what it wears, `render` draws it, `keypoints`
says where its joints are and which are seen, `single` puts it into a picture, `scene` many of them, `video` lets them
act for a while, `hand` shows a hand alone, and `write` makes a set of such pictures. Needs the extra `synth`.
"""
