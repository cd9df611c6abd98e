"""One file a verb: the only place where rooms meet, and where they speak to a person.

A verb opens what its addresses name, hands it from room to room, and keeps the result; it computes no number of its
own. Start with `quickstart`, which calls the others; `verbs` lists them, `parsing` makes options of words and recipes,
`opening` opens what addresses name, `run` is what comes out. What is of one subject and not a verb stands in a folder
of its own.
"""
