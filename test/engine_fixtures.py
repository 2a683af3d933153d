"""Full-size architectures in miniature, for tests of the engine's benchmarks."""

from __future__ import annotations

# As `benchmarks.engine_candidates.ARCHITECTURES`.
MINIATURE = {
    'unet': {'block_out_channels': (32, 64), 'attention_head_dim': (2, 4), 'layers_per_block': 1,
             'cross_attention_dim': 48, 'use_linear_projection': True,
             'down_block_types': ('CrossAttnDownBlock2D', 'DownBlock2D'),
             'up_block_types': ('UpBlock2D', 'CrossAttnUpBlock2D')},
    'kl': {'block_out_channels': (32, 32, 32, 32), 'layers_per_block': 1,
           'down_block_types': ('DownEncoderBlock2D',) * 4,
           'up_block_types': ('UpDecoderBlock2D',) * 4},
    'tiny': {'encoder_block_out_channels': (8, 8, 8, 8),
             'decoder_block_out_channels': (8, 8, 8, 8),
             'num_encoder_blocks': (1, 1, 1, 1), 'num_decoder_blocks': (1, 1, 1, 1)},
    'processing_resolution': 64}
