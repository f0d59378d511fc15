"""Which flows a reader wants: FlowFilter messages made into masks over columns.

Here belongs what each field of FlowFilter means, and how it is refused when it means nothing. Strings are looked up
once for each end or record that there is, not once a flow. Not here: where reading begins and ends (observer/).
"""
