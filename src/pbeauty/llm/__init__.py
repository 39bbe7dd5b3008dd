"""How do models answer?"""
