"""The demo model's config.json. usage: config.py [--hidden N --ratios 0,4,... --experts N] OUT_DIR"""
import argparse
import json
import pathlib


def make(hidden=128, ratios=(0, 4, 128, 0, 4, 4, 0), experts=8, o_lora=64, index_heads=8, topk=64):
    """ratios: one per layer, the last is the MTP layer's."""
    return {
        "architectures": ["DeepseekV4ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0,
        "compress_ratios": list(ratios), "compress_rope_theta": 160000, "eos_token_id": 1, "expert_dtype": "fp4",
        "hc_eps": 1e-06, "hc_mult": 4, "hc_sinkhorn_iters": 20, "head_dim": 512, "hidden_act": "silu", "hidden_size": hidden,
        "index_head_dim": 128, "index_n_heads": index_heads, "index_topk": topk, "max_position_embeddings": 4096,
        "model_type": "deepseek_v4", "moe_intermediate_size": 128, "n_routed_experts": experts, "n_shared_experts": 1,
        "norm_topk_prob": True, "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hash_layers": 1,
        "num_hidden_layers": len(ratios) - 1, "num_key_value_heads": 1, "num_nextn_predict_layers": 1, "o_groups": 4,
        "o_lora_rank": o_lora, "q_lora_rank": 128, "qk_rope_head_dim": 64,
        "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "scale_fmt": "ue8m0",
                                "weight_block_size": [128, 128]},
        "rms_norm_eps": 1e-06, "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 16,
                                                "original_max_position_embeddings": 65536, "type": "yarn"},
        "rope_theta": 10000.0, "routed_scaling_factor": 1.5, "scoring_func": "sqrtsoftplus", "sliding_window": 128,
        "swiglu_limit": 10.0, "tie_word_embeddings": False, "topk_method": "noaux_tc", "torch_dtype": "bfloat16",
        "use_cache": True, "vocab_size": 4096}


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--hidden", type=int, default=128)
    ap.add_argument("--ratios", default="0,4,128,0,4,4,0")
    ap.add_argument("--experts", type=int, default=8)
    ap.add_argument("--o-lora", type=int, default=64)
    ap.add_argument("--index-heads", type=int, default=8)
    args = ap.parse_args()
    c = make(args.hidden, [int(x) for x in args.ratios.split(",")], args.experts, args.o_lora, args.index_heads)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(c, indent=2) + "\n")
    generation = {"bos_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 1.0, "top_p": 1.0}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
