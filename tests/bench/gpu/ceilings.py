"""What the card gives in this run: bf16 products at the shapes of Llama-3.1-8B, a copy, attention.
The last line is the rate that shares of peak are counted by: `peak N` TFLOP/s."""
import torch
from torch.nn.functional import scaled_dot_product_attention as attend


def seconds(f, n=20):
    for _ in range(4):
        f()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
              for _ in range(n)]
    for begin, end in events:
        begin.record()
        f()
        end.record()
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) for a, b in events)[n // 2] * 1e-3


def randn(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


best = 0.0
for m, n, k in [(16384, 6144, 4096), (16384, 28672, 4096), (16384, 4096, 14336),
                (16384, 16, 4096), (16384, 4096, 16), (64, 28672, 4096), (1, 28672, 4096)]:
    x, w, y = randn(m, k), randn(n, k), randn(m, n)
    t = seconds(lambda: torch.mm(x, w.t(), out=y))
    rate = 2 * m * n * k / t / 1e12
    best = max(best, rate)
    print(f"product {m} x {n} x {k}: {rate:.0f} TFLOP/s, "
          f"{2 * (m * k + n * k + m * n) / t / 1e9:.0f} GB/s")
a = torch.empty(1 << 31, device="cuda", dtype=torch.int8)
b = torch.empty_like(a)
print(f"copy: {2 * a.numel() / seconds(lambda: b.copy_(a)) / 1e9:.0f} GB/s")
del a, b
for batch, heads, kv, length, d in [(8, 32, 8, 2048, 128), (8, 32, 8, 2048, 64)]:
    q, k, v = (randn(batch, h, length, d).requires_grad_() for h in (heads, kv, kv))
    g = randn(batch, heads, length, d)
    forward = seconds(lambda: attend(q, k, v, is_causal=True, enable_gqa=True))
    o = attend(q, k, v, is_causal=True, enable_gqa=True)
    back = seconds(lambda: torch.autograd.grad(o, (q, k, v), g, retain_graph=True))
    work = 2 * batch * heads * length * length * d
    print(f"attention of {length}, {heads}/{kv} heads of {d}: forward {work / forward / 1e12:.0f}, "
          f"backward {2.5 * work / back / 1e12:.0f} TFLOP/s")
print(f"peak {best:.0f}")
