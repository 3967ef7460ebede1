"""Makes people to order: pictures with exact joints in two and three dimensions, for training without a data set.

`body` is the person's shape and its skin, `keypoints` where the joints are, `garments`, `hair` and `looks` what it
wears, `render` draws it, and `single` puts one person into one picture. Needs the extra `synth`.
"""
