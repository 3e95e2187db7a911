"""What the entries of a configuration may be: supported with one value only, or within bounds.

The bounds are wide, so that every published model passes, and narrow enough that no entry makes
memory or time run away before a model's tensors are compared with those of its file.
"""

# Entries that change the network and are supported with one value only.
UNET_FIXED = {
    "act_fn": "silu",
    "addition_embed_type": None,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
UNET_BOUNDS = {
    "block_out_channels": (2, 8192),
    "layers_per_block": (1, 8),
    "heads": (1, 512),
    "transformer_layers_per_block": (1, 64),
    "cross_attention_dim": (1, 16384),
    "sample_size": (1, 1024),
    "in_channels": (1, 64),
    "out_channels": (1, 64),
    "norm_num_groups": (1, 1024),
    "norm_eps": (1e-12, 0.1),
    "freq_shift": (0.0, 1.0),
}
MAX_TRANSFORMERS = 160  # SDXL has 65
VAE_BOUNDS = {
    "block_out_channels": (1, 8192),
    "layers_per_block": (1, 8),
    "in_channels": (3, 4),
    "out_channels": (3, 4),
    "latent_channels": (1, 64),
    "norm_num_groups": (1, 1024),
    "scaling_factor": (1e-6, 1e6),
    "sample_size": (1, 65536),
}
VAE_FIXED = {"act_fn": "silu", "latents_mean": None, "latents_std": None, "shift_factor": None}
CLIP_BOUNDS = {
    "hidden_size": (1, 16384),
    "intermediate_size": (1, 65536),
    "num_hidden_layers": (1, 128),
    "num_attention_heads": (1, 512),
    "layer_norm_eps": (1e-12, 0.1),
    "projection_dim": (1, 65536),
}
TEXT_BOUNDS = {"vocab_size": (1, 2**21), "max_position_embeddings": (1, 4096), **CLIP_BOUNDS}
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # absent, or within these bounds
TOKEN_ID_BOUNDS = (-1, 2**31)
VISION_BOUNDS = {"image_size": (1, 4096), "patch_size": (1, 1024), **CLIP_BOUNDS}
