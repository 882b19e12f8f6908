"""``infotok evaluate``: how good a tokenizer is at each rate, and how good its router.

```
clips ──▶ analysis ──▶ routing ──▶ measuring ──▶ hindsight ──▶ report ──▶ tables, plots
windows   codes, ELBO  who gets    decode,       optimum,      what it
of files  of all clips how many    compare       search        adds up to
                                      │
                                   ssim_pool: beside the GPU
```
"""
