"""How is a run played?"""
