"""What verbs say to a person, and where else they send it.

Figures come in finished; no verb's own matter is here. Start with `terminal`, lines and progress; `headline` says
what a profile holds, `wording` the option parser's complaints, `help_text` its help, `attaching` goes to the trackers.
"""
