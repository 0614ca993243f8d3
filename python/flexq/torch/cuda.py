"""placeholder until the kernels' functions are known"""
def linear(*a): raise NotImplementedError
linear_out=grouped_linear=embedding=dequantize=to_canonical=to_device_order=linear
