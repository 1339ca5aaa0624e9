//! Parameters of vision towers and projectors. They take memory and, in a text step, no time.

use super::config::Config;
use super::fields::{Fields, MAX_LAYERS, MAX_TOKENS, MAX_WIDTH};
use crate::error::{Error, Result};

/// Widest tower: far above any published one, and narrow enough that no product below can pass 2^63.
const MAX_TOWER_WIDTH: u64 = 1 << 15;
/// Longest side of an image or patch in pixels, most merged patches along a side, most channels.
const MAX_PIXELS: u64 = 1 << 15;
const MAX_MERGE: u64 = 16;
/// Most taps of intermediate layers (deepstack).
const MAX_TAPS: u64 = 64;

/// A linear layer with bias.
fn linear(k: u64, n: u64) -> u64 {
    k * n + n
}

/// The fields of the tower, which a multimodal config must have.
fn tower<'a>(config: &Config<'a>) -> Result<Fields<'a>> {
    let missing = || config.top.refuse("vision_config", "must be given: the tower's weights take memory");
    config.top.object("vision_config")?.ok_or_else(missing)
}

/// What most towers share: width, feed-forward width, layers, pixels of a patch in all channels.
struct Tower {
    width: u64,
    intermediate: u64,
    depth: u64,
    patch: u64,
}

impl Tower {
    fn read(f: &Fields, depth: &str) -> Result<Self> {
        let side = f.count_or("patch_size", MAX_PIXELS, 16)?;
        let channels = f.count_any_or(&["num_channels", "in_channels", "in_chans"], MAX_MERGE, 3)?;
        Ok(Self {
            width: f.count("hidden_size", MAX_TOWER_WIDTH)?,
            intermediate: f.count("intermediate_size", MAX_TOWER_WIDTH)?,
            depth: f.count(depth, MAX_LAYERS)?,
            patch: side * side * channels,
        })
    }

    /// A pre-norm block: two layer norms, four attention projections and two feed-forward matrices, all with bias.
    fn block(&self) -> u64 {
        let Self { width, intermediate, .. } = *self;
        4 * width + 4 * linear(width, width) + linear(width, intermediate) + linear(intermediate, width)
    }
}

/// Patches of a square image, which must be a whole number of patches wide.
fn patches(f: &Fields) -> Result<u64> {
    let image = f.count("image_size", MAX_PIXELS)?;
    let patch = f.count("patch_size", MAX_PIXELS)?;
    let side = image / patch;
    if side == 0 {
        return Err(Error::spec(f.path_of("patch_size"), patch, format!("must not exceed image_size, {image}")));
    }
    Ok(side * side)
}

/// `SigLIP` and Gemma 3's projector: one matrix and one norm. The tower keeps its last norm and has no pooling head.
pub(super) fn siglip(config: &Config, hidden_size: u64) -> Result<u64> {
    let f = tower(config)?;
    if f.flag("vision_use_head", false)? {
        return Err(f.unsupported("vision_use_head", "must be false: the pooling head is not counted"));
    }
    let tower = Tower::read(&f, "num_hidden_layers")?;
    let embeddings = linear(tower.patch, tower.width) + patches(&f)? * tower.width;
    let projector = tower.width * hidden_size + tower.width;
    Ok(embeddings + tower.depth * tower.block() + 2 * tower.width + projector)
}

/// Qwen2.5-VL: gated feed-forward with bias, root-mean-square norms, patches embedded over two frames.
pub(super) fn qwen2_5_vl(config: &Config) -> Result<u64> {
    let f = tower(config)?;
    let tower = Tower::read(&f, "depth")?;
    let Tower { width, intermediate, .. } = tower;
    let frames = f.count_or("temporal_patch_size", MAX_MERGE, 2)?;
    let attention = linear(width, 3 * width) + linear(width, width);
    let block = 2 * width + attention + 2 * linear(width, intermediate) + linear(intermediate, width);
    let merged = merged_width(&f, width)?;
    let merger = width + linear(merged, merged) + linear(merged, f.count("out_hidden_size", MAX_WIDTH)?);
    Ok(tower.patch * frames * width + tower.depth * block + merger)
}

