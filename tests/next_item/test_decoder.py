import torch
from torch import nn

from recscale.next_item.models.decoder import Decoder


def decoder(**changes):
    torch.manual_seed(0)
    settings = {"n_items": 20, "n_layers": 2, "d_model": 8, "n_heads": 2, "max_len": 6, "dropout": 0.0}
    return Decoder(**settings | changes).eval()


def test_no_position_sees_what_comes_after_it():
    model = decoder()
    items = torch.randint(1, 21, (3, 6))
    changed = items.clone()
    changed[:, 4:] = torch.randint(1, 21, (3, 2))
    assert torch.equal(model(items)[:, :4], model(changed)[:, :4])


def test_padding_on_the_right_changes_nothing():
    model = decoder()
    items = torch.randint(1, 21, (3, 4))
    padded = torch.cat([items, torch.zeros(3, 2, dtype=torch.long)], 1)
    torch.testing.assert_close(model(padded)[:, :4], model(items))


def test_it_is_pytorchs_own_pre_norm_transformer():
    """Oracle: nn.TransformerEncoderLayer (norm_first, GELU, causal) with the same weights."""
    model = decoder()
    items = torch.randint(1, 21, (3, 6))
    x = model.item_table(items) + model.positions.weight
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        ).eval()
        pairs = {
            "self_attn.in_proj_": block.attention.qkv,
            "self_attn.out_proj.": block.attention.proj,
            "linear1.": block.up,
            "linear2.": block.down,
            "norm1.": block.norm1,
            "norm2.": block.norm2,
        }
        layer.load_state_dict(
            {f"{name}{k}": v for name, module in pairs.items() for k, v in module.state_dict().items()}
        )
        x = layer(x, src_mask=nn.Transformer.generate_square_subsequent_mask(6), is_causal=True)
    torch.testing.assert_close(model(items), model.norm(x), rtol=1e-4, atol=1e-5)


def test_residual_projections_start_smaller_and_output_is_tied():
    model = decoder(n_layers=8, d_model=64)
    scale = model.blocks[0].attention.proj.weight.std() / model.blocks[0].up.weight.std()
    assert abs(scale.item() - 1 / 4) < 0.02  # 1 / sqrt(2 * 8)
    assert model.output.data_ptr() == model.item_table.weight[1:].data_ptr()
    assert "mask" not in model.state_dict()


def test_dropout_acts_in_training_only():
    model = decoder(dropout=0.5)
    items = torch.randint(1, 21, (3, 6))
    assert torch.equal(model(items), model(items))
    model.train()
    assert not torch.equal(model(items), model(items))
