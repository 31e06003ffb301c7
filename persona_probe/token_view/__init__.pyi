from .token_view import view_tokens as view_tokens
from .view import TokenView as TokenView