/// Qwen3-VL: plain feed-forward, learned positions, one merger at the end and one for every tapped layer.
pub(super) fn qwen3_vl(config: &Config) -> Result<u64> {
    let f = tower(config)?;
    let tower = Tower::read(&f, "depth")?;
    let frames = f.count_or("temporal_patch_size", MAX_MERGE, 2)?;
    let positions = f.count_or("num_position_embeddings", MAX_TOKENS >> 10, 2304)?;
    // Three layers are tapped unless the file says otherwise (the class's default is 8, 16, 24).
    let taps = f.counts("deepstack_visual_indexes", 0, MAX_LAYERS)?.map_or(3, |taps| taps.len() as u64);
    if taps > MAX_TAPS {
        let rule = format!("must have at most {MAX_TAPS} entries");
        return Err(Error::spec(f.path_of("deepstack_visual_indexes"), format!("list of {taps}"), rule));
    }
    let merged = merged_width(&f, tower.width)?;
    let merger = linear(merged, merged) + linear(merged, f.count("out_hidden_size", MAX_WIDTH)?);
    let embeddings = linear(tower.patch * frames, tower.width) + positions * tower.width;
    // The last merger normalises before patches are merged, those of tapped layers after.
    let mergers = 2 * tower.width + merger + taps * (2 * merged + merger);
    Ok(embeddings + tower.depth * tower.block() + mergers)
}

fn merged_width(f: &Fields, width: u64) -> Result<u64> {
    let merge = f.count_or("spatial_merge_size", MAX_MERGE, 2)?;
    Ok(merge * merge * width)
}

/// Llama 4: a class token, learned positions, norms before and after, a pixel-shuffle adapter of two matrices and a
/// projector of one, those three without bias.
pub(super) fn llama4(config: &Config, hidden_size: u64) -> Result<u64> {
    let f = tower(config)?;
    let tower = Tower::read(&f, "num_hidden_layers")?;
    let embeddings = tower.patch * tower.width + tower.width + (patches(&f)? + 1) * tower.width;
    let input = f.count("projector_input_dim", MAX_WIDTH)?;
    let output = f.count("projector_output_dim", MAX_WIDTH)?;
    let adapter = tower.intermediate * input + input * output;
    let projector = f.count("vision_output_dim", MAX_WIDTH)? * hidden_size;
    Ok(embeddings + 4 * tower.width + tower.depth * tower.block() + adapter + projector)
}

/// Kimi K2.5's `MoonViT` and patch-merging projector (layout: vLLM `kimi_k25_vit.py`). Positions in time are computed,
/// not learned.
pub(super) fn moonvit(config: &Config, hidden_size: u64) -> Result<u64> {
    let f = tower(config)?;
    let width = f.count("vt_hidden_size", MAX_TOWER_WIDTH)?;
    let side = f.count("patch_size", MAX_PIXELS)?;
    let tower = Tower {
        width,
        intermediate: f.count("vt_intermediate_size", MAX_TOWER_WIDTH)?,
        depth: f.count("vt_num_hidden_layers", MAX_LAYERS)?,
        patch: 3 * side * side,
    };
    let height = f.count("init_pos_emb_height", MAX_PIXELS)?;
    let positions = height * f.count("init_pos_emb_width", MAX_PIXELS)?;
    let merged = match f.counts("merge_kernel_size", 1, MAX_MERGE)?.as_deref() {
        Some([high, wide]) => high * wide * width,
        _ => return Err(f.refuse("merge_kernel_size", "must be a list of two integers")),
    };
    let projector = 2 * width + linear(merged, merged) + linear(merged, hidden_size);
    Ok(linear(tower.patch, width) + positions * width + tower.depth * tower.block() + 2 * width + projector)
}
