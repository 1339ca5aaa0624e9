//! Operations: from a shape to FLOPs, bytes and, through the machine's law, to time.
//!
//! Each file holds one class: its shape, its exact counts, and the resolved law. Shapes are compiled once per
//! deployment; `cost` is then called per step with nothing but row counts or contexts.

pub mod attention;
pub mod collective;
pub mod dispatch;
pub mod elementwise;
pub mod gemm;
pub mod moe;
pub mod quantise;
pub mod slowdown;
mod tile;
mod wire;

pub use attention::{AttentionOp, Load};
pub use collective::{Collective, CollectiveOp};
pub use dispatch::DispatchOp;
pub use elementwise::ElementwiseOp;
pub use gemm::GemmOp;
pub use moe::{GroupedGemmOp, expected_distinct_experts};
pub use quantise::QuantiseOp;
pub use slowdown::SlowdownOp;
