"""How do ranks talk?"""
