"""PyTorch's side of bench/peers/recurrent: an LSTM VAE with nn.LSTM on sentences of several lengths.

    recurrent_torch.py BATCHES WIDTH LAYERS VOCABULARY THREADS WEIGHTS MODE

Input and output lines are those of training.c. MODE: padded, to the longest sentence of the batch, where the last
state is read at each sentence's end; or packed, with pack_padded_sequence. Batches become tensors before the first
step."""
import re
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence
from training_torch import END, NO_LABEL, PAD, START, read_batches, safetensors

LATENT = 32


class Vae(nn.Module):
    def __init__(self, width, layers, vocabulary):
        super().__init__()
        self.encoder_token = nn.Embedding(vocabulary, width)
        self.decoder_token = nn.Embedding(vocabulary, width)
        self.encoder = nn.LSTM(width, width, layers, batch_first=True)
        self.decoder = nn.LSTM(width + LATENT, width, layers, batch_first=True)
        self.head = nn.Linear(width, 2 * LATENT)
        self.first = nn.ModuleList(nn.Linear(LATENT, 2 * width) for _ in range(layers))
        self.output = nn.Linear(width, vocabulary, bias=False)

    def read(self, words, lengths, packed):
        """Returns the last layer's state after each sentence's last row."""
        x = self.encoder_token(words)
        if packed:
            return self.encoder(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[1][0][-1]
        y = self.encoder(x)[0]
        return y[torch.arange(len(words)), lengths - 1]

    def forward(self, words, labels, lengths, packed, beta):
        """words (S, T + 2) with marks and padding, labels (S, T + 1), lengths (S) with marks. Returns the mean loss per
        sentence."""
        mu, logvar = self.head(self.read(words, lengths, packed)).chunk(2, -1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        kl = 0.5 * (mu * mu + logvar.exp() - 1 - logvar).sum()
        state = torch.stack([first(z) for first in self.first]).chunk(2, -1)
        state = tuple(part.contiguous() for part in state)
        x = self.decoder_token(words[:, :-1])
        x = torch.cat([x, z[:, None].expand(-1, x.shape[1], -1)], -1)
        if packed:
            x = pack_padded_sequence(x, lengths - 1, batch_first=True, enforce_sorted=False)
            labels = pack_padded_sequence(labels, lengths - 1, batch_first=True, enforce_sorted=False).data
            y = self.decoder(x, state)[0].data
        else:
            y, labels = self.decoder(x, state)[0].flatten(0, 1), labels.flatten()
        nll = F.cross_entropy(self.output(y), labels, reduction="sum", ignore_index=NO_LABEL)
        return (nll + beta * kl) / len(words)


def load(model, path, layers):
    """Loads elbo's weights. The rows of gates have the same order; z's columns follow the input's; the second bias is
    0."""
    own = safetensors(path)
    with torch.no_grad():
        for stack, lstm in (("encoder", model.encoder), ("decoder", model.decoder)):
            getattr(model, f"{stack}_token").weight.copy_(own[f"{stack}.embedding.token.weight"])
            for layer in range(layers):
                w = own[f"{stack}.{layer}.input.weight"]
                if stack == "decoder" and layer == 0:
                    w = torch.cat([w, own["decoder.0.latent.weight"]], -1)
                getattr(lstm, f"weight_ih_l{layer}").copy_(w)
                getattr(lstm, f"weight_hh_l{layer}").copy_(own[f"{stack}.{layer}.hidden.weight"])
                getattr(lstm, f"bias_ih_l{layer}").copy_(own[f"{stack}.{layer}.input.bias"])
                getattr(lstm, f"bias_hh_l{layer}").zero_()
        for layer, first in enumerate(model.first):
            first.weight.copy_(own[f"decoder.{layer}.init.weight"])
            first.bias.copy_(own[f"decoder.{layer}.init.bias"])
        model.head.weight.copy_(own["latent.head.weight"])
        model.head.bias.copy_(own["latent.head.bias"])
        model.output.weight.copy_(own["decoder.output.weight"])


def tensors(sentences):
    longest = max(map(len, sentences))
    words = torch.tensor([[START, *s, END] + [PAD] * (longest - len(s)) for s in sentences])
    labels = torch.tensor([[*s, END] + [NO_LABEL] * (longest - len(s)) for s in sentences])
    return words, labels, torch.tensor([len(s) + 2 for s in sentences])


def main():
    path, width, layers, vocabulary, threads, weights, mode = sys.argv[1:]
    with open("/proc/self/status", encoding="ascii") as file:
        print(int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1)) * 1024)
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    batches = [tensors(batch) for batch in read_batches(path)]
    model = Vae(int(width), int(layers), int(vocabulary))
    load(model, weights, int(layers))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01, fused=True)
    print(sum(p.numel() for p in model.parameters()), torch.__version__, flush=True)
    for line in sys.stdin:
        batch = batches[int(line) % len(batches)]
        began = time.perf_counter()
        loss = model(*batch, mode == "packed", 0.5)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        del loss
        print(f"{time.perf_counter() - began:.9f} {value:.9g}", flush=True)


if __name__ == "__main__":
    main()
