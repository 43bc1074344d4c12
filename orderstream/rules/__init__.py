"""Rules are data: one YAML file a rule with its own examples, a folder a pack, a version a content.

`model` says what a rule file may say, `pack` reads and compiles a folder, `examples` runs what the files claim.
"""
