"""The configuration of a text variational autoencoder that elbo has trained."""
from transformers import PretrainedConfig

STACK = {"kind": "transformer", "width": 128, "layers": 2, "heads": 4, "kv_heads": 4, "ff_width": 512,
         "norm": "layernorm", "norm_position": "pre", "embedding_norm": False, "positions": "learned",
         "activation": "gelu", "dropout": 0.0, "embedding_width": 128, "bidirectional": False, "residual": False,
         "pooling": "mean"}
LATENT = {"kind": "normal", "width": 32, "injection": ["memory", "embedding"], "memory": 1, "prefix": 0, "skip": False,
          "init_tanh": False, "prior": "standard", "components": 0, "pseudo_inputs": 0, "pseudo_length": 0,
          "delta": 0.15, "normalize": "none", "gamma": 0.5, "alpha": 1.0, "rate": 0.0, "rate_scope": "sentence",
          "fitted_components": 0, "fitted_full": False}


class ElboConfig(PretrainedConfig):
    """encoder_stack, decoder_stack, latent: what the model is (elbo's docs/model.md). max_positions: tokens of the
    longest sentence with its marks. banned_ids: never generated. label_names: classes that both stacks are told."""
    model_type = "elbo"

    def __init__(self, encoder_stack=None, decoder_stack=None, latent=None, vocab_size=259, max_positions=102,
                 share_embedding=True, tie_output=True, marks=0, label_names=(), unk_token_id=2, banned_ids=(0,),
                 bos_token_id=0, eos_token_id=1, pad_token_id=1, **kwargs):
        self.encoder_stack = {**STACK, **(encoder_stack or {})}
        self.decoder_stack = {**STACK, **(decoder_stack or {})}
        self.latent = {**LATENT, **(latent or {})}
        self.vocab_size, self.max_positions, self.unk_token_id = vocab_size, max_positions, unk_token_id
        self.share_embedding, self.tie_output, self.marks = share_embedding, tie_output, marks
        self.label_names, self.banned_ids = list(label_names), list(banned_ids)
        self.hidden_size, self.num_hidden_layers = self.decoder_stack["width"], self.decoder_stack["layers"]
        kwargs["tie_word_embeddings"] = False  # the model reads one table twice; nothing is left to tie
        super().__init__(bos_token_id=bos_token_id, eos_token_id=eos_token_id, pad_token_id=pad_token_id, **kwargs)
