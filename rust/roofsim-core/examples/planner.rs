//! A planner that embeds the core without Python: how far may the batch of a replica grow, and how many replicas does a
//! demand need?
//!
//! ```sh
//! cargo run --release -p roofsim-core --example planner -- \
//!     python/roofsim/catalog/models/llama-3.1-70b.json rust/roofsim-core/examples/h100-sxm.json
//! ```
//!
//! The core reads no files: this program does, and hands it text.

use std::error::Error;
use std::sync::Arc;

use roofsim_core::capacity::{Capacity, CapacityLimits, CapacityMode};
use roofsim_core::deployment::DeploymentSpec;
use roofsim_core::engine::Engine;
use roofsim_core::hardware::Accelerator;
use roofsim_core::model::Model;
use roofsim_core::parallel::Layout;
use roofsim_core::workload::{Batch, Request};

/// Devices that share every layer of one replica.
const TENSOR_PARALLEL_SIZE: u64 = 4;
/// Context of each sequence.
const CONTEXT_TOKENS: u64 = 4096;
/// Longest decode step that users accept.
const TPOT_LIMIT_S: f64 = 0.030;
/// Output tokens per second that all replicas together must serve.
const DEMAND_TOKENS_PER_S: f64 = 20_000.0;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(config), Some(spec)) = (arguments.next(), arguments.next()) else {
        return Err("usage: planner CONFIG.json ACCELERATOR.json".into());
    };
    let model = Model::from_config_json(&std::fs::read_to_string(&config)?, &config)?;
    let accelerator = Accelerator::from_json(&std::fs::read_to_string(&spec)?)?;

    // Compiled once, costed as often as the loop likes: `cost` allocates nothing and reads no clock.
    let deployment = DeploymentSpec {
        model: Arc::new(model),
        accelerator: Arc::new(accelerator),
        calibration: None,
        layout: Layout::new(TENSOR_PARALLEL_SIZE, 1, 1, 1)?,
        weight_format: None,
        kv_format: None,
        engine: Engine::Ideal,
    }
    .compile()?;
    let limits = CapacityLimits { mode: CapacityMode::Runtime, ..CapacityLimits::default() };
    let room = Capacity::of(&deployment, &limits)?.max_sequences(CONTEXT_TOKENS);

    println!("{config} on {TENSOR_PARALLEL_SIZE} x {}, {}", deployment.accelerator.name, deployment.calibration.name);
    println!("{CONTEXT_TOKENS} tokens of context, memory holds {room} sequences\n");
    println!("{:>6} {:>9} {:>9} {:>9} {:>10} {:>9}", "batch", "ms", "low", "high", "tokens/s", "bound");

    let mut best: Option<(u64, f64)> = None;
    let doubling = std::iter::successors(Some(1_u64), |batch| Some(batch * 2));
    for batch in doubling.take_while(|&batch| batch < room).chain((room > 0).then_some(room)) {
        let step = deployment.step.cost(&Batch::uniform(batch, Request::new(1, CONTEXT_TOKENS)?)?);
        let tokens_per_s = batch as f64 / step.time_s;
        println!(
            "{batch:>6} {:>9.2} {:>9.2} {:>9.2} {tokens_per_s:>10.0} {:>9}",
            1e3 * step.time_s,
            1e3 * step.time_low_s,
            1e3 * step.time_high_s,
            step.bound().name()
        );
        if step.time_s <= TPOT_LIMIT_S {
            best = Some((batch, tokens_per_s));
        }
    }
    match best {
        None => println!("\nno batch decodes within {} ms", 1e3 * TPOT_LIMIT_S),
        Some((batch, tokens_per_s)) => println!(
            "\nscale to {:.0} replicas at batch {batch} for {DEMAND_TOKENS_PER_S} tokens/s within {} ms",
            (DEMAND_TOKENS_PER_S / tokens_per_s).ceil(),
            1e3 * TPOT_LIMIT_S
        ),
    }
    Ok(())
}
