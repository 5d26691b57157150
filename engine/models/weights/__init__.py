"""The weights of the built-in networks: safetensors in float16, made by `fc7.bench.train`."""
